"""`slimzoo quantize`: from a float model, wherever it comes from, to a directory whose model is an int8 ONNX file."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from compress.deploy.export import DEPLOY, PARITY_IMAGES, deployment, finish, in_memory
from compress.deploy.float_model import open_float_model
from compress.deploy.parity import compare
from compress.quantize.calibrate import AUTO, METHODS, Images, check_method
from compress.quantize.cpu import best_scheme
from compress.quantize.data import open_calibration
from compress.quantize.mixed import cheapest_first, fewest
from compress.quantize.nearest import Nearest, nearest
from compress.quantize.ptq import Quantized, quantize_static
from compress.quantize.sensitivity import Blame, blame
from compress.step import Step
from transfer.data.loader import LabelledPixels, Progress
from transfer.data.parts import read_pixels
from transfer.data.split import TEST, VAL
from zoo import lineage
from zoo.artifact import CONFIG, ONNX, ModelConfig
from zoo.directory import check_free, new_directory, write_json
from zoo.errors import GateError, UsageError
from zoo.predictor import OnnxPredictor

CALIBRATION_IMAGES = 256
RANKING_IMAGES = 64
ROUNDING = 1e-9  # of shares of right answers
WORST = 3  # layers that are named where int8 loses too much


@dataclass(frozen=True)
class QuantizedStep(Step):
    found: Nearest

    @property
    def quantized(self) -> Quantized:
        return self.found.quantized


def quantize(
    directory: str | Path,
    *,
    data: str | Path,
    out: str | Path,
    max_drop: float | None = None,
    ranges: str = AUTO,
    bits: int = 8,
    keep: Sequence[str] = (),
    preprocess: str | Path | None = None,
    classes: str | Path | None = None,
    seed: int = 0,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> QuantizedStep:
    """Export, calibrate on training images, quantize, measure, and write `out`.

    Weights are equalized, their rounding learned and biases corrected where that brings the answers nearer to the float
    network's (compress/quantize/nearest.py).

    Args:
        directory: a model directory with float weights, "timm:NAME", "torchvision:NAME" or a float32 ONNX file.
        data: the data of its fit, or others of its classes. Images of other classes, or of none, only calibrate: how
            near the answers stay to the float model's is said, and no accuracy.
        max_drop: points of validation accuracy that may be lost. Where all layers in int8 lose more, those that do the
            most harm for the milliseconds that they save stay in float; where that is not enough, it is refused.
        ranges: of the activations: "minmax", "percentile" or "mse" (compress/quantize/calibrate.py); "auto" takes the
            one whose answers are nearest to the float network's on training images that did not calibrate.
        bits: of the weights, 2 to 8; activations have 8. 4 and fewer take half the bytes in the file, and no less time.
        keep: names of layers that stay in float.
        preprocess, classes: of an ONNX file from elsewhere, see `compress.deploy.float_model.open_float_model`.

    Raises:
        GateError: the accuracy falls by more than `max_drop`, and which layers are to blame; nothing is written.
        UsageError: the network has no layer of that name; `max_drop` with images that cannot measure it; see also
            `open_float_model`.
        SlimzooError: int8 was asked for and had no effect.
    """
    out = Path(out)
    check_free(out, overwrite=overwrite)
    if ranges != AUTO:
        check_method(ranges)
    if not 2 <= bits <= 8:
        raise UsageError(f"bits={bits}: weights can have 2 to 8")
    scheme = best_scheme()
    scheme = replace(scheme, bits=min(bits, scheme.bits))
    arguments = {
        "directory": str(directory), "data": str(data), "out": str(out), "max_drop": max_drop,
        "ranges": ranges, "bits": bits, "keep": list(keep), "seed": seed,
        **{k: str(value) for k, value in (("preprocess", preprocess), ("classes", classes)) if value is not None},
    }  # fmt: skip
    began = time.monotonic()
    model = open_float_model(directory, preprocess=preprocess, classes=classes)
    config = model.config
    calibration = open_calibration(config, data, max_drop=max_drop, most=2 * CALIBRATION_IMAGES, seed=seed)
    source = calibration.data
    with new_directory(out, run={"verb": "quantize", "arguments": arguments}, overwrite=overwrite) as work:
        pixels = read_pixels(source, config.preprocess, progress)
        measured = pixels if calibration.unmeasured is None else None
        before = model.metrics(model.predictor, measured, progress)
        shuffled = np.random.default_rng(seed).permutation(len(pixels.train))
        chosen, others = shuffled[:CALIBRATION_IMAGES], shuffled[CALIBRATION_IMAGES:][:CALIBRATION_IMAGES]
        if progress is not None:
            progress("quantizing", 0, 1, "")
        unseen = Images(pixels.train.pixels[others if len(others) else chosen], config.preprocess)
        found = nearest(
            model.network,
            Images(pixels.train.pixels[chosen], config.preprocess),
            unseen,
            ranges=tuple(METHODS) if ranges == AUTO else (ranges,),
            keep=keep,
            scheme=scheme,
            progress=progress,
        )
        ranking = _ranking(found, Images(unseen.pixels[:RANKING_IMAGES], config.preprocess), keep, progress)
        val = pixels.val
        if max_drop is not None and val is not None:
            least = before[VAL]["top1"] - max_drop / 100
            found = _within(found, ranking, keep, lambda network: _top1(network, config, val) >= least - ROUNDING)
        quantized = found.quantized
        predictor = in_memory(finish(quantized.network, config, None))
        after = model.metrics(predictor, measured, progress)
        _check_gate(before, after, max_drop, ranking)
        held_out = pixels.val or pixels.test
        shown = unseen.pixels if held_out is None else held_out.pixels
        unsaid = finish(quantized.network, config, None).SerializeToString()
        parity = {"images": "real", **compare(model.reference, unsaid, shown[:PARITY_IMAGES])}
        content = finish(quantized.network, config, parity, metrics=after).SerializeToString()
        (work / DEPLOY).mkdir()
        for name, part in {ONNX: content, **deployment(content)}.items():
            (work / name).write_bytes(part)
        OnnxPredictor(work / ONNX)  # what was written opens
        after["size_bytes"] = (work / ONNX).stat().st_size
        after["density"] = quantized.density
        record = lineage.step(
            "quantize", arguments, seed=seed, seconds=time.monotonic() - began, data=source.record(), before=before,
            after=after, parity=parity, scheme=vars(quantized.scheme), ranges=quantized.ranges,
            divergence=dict(found.tried), taken=list(found.taken), kept=list(quantized.kept),
            ranking=[each.record() for each in ranking],
            int8_layers=[quantized.int8_layers, quantized.layers], int8_macs=quantized.int8_macs,
            unmeasured=calibration.unmeasured, **(model.notes or {}),
        )  # fmt: skip
        config = replace(config.with_step(record), primary=ONNX, surgery=[])
        write_json(work / CONFIG, config.to_json())
    return QuantizedStep(out, config, record, found)


def _ranking(found: Nearest, unseen: Images, keep: Sequence[str], progress: Progress | None) -> list[Blame]:
    return blame(
        found.exact, found.histograms, unseen, ranges=found.quantized.ranges, scheme=found.quantized.scheme,
        roundings=found.roundings, keep=keep, progress=progress,
    )  # fmt: skip


def _within(
    found: Nearest, ranking: Sequence[Blame], keep: Sequence[str], holds: Callable[[onnx.ModelProto], bool]
) -> Nearest:
    """The same, with as many layers in float as the accuracy needs; as it is, where that does not help either."""
    made: dict[tuple[str, ...], Quantized] = {}

    def holds_with(layers: tuple[str, ...]) -> bool:
        if len(layers) == len(ranking):  # nothing would be quantized
            return False
        made[layers] = quantize_static(
            found.exact, histograms=found.histograms, ranges=found.quantized.ranges, keep=[*keep, *layers],
            scheme=found.quantized.scheme, roundings=found.roundings,
        )  # fmt: skip
        return holds(made[layers].network)

    order = cheapest_first(ranking)
    if holds(found.quantized.network) or not order:
        return found
    layers = fewest(order, holds_with)
    return found if layers is None else replace(found, quantized=made[layers])


def _top1(network: onnx.ModelProto, config: ModelConfig, part: LabelledPixels) -> float:
    answers = in_memory(finish(network, config, None)).logits(part.pixels).argmax(1)
    return float((answers == part.labels).mean())


def _check_gate(
    before: dict[str, Any], after: dict[str, Any], max_drop: float | None, ranking: Sequence[Blame]
) -> None:
    part = VAL if VAL in after else TEST
    if max_drop is None or part not in after:
        return
    drop = 100 * (before[part]["top1"] - after[part]["top1"])
    if drop > max_drop + 100 * ROUNDING:
        worst = [each for each in ranking if each.share > 0][:WORST]
        named = ", ".join(f"{each.layer} ({each.share:.0%} of the difference)" for each in worst)
        blamed = f"most to blame are {named}, and the harmful layers in float do not help; " if worst else ""
        raise GateError(
            f"int8 loses {drop:.1f} points on the {part} images, --max-drop allows {max_drop:.1f}; nothing was "
            f"written; {blamed}keep the float model, or allow more"
        )
