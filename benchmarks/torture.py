"""Image files as hard as they come, each with what load_image must make of it: known pixels, or an error.

What must come out is computed here from the numbers that go in, never by Pillow's conversions. Used by
tests/transfer/test_image_torture.py and benchmarks/bench_data.py.
"""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Pixels = NDArray[np.uint8]
HEIGHT, WIDTH = 20, 28
LOSSY = 9  # levels by which a smooth picture may differ after JPEG or WebP at quality 95
HOSTILE = "a\nb<script>'\"\U0001f600" + "\u00e9" * 110 + ".png"  # 240 bytes
NOT_AN_IMAGE, DAMAGED, TOO_LARGE, NO_RANGE = "not an image", "damaged|cannot be decoded", "megapixels|bomb", "range"

# Prints how many files of a folder are refused, and by how many kB the process grew at most meanwhile. It is a process
# of its own, and VmHWM its own mark: ru_maxrss starts with the size of the process that started it.
MEMORY_OF_REFUSALS = """
import re, sys
from pathlib import Path
from zoo.image import ImageError, load_image
def peak():
    return int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1])
before, refused = peak(), 0
for path in Path(sys.argv[1]).iterdir():
    try:
        load_image(path)
    except ImageError:
        refused += 1
print(refused, peak() - before)
"""


@dataclass(frozen=True)
class Case:
    """One file.

    Attributes:
        name: of the file.
        make: writes it.
        pixels: what must be read, or None if it must be refused.
        tolerance: the largest difference that a pixel may have.
        error: a regular expression that the refusal must match, beside the file's name.
        bomb: refused for its size, and so without the memory of its pixels.
    """

    name: str
    make: Callable[[Path], object]
    pixels: Pixels | None = None
    tolerance: int = 0
    error: str = ""
    bomb: bool = False


def smooth() -> Pixels:
    """A gradient that no lossy format hurts, the same nowhere when turned or mirrored."""
    y, x = np.mgrid[0:HEIGHT, 0:WIDTH]
    return np.stack([40 + 6 * x, 30 + 8 * y, 200 - 3 * x - 2 * y], axis=-1).astype(np.uint8)


def cases() -> Iterator[Case]:
    """All files."""
    yield from _plain()
    yield from _deep()
    yield from _palettes_and_transparency()
    yield from _turned()
    yield from _moving()
    yield from _odd_but_right()
    yield from _damaged()
    yield from _bombs()
    yield from _no_images()


def _saved(picture: Image.Image, fmt: str, **options: object) -> Callable[[Path], object]:
    return _bytes(encoded(picture.copy(), fmt, **options))  # a copy: saving leaves its options in an image


def _bytes(content: bytes) -> Callable[[Path], object]:
    return lambda path: path.write_bytes(content)


def encoded(picture: Image.Image, fmt: str, **options: object) -> bytes:
    file = io.BytesIO()
    picture.save(file, fmt, **options)
    return file.getvalue()


def _grey(values: NDArray[np.generic]) -> Pixels:
    return np.repeat(values.astype(np.uint8)[..., None], 3, axis=2)


def _over_white(colour: NDArray[np.generic], alpha: NDArray[np.generic]) -> Pixels:
    share = alpha.astype(float)[..., None] / 255
    return np.floor(colour * share + 255 * (1 - share) + 0.5).astype(np.uint8)


