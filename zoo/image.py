"""load_image, the only decoder: a file or bytes in, 8-bit RGB pixels out, whatever the file's mode.

Imports Pillow and NumPy alone, and pillow-heif where it is installed, so that this file can be shipped beside an ONNX
model.
"""

from __future__ import annotations

import functools
import importlib.util
import io
import warnings
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, TiffImagePlugin, UnidentifiedImageError

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF", "AVIF")
HEIC_EXTENSIONS = frozenset({".heic", ".heif", ".hif"})
HEIC_READABLE = importlib.util.find_spec("pillow_heif") is not None
HEIC_NEEDS = "pip install 'slimzoo[heic]' reads it"
EXTENSIONS = frozenset(
    {".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif", ".avif"}
) | (HEIC_EXTENSIONS if HEIC_READABLE else frozenset())
REDUCED_TO = 2  # times the size wanted, at least, of a JPEG that is decoded at a part of its own
MAX_PIXELS = 50_000_000  # 150 MB as RGB; a 17 kB PNG can claim 144 million
# what a file that is no image turns out to be, by its first bytes; the first that fits
SIGNATURES = (
    (b"%PDF", "a PDF document"),
    (b"8BPS", "a Photoshop document"),
    (b"\xff\x0a", "JPEG XL"),
    (b"\0\0\0\x0cJXL ", "JPEG XL"),
    (b"\0\0\0\x0cjP  ", "JPEG 2000"),
    (b"<", "a web page or other markup"),
)
HEIC_BRANDS = (b"heic", b"heix", b"hevc", b"hevx", b"heim", b"heis", b"mif1", b"msf1")  # ISO/IEC 23008-12, annex B
# samples that a photometric interpretation gives a meaning to (TIFF 6.0, tag 262)
TIFF_COLOURS = {0: 1, 1: 1, 2: 3, 3: 1, 4: 1, 5: 4, 6: 3, 8: 3}
PHOTOMETRIC, BITS, SAMPLES, EXTRA, SAMPLE_FORMAT = 262, 258, 277, 338, 339
ORIENTATION, SIDEWAYS = 274, (5, 6, 7, 8)  # Exif 2.3, tag 274: those whose rows are the picture's columns
ASSOCIATED, UNASSOCIATED = 1, 2  # opacity, by TIFF 6.0, tag 338; 0 is unspecified


class ImageError(ValueError):
    """A file that cannot be read as an image; the message names it."""

    exit_code = 3


def load_image(
    source: str | Path | bytes,
    *,
    background: tuple[int, int, int] = (255, 255, 255),
    least: tuple[int, int] | None = None,
) -> NDArray[np.uint8]:
    """Decode an image to (H, W, 3) uint8 RGB as a person would see it.

    EXIF orientation is applied, 16-bit grey is scaled to 8 bits, transparency is laid over `background`, palettes and
    CMYK are converted, and of an animation the first frame is taken. A TIFF's band beyond its colours is opacity only
    where the file says so and the values bear it out: GIS tools mark a near infrared band as opacity too.

    Args:
        least: (height, width) that are enough: a JPEG is decoded at an eighth, a quarter or a half of its size where it
            stays as high and as wide, in a fraction of the time and memory (`Preprocess.least` says what a network
            needs).

    Raises:
        ImageError: not an image, truncated, larger than MAX_PIXELS, 32-bit or float pixels, whose range no one has
            said, or bands of which no one has said what they show.
    """
    name = f"image of {len(source)} bytes" if isinstance(source, bytes) else str(source)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # the limit below is stricter
            image = open_header(source)
        with image:
            if image.width * image.height > MAX_PIXELS:
                megapixels = image.width * image.height / 1e6
                raise ImageError(
                    f"{name}: {megapixels:.0f} megapixels, more than {MAX_PIXELS / 1e6:.0f}; scale it down"
                )
            if least is not None:
                _decode_reduced(image, least)
            _load(image, name)
            ImageOps.exif_transpose(image, in_place=True)  # which copies only what has to be turned
            return _rgb(image, background, name)
    except ImageError:
        raise
    except UnidentifiedImageError as error:
        raise ImageError(f"{name}: {_what_it_is(source)}") from error
    except (
        Image.DecompressionBombError,
        EOFError,
        SyntaxError,
        ValueError,
    ) as error:  # ValueError: an impossible header
        raise ImageError(f"{name}: cannot be decoded ({error})") from error
    except (FileNotFoundError, PermissionError, IsADirectoryError) as error:
        raise ImageError(f"{name}: {error.strerror}") from error
    except OSError as error:
        raise ImageError(f"{name}: truncated or damaged ({error}); fetch it again or take it out") from error


def least_of(size: Sequence[int], resize_to: int | None) -> tuple[int, int]:
    """(height, width) at which an image may be decoded that a `Preprocess` of these scales: twice what becomes of it.

    25 photographs of 1.5 to 18 megapixels at 224 px: pixels differ by 0.3 levels of 255 in the mean (1.0 in the worst
    of them, of 1.5 megapixels), and decoding and resizing take a third of the time (median).
    """
    height, width = (REDUCED_TO * (resize_to or side) for side in size)
    return height, width


