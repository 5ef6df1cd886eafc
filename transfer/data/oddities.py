"""What is unusual about an image file, by its header: all of it is handled by load_image, and worth knowing."""

from __future__ import annotations

import warnings
from contextlib import suppress
from pathlib import Path

from PIL import ExifTags

from zoo.image import HEIC_EXTENSIONS, MAX_PIXELS, open_header

JPEG = {".jpg", ".jpeg", ".jpe", ".jfif"}
SUFFIXES = {
    "JPEG": JPEG,
    "MPO": JPEG,
    "PNG": {".png"},
    "WEBP": {".webp"},
    "BMP": {".bmp"},
    "TIFF": {".tif", ".tiff"},
    "GIF": {".gif"},
    "AVIF": {".avif"},
    "HEIF": set(HEIC_EXTENSIONS),
}
# what load_image makes of it
MEANING = {
    "16-bit": "scaled to 8 bits",
    "CMYK": "converted to RGB",
    "palette": "looked up",
    "transparency": "laid over white",
    "grey": "the same in all three channels",
    "rotated by EXIF": "turned upright",
    "animated": "the first frame is taken",
    "wrong extension": "decoded as what it is",
}
BOMB = "bomb"  # more pixels than load_image decodes; not handled but refused


def oddities(content: Path | bytes) -> list[str]:
    """Keys of MEANING, or BOMB alone; nothing of a file that cannot be opened: decoding will tell."""
    found: list[str] = []
    with warnings.catch_warnings(), suppress(Exception):  # Pillow raises all kinds of errors on damaged metadata
        warnings.simplefilter("ignore")
        with open_header(content) as image:
            if image.width * image.height > MAX_PIXELS:
                return [BOMB]
            if (
                isinstance(content, Path)
                and content.suffix
                and content.suffix.lower() not in SUFFIXES.get(image.format or "", set())
            ):
                found.append("wrong extension")
            if image.mode.startswith("I;16"):
                found.append("16-bit")
            if image.mode in ("CMYK", "YCCK"):
                found.append("CMYK")
            if image.mode in ("P", "PA"):
                found.append("palette")
            if image.mode in ("1", "L", "LA", "I", "F") or image.mode.startswith("I;16"):
                found.append("grey")
            if image.has_transparency_data:
                found.append("transparency")
            if getattr(image, "n_frames", 1) > 1:
                found.append("animated")
            if image.getexif().get(ExifTags.Base.Orientation, 1) in range(2, 9):
                found.append("rotated by EXIF")
    return found