def _plain() -> Iterator[Case]:
    rgb = smooth()
    picture = Image.fromarray(rgb)
    for name, fmt in (("rgb.png", "PNG"), ("rgb.bmp", "BMP"), ("rgb.tif", "TIFF")):
        yield Case(name, _saved(picture, fmt), rgb)
    for method in ("tiff_lzw", "tiff_adobe_deflate", "packbits"):
        yield Case(f"{method}.tiff", _saved(picture, "TIFF", compression=method), rgb)
    yield Case("tiled.tif", _bytes(_tiled_tiff(rgb, 16)), rgb)
    yield Case("lossless.webp", _saved(picture, "WEBP", lossless=True), rgb)
    yield Case("lossy.webp", _saved(picture, "WEBP", quality=95), rgb, LOSSY)
    yield Case("baseline.jpg", _saved(picture, "JPEG", quality=95), rgb, LOSSY)
    yield Case("progressive.jpeg", _saved(picture, "JPEG", quality=95, progressive=True), rgb, LOSSY)
    grey = rgb[..., 0]
    yield Case("grey.png", _saved(Image.fromarray(grey), "PNG"), _grey(grey))
    yield Case("grey.jpg", _saved(Image.fromarray(grey), "JPEG", quality=95), _grey(grey), LOSSY)
    black = (np.indices(grey.shape).sum(0) % 3 == 0).astype(np.uint8) * 255
    bits = Image.fromarray(black).convert("1")
    yield Case("one-bit.png", _saved(bits, "PNG"), _grey(black))
    yield Case("fax.tif", _saved(bits, "TIFF", compression="group4"), _grey(black))
    inks = np.stack([255 - rgb[..., 0], 255 - rgb[..., 1], 255 - rgb[..., 2], np.full_like(grey, 40)], axis=-1)
    light = 255.0 - inks[..., :3]
    printed = np.floor(light * (255 - 40) / 255 + 0.5).astype(np.uint8)
    cmyk = Image.frombytes("CMYK", (WIDTH, HEIGHT), inks.tobytes())
    yield Case("cmyk.tif", _saved(cmyk, "TIFF"), printed, 1)
    yield Case("cmyk.jpg", _saved(cmyk, "JPEG", quality=98), printed, LOSSY)


def _deep() -> Iterator[Case]:
    values = (np.arange(HEIGHT * WIDTH, dtype=np.uint32).reshape(HEIGHT, WIDTH) * 117 % 65536).astype(np.uint16)
    scaled = _grey(np.floor(values / 257 + 0.5))  # 65535 = 255 x 257
    yield Case("grey16.png", _saved(Image.fromarray(values), "PNG"), scaled)
    yield Case("grey16.tif", _saved(Image.fromarray(values), "TIFF"), scaled)
    yield Case("grey16-big-endian.tif", _bytes(_strip_tiff(values.astype(">u2"), ">")), scaled)
    rgb16 = smooth().astype(np.uint16) * 257
    yield Case("rgb16.png", _bytes(_png(WIDTH, HEIGHT, 16, 2, rgb16.astype(">u2").tobytes(), 6)), smooth())
    alpha16 = np.dstack([rgb16, np.full((HEIGHT, WIDTH), 65535, np.uint16)])
    yield Case("rgba16.png", _bytes(_png(WIDTH, HEIGHT, 16, 6, alpha16.astype(">u2").tobytes(), 8)), smooth())
    yield Case("int32.tif", _saved(Image.fromarray(values.astype(np.int32)), "TIFF"), error=NO_RANGE)
    yield Case("float.tiff", _saved(Image.fromarray(values.astype(np.float32)), "TIFF"), error=NO_RANGE)


def _palettes_and_transparency() -> Iterator[Case]:
    colours = np.array([[255, 0, 0], [0, 128, 0], [0, 0, 255], [250, 240, 10]], dtype=np.uint8)
    index = (np.indices((HEIGHT, WIDTH)).sum(0) // 3 % 4).astype(np.uint8)
    picture = Image.fromarray(index)
    picture.putpalette(colours.tobytes())
    looked_up = colours[index]
    for bits in (2, 8):
        yield Case(f"palette{bits}.png", _saved(picture, "PNG", bits=bits), looked_up)
    yield Case("palette.gif", _saved(picture, "GIF"), looked_up)
    yield Case("palette.bmp", _saved(picture, "BMP"), looked_up)
    one = np.where((index == 2)[..., None], np.uint8(255), looked_up)
    yield Case("palette-one-clear.png", _saved(picture, "PNG", transparency=2), one)
    yield Case("clear.gif", _saved(picture, "GIF", transparency=2), one)
    alphas = bytes([255, 128, 0, 60])
    several = _over_white(looked_up, np.frombuffer(alphas, np.uint8)[index])
    yield Case("palette-half-clear.png", _saved(picture, "PNG", transparency=alphas), several, 1)
    rgb, alpha = smooth(), (np.indices((HEIGHT, WIDTH))[1] * 9).astype(np.uint8)
    rgba = Image.fromarray(np.dstack([rgb, alpha]))
    over = _over_white(rgb, alpha)
    yield Case("rgba.png", _saved(rgba, "PNG"), over, 1)
    mask = np.where(alpha < 80, np.uint8(0), np.uint8(255))  # what a TIFF calls opacity must look like it
    masked = Image.fromarray(np.dstack([rgb, mask]))
    yield Case("rgba.tif", _saved(masked, "TIFF"), _over_white(rgb, mask))
    yield Case("rgba.webp", _saved(rgba, "WEBP", lossless=True, exact=True), over, 1)
    hidden = Image.fromarray(np.dstack([rgb, np.zeros_like(alpha)]))
    yield Case("all-clear.png", _saved(hidden, "PNG"), np.full_like(rgb, 255))
    la = Image.fromarray(np.dstack([rgb[..., 0], alpha]))
    yield Case("grey-alpha.png", _saved(la, "PNG"), _over_white(_grey(rgb[..., 0]), alpha), 1)
    key = tuple(int(value) for value in rgb[3, 5])
    keyed = np.where((rgb == rgb[3, 5]).all(-1, keepdims=True), np.uint8(255), rgb)
    yield Case("colour-key.png", _saved(Image.fromarray(rgb), "PNG", transparency=key), keyed)


# how a viewer turns what is stored, by EXIF 2.3: where the stored first row and first column belong
UPRIGHT: dict[int, Callable[[Pixels], Pixels]] = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.transpose(1, 0, 2),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: a[::-1, ::-1].transpose(1, 0, 2),
    8: lambda a: np.rot90(a, 1),
}