def opens_as_image(path: Path) -> bool:
    """Whether the file's header is that of an image that `load_image` reads, whatever its name; nothing is decoded."""
    with warnings.catch_warnings(), suppress(Exception):  # Pillow raises all kinds of errors on what is no image
        warnings.simplefilter("ignore")
        with open_header(path):
            return True
    return False


def open_header(source: str | Path | bytes) -> Image.Image:
    """The image with its pixels still to be decoded, in one of the formats that `load_image` reads; Pillow's errors."""
    return Image.open(io.BytesIO(source) if isinstance(source, bytes) else source, formats=_formats())


@functools.cache
def _formats() -> tuple[str, ...]:
    if not HEIC_READABLE:
        return FORMATS
    import pillow_heif

    pillow_heif.register_heif_opener()
    return (*FORMATS, "HEIF")


def _decode_reduced(image: Image.Image, least: tuple[int, int]) -> None:
    """Let the decoder of a JPEG leave out the finest detail of each of its blocks; others know no such way."""
    height, width = reversed(least) if image.getexif().get(ORIENTATION, 1) in SIDEWAYS else least
    image.draft(None, (width, height))


def _load(image: Image.Image, name: str) -> None:
    """Load the pixels, and refuse a TIFF with bands that are neither colour nor opacity: by its tags, before that."""
    tags: Mapping[int, Any] = image.tag_v2 if isinstance(image, TiffImagePlugin.TiffImageFile) else {}
    extra = _extra_bands(tags)
    marked = len(extra) == 1 and extra[0] in (ASSOCIATED, UNASSOCIATED) and image.getbands()[-1] in "Aa"
    if marked or not extra:
        image.load()
    if extra and not (marked and _masks(image.getchannel(image.getbands()[-1]))):
        raise ImageError(f"{name}: {_bands_unknown(tags, extra)}")


def _extra_bands(tags: Mapping[int, Any]) -> tuple[int, ...]:
    """What tag 338 says of each band beyond the colours; a file without the tag means opacity."""
    samples = int(tags.get(SAMPLES, 1))
    count = max(0, samples - TIFF_COLOURS.get(tags.get(PHOTOMETRIC, 0), samples))
    return (*tags.get(EXTRA, ()), *[UNASSOCIATED] * count)[:count]


def _masks(opacity: Image.Image) -> bool:
    """Whether a band can be opacity: of the pixels that it shows, it shows at least half in full.

    So do cut-outs, frames without data and soft edges; reflectances spread over their range.
    """
    counts = opacity.histogram()
    return 2 * counts[255] >= sum(counts[1:]) > 0


def _bands_unknown(tags: Mapping[int, Any], extra: tuple[int, ...]) -> str:
    samples = int(tags[SAMPLES])
    beyond = "one is neither colour" if len(extra) == 1 else f"{len(extra)} are neither colours"
    return (
        f"{samples} bands, of which {beyond} nor opacity (near infrared?); save the colours alone, or train a network "
        f"made with in_channels={samples} from arrays (transfer.finetune)"
    )


def _what_it_is(source: str | Path | bytes) -> str:
    """Say what a file is that Pillow does not identify."""
    with io.BytesIO(source) if isinstance(source, bytes) else Path(source).open("rb") as file:
        head = file.read(16)
        if head[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
            file.seek(0)
            said = _unread_tiff(file)
            if said:
                return said
    found = "an empty file" if not head else next((what for start, what in SIGNATURES if head.startswith(start)), "")
    if head[4:8] == b"ftyp" and head[8:12] in HEIC_BRANDS:
        found = "HEIC" if HEIC_READABLE else f"HEIC, as phones write it; {HEIC_NEEDS}"
    return f"not an image in one of the formats {', '.join(_formats())}" + (f" but {found}" if found else "")


def _unread_tiff(file: IO[bytes]) -> str:
    """How the pixels of a TIFF are laid out, where Pillow does not read such; "" where its directory is damaged."""
    with warnings.catch_warnings(), suppress(Exception):  # Pillow raises all kinds of errors on damaged directories
        warnings.simplefilter("ignore")
        header = file.read(8)
        tags = TiffImagePlugin.ImageFileDirectory_v2(header + file.read(8) if 43 in header[2:4] else header)
        file.seek(tags.next)
        tags.load(file)
        extra = _extra_bands(tags)
        if extra:
            return _bands_unknown(tags, extra)
        bits = "/".join(map(str, sorted(set(tags.get(BITS, (1,))))))
        kind = "float " if 3 in tags.get(SAMPLE_FORMAT, ()) else ""
        return f"a TIFF of {tags.get(SAMPLES, 1)} {kind}bands of {bits} bits, which is not read; save it as 8-bit RGB"
    return ""


def _rgb(image: Image.Image, background: tuple[int, int, int], name: str) -> NDArray[np.uint8]:
    if image.mode.startswith("I;16"):  # convert("RGB") would clip all but the darkest 256 levels to white
        grey = ((np.asarray(image).astype(np.uint32) * 255 + 32767) // 65535).astype(np.uint8)
        return np.repeat(grey[..., None], 3, axis=2)
    if image.mode in ("I", "F"):
        kind = "32-bit" if image.mode == "I" else "float"
        raise ImageError(f"{name}: {kind} pixels, whose range is not known; save it with 8 or 16 bits")
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", rgba.size, (*background, 255)), rgba)
    return np.array(image if image.mode == "RGB" else image.convert("RGB"))
