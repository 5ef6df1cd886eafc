"""Preprocess: what happens to pixels between the decoder and the network. It travels with the weights."""

from __future__ import annotations

import math
import numbers
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from zoo.errors import UsageError
from zoo.image import least_of

NO_PICTURES = (
    "this model takes tensors that its maker prepares, and how pictures become such tensors is not known: give it "
    "floats by slimzoo.from_arrays, or name preprocess=slimzoo.Preprocess(...) in slimzoo.from_module"
)
_RESAMPLING = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}


@dataclass(frozen=True, kw_only=True)
class Preprocess:
    """Resize, crop or pad to `size`, then (pixel / 255 - mean) / std.

    The one rule for rounding: a scaled length is floor(length x scale + 0.5) and at least 1; rows are resized before
    columns, each to 8-bit pixels (Pillow by itself takes the cheaper order, which depends on the image), so that cached
    images, the exported graph and this class see the same values.

    Attributes:
        size: (height, width) of what enters the network.
        resize_to: for mode "crop", the short side before the centre of `size` is cut out.
        mode: "squash" resizes the whole image to `size`; "crop" resizes the short side to `resize_to` and cuts out the
            centre; "pad" fits the whole image into `size` and fills the rest with `background`; "prepared" does
            nothing: the caller prepares tensors, of any number of channels, and pictures are refused.
        interpolation: "bilinear" or "bicubic" (a = -0.5), both as Pillow computes them.
        antialias: the filter widens with the scale when shrinking. False is not implemented and is refused.
        mean, std: per channel, for pixels in 0..1. One value means that the network takes grey images.
        background: RGB behind transparent pixels and around padded images.

    Raises:
        ValueError: a value of another type or out of its range; 0 and 0.0 are the same number, in JSON too.
    """

    size: tuple[int, int]
    resize_to: int | None = None
    mode: Literal["squash", "crop", "pad", "prepared"] = "squash"
    interpolation: Literal["bilinear", "bicubic"] = "bicubic"
    antialias: bool = True
    mean: tuple[float, ...] = (0.485, 0.456, 0.406)  # ImageNet's, as torchvision uses them
    std: tuple[float, ...] = (0.229, 0.224, 0.225)
    background: tuple[int, int, int] = (255, 255, 255)

    def __post_init__(self) -> None:
        for name, kind in (("size", int), ("mean", float), ("std", float), ("background", int)):
            object.__setattr__(self, name, _numbers(name, getattr(self, name), kind))
        if self.resize_to is not None:
            object.__setattr__(self, "resize_to", _numbers("resize_to", [self.resize_to], int)[0])
        if len(self.size) != 2 or min(self.size) < 1:
            raise ValueError(f"size={self.size} must be (height, width) in pixels, both at least 1")
        if len(self.background) != 3 or not 0 <= min(self.background) <= max(self.background) <= 255:
            raise ValueError(f"background={self.background} must be red, green and blue, each in 0..255")
        if self.mode not in ("squash", "crop", "pad", "prepared"):
            raise ValueError(f"mode={self.mode!r} must be 'squash', 'crop', 'pad' or 'prepared'")
        if self.interpolation not in tuple(_RESAMPLING):
            raise ValueError(f"interpolation={self.interpolation!r} must be 'bilinear' or 'bicubic'")
        if not self.antialias:
            raise ValueError("antialias=False is not implemented: images would be resized in another way than said")
        if (self.mode == "crop") != (self.resize_to is not None):
            raise ValueError(
                f"mode={self.mode!r} with resize_to={self.resize_to}: 'crop', and it alone, needs resize_to"
            )
        if self.resize_to is not None and self.resize_to < max(self.size):
            raise ValueError(f"resize_to={self.resize_to} is smaller than the crop {self.size}")
        if len(self.mean) != len(self.std) or (len(self.mean) not in (1, 3) and not self.is_prepared):
            raise ValueError(f"mean={self.mean} and std={self.std} must both have 1 or 3 values")
        if not all(map(math.isfinite, (*self.mean, *self.std))) or min(self.std) <= 0:
            raise ValueError(f"mean={self.mean} and std={self.std} must be finite, std above 0")

    @classmethod
    def prepared(cls, input_size: tuple[int, int, int]) -> Preprocess:
        """Make that of a network whose inputs (C, H, W) are prepared by the caller."""
        channels, height, width = input_size
        return cls(size=(height, width), mode="prepared", mean=(0.0,) * channels, std=(1 / 255,) * channels)

    @property
    def is_prepared(self) -> bool:
        return self.mode == "prepared"

    @property
    def channels(self) -> int:
        return len(self.mean)

    @property
    def least(self) -> tuple[int, int] | None:
        """(height, width) at which an image may be decoded, see `zoo.image.least_of`; None of what is prepared."""
        return None if self.is_prepared else least_of(self.size, self.resize_to)

    def resize(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """(h, w, 3) uint8 RGB of any size to (H, W, C) uint8 of this Preprocess's size and channels.

        Raises:
            UsageError: the network takes prepared tensors.
        """
        if self.is_prepared:
            raise UsageError(NO_PICTURES)
        picture = Image.fromarray(image)
        if self.channels == 1:
            picture = picture.convert("L")
        height, width = self.size
        h, w = image.shape[:2]
        if self.mode == "squash":
            picture = self._scale(picture, height, width)
        elif self.mode == "crop":
            assert self.resize_to is not None
            scale = self.resize_to / min(h, w)
            picture = self._scale(picture, scaled(h, scale), scaled(w, scale))
            top, left = (picture.height - height) // 2, (picture.width - width) // 2
            picture = picture.crop((left, top, left + width, top + height))
        else:
            scale = min(height / h, width / w)
            inner = self._scale(picture, min(scaled(h, scale), height), min(scaled(w, scale), width))
            picture = Image.new("RGB", (width, height), self.background).convert(picture.mode)
            picture.paste(inner, ((width - inner.width) // 2, (height - inner.height) // 2))
        return np.array(picture).reshape(height, width, self.channels)

    def _scale(self, picture: Image.Image, height: int, width: int) -> Image.Image:
        if (picture.height, picture.width) == (height, width):
            return picture
        filter = _RESAMPLING[self.interpolation]
        return picture.resize((width, picture.height), filter).resize((width, height), filter)

    def normalize(self, pixels: NDArray[Any]) -> NDArray[np.float32]:
        """(B, H, W, C) uint8, or float32 where they are prepared, to (B, C, H, W) float32, what the network takes."""
        if self.is_prepared:
            if pixels.dtype == np.uint8:
                raise UsageError(NO_PICTURES)
            return np.ascontiguousarray(pixels.transpose(0, 3, 1, 2), dtype=np.float32)
        mean = np.array(self.mean, dtype=np.float32) * np.float32(255)
        std = np.array(self.std, dtype=np.float32) * np.float32(255)
        return np.ascontiguousarray(((pixels.astype(np.float32) - mean) / std).transpose(0, 3, 1, 2))

    def at(self, size: int) -> Preprocess:
        """Change the size to size x size pixels; the crop keeps its share of the short side."""
        resize_to = None
        if self.resize_to is not None:
            resize_to = max(size, math.floor(size * self.resize_to / min(self.size) + 0.5))
        return replace(self, size=(size, size), resize_to=resize_to)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready; `from_dict` reads it back."""
        return asdict(self)

    @classmethod
    def from_dict(cls, record: dict[str, Any]) -> Preprocess:
        return cls(**record)


def _numbers(name: str, values: Iterable[Any], kind: type[int] | type[float]) -> tuple[Any, ...]:
    """As the type says, however JSON, YAML or NumPy wrote them: 0 for 0.0, 224.0 for 224."""
    given = tuple(values) if isinstance(values, Iterable) and not isinstance(values, str) else (values,)
    if not given or not all(_is_number(value, whole=kind is int) for value in given):
        raise ValueError(f"{name}={values!r} must be {'whole ' if kind is int else ''}numbers")
    return tuple(map(kind, given))


def _is_number(value: Any, *, whole: bool) -> bool:
    real = isinstance(value, numbers.Real) and not isinstance(value, bool)
    return real and (not whole or float(value).is_integer())


def scaled(length: int, scale: float) -> int:
    """The one rule for a scaled length in pixels."""
    return max(1, math.floor(length * scale + 0.5))