def _turned() -> Iterator[Case]:
    rgb = smooth()
    for orientation, turn in UPRIGHT.items():
        save = _saved(Image.fromarray(rgb), "JPEG", quality=95, exif=_orientation(orientation))
        yield Case(f"exif{orientation}.jpg", save, turn(rgb), LOSSY)
    picture = Image.fromarray(rgb)
    yield Case("exif6.png", _saved(picture, "PNG", exif=_orientation(6)), UPRIGHT[6](rgb))
    yield Case("exif6.webp", _saved(picture, "WEBP", lossless=True, exif=_orientation(6)), UPRIGHT[6](rgb))
    yield Case("exif77.jpg", _saved(picture, "JPEG", quality=95, exif=_orientation(77)), rgb, LOSSY)


def _orientation(value: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = value
    return exif


def _moving() -> Iterator[Case]:
    colours = [(200, 30, 30), (30, 200, 30), (30, 30, 200)]
    frames = [Image.new("RGB", (WIDTH, HEIGHT), colour) for colour in colours]
    first = np.full((HEIGHT, WIDTH, 3), colours[0], dtype=np.uint8)
    more = {"save_all": True, "append_images": frames[1:]}
    yield Case("animated.gif", _saved(frames[0], "GIF", **more), first)
    yield Case("animated.webp", _saved(frames[0], "WEBP", lossless=True, **more), first)
    yield Case("animated.png", _saved(frames[0], "PNG", **more), first)
    yield Case("pages.tif", _saved(frames[0], "TIFF", **more), first)
    yield Case("two-pictures.jpg", _saved(frames[0], "MPO", quality=95, **more), first, LOSSY)


def _odd_but_right() -> Iterator[Case]:
    rgb = smooth()
    picture = Image.fromarray(rgb)
    dot = np.array([[[9, 99, 199]]], dtype=np.uint8)
    yield Case("one-pixel.png", _saved(Image.fromarray(dot), "PNG"), dot)
    for name, line in (
        ("wide.png", np.tile(rgb[:1, :1], (1, 5000, 1))),
        ("tall.png", np.tile(rgb[:1, :1], (5000, 1, 1))),
    ):
        yield Case(name, _saved(Image.fromarray(line), "PNG"), line)
    yield Case("jpeg-named.png", _saved(picture, "JPEG", quality=95), rgb, LOSSY)
    yield Case("png-named.JPG", _saved(picture, "PNG"), rgb)
    yield Case("no-extension", _saved(picture, "PNG"), rgb)
    yield Case(HOSTILE, _saved(picture, "PNG"), rgb)
    png = encoded(picture, "PNG")
    # 2.2 and a profile that is none: stored values are used as they are, as everybody who trains on them does
    yield Case("gamma.png", _bytes(_with_chunk(png, b"gAMA", struct.pack(">I", 45455))), rgb)
    yield Case("profile.png", _saved(picture, "PNG", icc_profile=b"no profile at all"), rgb)
    yield Case("profile.jpg", _saved(picture, "JPEG", quality=95, icc_profile=b"no profile at all"), rgb, LOSSY)
    yield Case("followed-by-more.png", _bytes(png + b"more" * 1000), rgb)
    yield Case("followed-by-more.jpg", _bytes(encoded(picture, "JPEG", quality=95) + b"more" * 1000), rgb, LOSSY)


def _damaged() -> Iterator[Case]:
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8))
    for fmt, suffix in (
        ("JPEG", "jpg"),
        ("PNG", "png"),
        ("GIF", "gif"),
        ("WEBP", "webp"),
        ("TIFF", "tif"),
        ("BMP", "bmp"),
    ):
        content = encoded(noise, fmt)
        yield Case(f"half.{suffix}", _bytes(content[: len(content) // 2]), error=DAMAGED)
    png = encoded(noise, "PNG")
    flipped = bytearray(png)
    flipped[len(png) // 2] ^= 0xFF
    yield Case("flipped-byte.png", _bytes(bytes(flipped)), error=DAMAGED)
    yield Case("signature-only.png", _bytes(png[:8]), error=f"{DAMAGED}|{NOT_AN_IMAGE}")
    yield Case("no-data.png", _bytes(png[:33] + _chunk(b"IEND", b"")), error=DAMAGED)
    jpeg = bytearray(encoded(noise, "JPEG"))
    jpeg[jpeg.index(b"\xff\xc0") + 1] = 0xC5  # a process that nobody decodes (ITU-T T.81, table B.1)
    yield Case("strange-process.jpg", _bytes(bytes(jpeg)), error=DAMAGED)
    yield Case("zero-wide.bmp", _bytes(_bmp_header(0, 7)), error=f"{DAMAGED}|{NOT_AN_IMAGE}")


def _bombs() -> Iterator[Case]:
    rows = zlib.compress(b"\0" * (12_000 * 1501), 9)  # 144 megapixels of one bit: all of it is there, in 18 kB
    whole = _png_file(12_000, 12_000, 1, 0, rows)
    yield Case("144-megapixels.png", _bytes(whole), error=TOO_LARGE, bomb=True)
    yield Case("claims.png", _bytes(_png_file(60_000, 60_000, 8, 2, b"")), error=TOO_LARGE, bomb=True)
    gif = bytearray(encoded(Image.new("L", (4, 4)), "GIF"))
    gif[6:10] = struct.pack("<HH", 65_535, 65_535)
    yield Case("claims.gif", _bytes(bytes(gif)), error=TOO_LARGE, bomb=True)
    yield Case("claims.bmp", _bytes(_bmp_header(40_000, 40_000)), error=TOO_LARGE, bomb=True)
    yield Case(
        "claims.tif",
        _bytes(_strip_tiff(np.zeros((2, 2), "<u2"), "<", size=(30_000, 30_000))),
        error=TOO_LARGE,
        bomb=True,
    )
    jpeg = bytearray(encoded(Image.new("RGB", (8, 8)), "JPEG"))
    start = jpeg.index(b"\xff\xc0") + 5
    jpeg[start : start + 4] = struct.pack(">HH", 65_000, 65_000)
    yield Case("claims.jpg", _bytes(bytes(jpeg)), error=TOO_LARGE, bomb=True)
    webp = bytearray(encoded(Image.new("RGB", (8, 8)), "WEBP", lossless=True))
    webp[21:25] = struct.pack("<I", 16_382 | 16_382 << 14)  # width - 1 and height - 1 in 14 bits each
    yield Case("claims.webp", _bytes(bytes(webp)), error=TOO_LARGE, bomb=True)


def _no_images() -> Iterator[Case]:
    yield Case("empty.png", _bytes(b""), error=NOT_AN_IMAGE)
    yield Case("text.jpg", _bytes(b"this is a cat\n" * 50), error=NOT_AN_IMAGE)
    yield Case("page.jpg", _bytes(b"<!DOCTYPE html><html><body>404 Not Found</body></html>"), error=NOT_AN_IMAGE)
    yield Case("drawing.png", _bytes(b'<svg xmlns="http://www.w3.org/2000/svg"/>'), error=NOT_AN_IMAGE)
    yield Case("pickle.png", _bytes(b"\x80\x04\x95\x0b\x00\x00\x00\x00\x00\x00\x00\x8c\x02os\x94."), error=NOT_AN_IMAGE)
    heic = struct.pack(">I", 24) + b"ftypheic" + struct.pack(">I", 0) + b"mif1heic" + b"\0" * 200
    yield Case("phone.jpg", _bytes(heic), error=NOT_AN_IMAGE)
    yield Case("other-format.png", _saved(Image.fromarray(smooth()), "PPM"), error=NOT_AN_IMAGE)
    yield Case("folder.png", lambda path: path.mkdir(), error="Is a directory")
    yield Case("broken-link.png", lambda path: path.symlink_to("nowhere.png"), error="No such file")
    yield Case("link-to-itself.png", lambda path: path.symlink_to(path.name), error="symbolic links")


def _chunk(kind: bytes, content: bytes) -> bytes:
    """PNG, RFC 2083, 3.2."""
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def _png(width: int, height: int, depth: int, colour: int, pixels: bytes, pixel_bytes: int) -> bytes:
    line = width * pixel_bytes
    rows = b"".join(b"\0" + pixels[i : i + line] for i in range(0, len(pixels), line))  # filter 0: none
    return _png_file(width, height, depth, colour, zlib.compress(rows))


def _png_file(width: int, height: int, depth: int, colour: int, data: bytes) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", header) + _chunk(b"IDAT", data) + _chunk(b"IEND", b"")


def _with_chunk(png: bytes, kind: bytes, content: bytes) -> bytes:
    return png[:33] + _chunk(kind, content) + png[33:]  # after IHDR


def _bmp_header(width: int, height: int) -> bytes:
    header = struct.pack("<IiiHHIIiiII", 40, width, height, 1, 24, 0, 0, 0, 0, 0, 0)
    return b"BM" + struct.pack("<IHHI", 54, 0, 0, 54) + header


def _tiff(entries: dict[int, tuple[int, list[int]]], data: bytes, order: str) -> bytes:
    """Header, pixel data, one directory and the values that do not fit into it (TIFF 6.0, section 2)."""
    codes = {3: "H", 4: "I"}
    start = 8 + len(data) + len(data) % 2
    directory, beyond = struct.pack(order + "H", len(entries)), b""
    end = start + 2 + 12 * len(entries) + 4
    for tag, (kind, values) in sorted(entries.items()):
        packed = struct.pack(order + codes[kind] * len(values), *values)
        if len(packed) > 4:
            place, beyond = struct.pack(order + "I", end + len(beyond)), beyond + packed
        else:
            place = packed.ljust(4, b"\0")
        directory += struct.pack(order + "HHI", tag, kind, len(values)) + place
    header = (b"II" if order == "<" else b"MM") + struct.pack(order + "HI", 42, start)
    return header + data + b"\0" * (len(data) % 2) + directory + b"\0" * 4 + beyond


def _strip_tiff(values: NDArray[np.uint16], order: str, size: tuple[int, int] | None = None) -> bytes:
    """16-bit grey in one strip."""
    height, width = size or values.shape
    entries = {
        256: (4, [width]),
        257: (4, [height]),
        258: (3, [16]),
        259: (3, [1]),
        262: (3, [1]),
        273: (4, [8]),
        277: (3, [1]),
        278: (4, [height]),
        279: (4, [values.nbytes]),
    }
    return _tiff(entries, values.tobytes(), order)


def _tiled_tiff(rgb: Pixels, side: int) -> bytes:
    """8-bit RGB in square tiles, which are whole also where they hang over the edge."""
    height, width = rgb.shape[:2]
    down, across = -(-height // side), -(-width // side)
    padded = np.zeros((down * side, across * side, 3), dtype=np.uint8)
    padded[:height, :width] = rgb
    tiles = padded.reshape(down, side, across, side, 3).transpose(0, 2, 1, 3, 4).reshape(-1, side * side * 3)
    size = side * side * 3
    entries = {
        256: (4, [width]),
        257: (4, [height]),
        258: (3, [8, 8, 8]),
        259: (3, [1]),
        262: (3, [2]),
        277: (3, [3]),
        322: (3, [side]),
        323: (3, [side]),
        324: (4, [8 + i * size for i in range(len(tiles))]),
        325: (4, [size] * len(tiles)),
    }
    return _tiff(entries, tiles.tobytes(), "<")
