"""The number formats of `slimzoo quantize --to` that need no calibrated ranges; int8 itself is nearest.py's."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

import numpy as np
import onnx
from numpy.typing import NDArray

from compress.quantization.converted import Converted
from compress.quantization.dynamic import DYNAMIC, quantize_dynamic
from compress.quantization.half import BF16, FP16, to_bfloat16, to_float16
from zoo.errors import UsageError, did_you_mean

INT8 = "int8"
FORMATS: Mapping[str, Callable[[onnx.ModelProto, Iterable[NDArray[np.float32]]], Converted]] = {
    DYNAMIC: lambda network, images: quantize_dynamic(network),
    FP16: to_float16,
    BF16: lambda network, images: to_bfloat16(network),
}


def check_format(to: str, *, calibrated: Mapping[str, bool]) -> None:
    """Args:
        calibrated: options that are for int8 alone, and whether they were given.

    Raises:
        UsageError: there is no such format, or it has no such option.
    """
    if to == INT8:
        return
    if to not in FORMATS:
        known = (INT8, *FORMATS)
        raise UsageError(f"unknown format {to!r}; {did_you_mean(to, known, 'it must be one of ' + ', '.join(known))}")
    if given := [option for option, is_given in calibrated.items() if is_given]:
        raise UsageError(f"{to} takes no {' or '.join(given)}: leave it out, or take --to int8, which does")
