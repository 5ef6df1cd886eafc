"""load_image, the only decoder: a file or bytes in, 8-bit RGB pixels out, whatever the file's mode.

Imports Pillow and NumPy alone, so that this file can be shipped beside an ONNX model.
"""

from __future__ import annotations

import io
import warnings
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF")
EXTENSIONS = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif"})
MAX_PIXELS = 50_000_000  # 150 MB as RGB; a 17 kB PNG can claim 144 million


class ImageError(ValueError):
    """A file that cannot be read as an image; the message names it."""

    exit_code = 3


def load_image(source: str | Path | bytes, *, background: tuple[int, int, int] = (255, 255, 255)) -> NDArray[np.uint8]:
    """Decode an image to (H, W, 3) uint8 RGB as a person would see it.

    EXIF orientation is applied, 16-bit grey is scaled to 8 bits, transparency is laid over `background`, palettes and
    CMYK are converted, and of an animation the first frame is taken.

    Raises:
        ImageError: not an image, truncated, larger than MAX_PIXELS, or 32-bit or float pixels, whose range
            no one has said.
    """
    name = f"image of {len(source)} bytes" if isinstance(source, bytes) else str(source)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # the limit below is stricter
            image = Image.open(io.BytesIO(source) if isinstance(source, bytes) else source, formats=FORMATS)
        with image:
            if image.width * image.height > MAX_PIXELS:
                megapixels = image.width * image.height / 1e6
                raise ImageError(
                    f"{name}: {megapixels:.0f} megapixels, more than {MAX_PIXELS / 1e6:.0f}; scale it down"
                )
            image.load()
            upright = ImageOps.exif_transpose(image)
            return _rgb(upright, background, name)
    except ImageError:
        raise
    except UnidentifiedImageError as error:
        raise ImageError(f"{name}: not an image in one of the formats {', '.join(FORMATS)}") from error
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
    return np.array(image.convert("RGB"))
