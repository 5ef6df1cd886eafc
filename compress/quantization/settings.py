"""The settings of `quantize`, and the number formats and ranges that it knows by name.

A format of your own is a function from a float32 ONNX network and batches of images (B, C, H, W) to a `Converted` (see
converted.py), as in half.py; ranges are a function from a `Histogram` to its lowest and highest value (calibrate.py).
Hand them over as they are, or as "module:object" on the command line. To give one a name, add a line here.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, PlainSerializer, model_validator

from zoo.choices import Choices
from zoo.errors import UsageError
from zoo.settings import MOST_EPOCHS, Seeded, option

INT8 = "int8"
AUTO = "auto"  # whichever of RANGES is nearest to the float network, see nearest.py
FORMATS = Choices(  # that need no calibrated ranges; int8 itself is nearest.py's
    "format",
    {
        "int8-dynamic": "compress.quantization.dynamic:quantize_dynamic",
        "fp16": "compress.quantization.half:to_float16",
        "bf16": "compress.quantization.half:to_bfloat16",
    },
    words=(INT8,),
)
RANGES = Choices(
    "ranges",
    {
        "minmax": "compress.quantization.calibrate:min_max",
        "percentile": "compress.quantization.calibrate:percentile",
        "mse": "compress.quantization.calibrate:least_squares",
    },
    words=(AUTO,),
)


class Quantize(Seeded):
    """The number format, and for int8, whose activations' ranges are calibrated, how they and the weights are rounded.

    max_drop: where all layers in int8 lose more, those that do the most harm for the milliseconds that they save stay
    in float; where that is not enough, it is refused.

    bits: 4 and fewer take half the bytes in the file, and no less time; activations have 8.

    ranges, bits, epochs, keep, machine: for int8 alone.

    Raises:
        UsageError: there is no such format, or it has no such option; a value out of its range.
    """

    to: Annotated[Any, BeforeValidator(FORMATS.checked), PlainSerializer(FORMATS.name)] = option(
        INT8,
        "int8; int8-dynamic, for matrix products and LSTMs, ranges found at run time; fp16; bf16, stored in half the "
        "bytes and computed in float; or module:object.",
        metavar="FORMAT",
    )
    machine: Literal["this", "any", "x86", "x86-vnni", "arm"] = option(
        "this",
        "The processor that will run int8: this one, any (7-bit weights, right everywhere), x86 without VNNI, x86-vnni "
        "or arm.",
        flags=("--for",),
    )
    max_drop: float | None = option(
        None, "Points of validation accuracy that may be lost; float layers see to it.", ge=0
    )
    ranges: Annotated[Any, BeforeValidator(RANGES.checked), PlainSerializer(RANGES.name)] = option(
        AUTO,
        f"Of activations: {', '.join(RANGES)}, or module:object; auto takes what is nearest to the float model.",
        metavar="NAME",
    )
    bits: int = option(8, "Of the weights; with 4 the file halves again.", ge=2, le=8)
    epochs: int = option(
        0, "Of training with rounded weights and activations; needs the extra qat.", ge=0, le=MOST_EPOCHS
    )
    keep: tuple[str, ...] = option((), "A layer that stays in float; can be given again.", metavar="LAYER")

    @model_validator(mode="after")
    def _check(self) -> Quantize:
        given = {
            "--ranges": self.ranges != AUTO,
            "--bits": self.bits != 8,
            "--epochs": self.epochs > 0,
            "--keep": bool(self.keep),
            "--for": self.machine != "this",
        }
        others = [option for option, is_given in given.items() if is_given]
        if self.to != INT8 and others:
            raise UsageError(
                f"{FORMATS.name(self.to)} takes no {' or '.join(others)}: leave it out, or take --to int8, which does"
            )
        return self
