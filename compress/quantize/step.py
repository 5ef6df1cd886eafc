"""`slimzoo quantize`: from a model directory to a directory whose model is an int8 ONNX file."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from compress.deploy.export import PARITY_IMAGES, export_network, finish, in_memory
from compress.deploy.parity import compare
from compress.quantize.calibrate import AUTO, METHODS, Images, check_method
from compress.quantize.nearest import Nearest, nearest
from compress.quantize.ptq import Quantized
from compress.quantize.sensitivity import Blame, blame
from compress.step import Step
from transfer.data.dataset import open_for
from transfer.data.loader import Progress
from transfer.data.parts import measure, predictor_of, read_pixels
from transfer.data.split import TEST, VAL
from zoo import lineage
from zoo.artifact import CONFIG, ONNX, load_model
from zoo.directory import check_free, new_directory, write_json
from zoo.errors import GateError
from zoo.predictor import OnnxPredictor, TorchPredictor

CALIBRATION_IMAGES = 256
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
    keep: Sequence[str] = (),
    seed: int = 0,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> QuantizedStep:
    """Export, calibrate on training images, quantize, measure, and write `out`.

    Weights are equalized and biases corrected where that brings the answers nearer to the float network's.

    Args:
        directory: a model directory with float weights.
        data: the data of its fit.
        max_drop: refuse a model that loses more points of validation accuracy than this.
        ranges: of the activations: "minmax", "percentile" or "mse" (compress/quantize/calibrate.py); "auto" takes the
            one whose answers are nearest to the float network's on training images that did not calibrate.
        keep: names of layers that stay in float.

    Raises:
        GateError: the accuracy fell by more than `max_drop`, and which layers are to blame; nothing is written.
        UsageError: the network has no layer of that name.
        SlimzooError: int8 was asked for and had no effect.
    """
    out = Path(out)
    check_free(out, overwrite=overwrite)
    if ranges != AUTO:
        check_method(ranges)
    arguments = {
        "directory": str(directory), "data": str(data), "out": str(out), "max_drop": max_drop,
        "ranges": ranges, "keep": list(keep), "seed": seed,
    }  # fmt: skip
    began = time.monotonic()
    loaded = load_model(directory)
    config = loaded.config
    source = open_for(config, data)
    with new_directory(out, run={"verb": "quantize", "arguments": arguments}, overwrite=overwrite) as work:
        pixels = read_pixels(source, config.preprocess, progress)
        before = measure(predictor_of(loaded.model, config), loaded.model, config, pixels, progress)
        shuffled = np.random.default_rng(seed).permutation(len(pixels.train))
        chosen, others = shuffled[:CALIBRATION_IMAGES], shuffled[CALIBRATION_IMAGES:][:CALIBRATION_IMAGES]
        if progress is not None:
            progress("quantizing", 0, 1, "")
        network = export_network(loaded.model, config.input_size)
        unseen = Images(pixels.train.pixels[others if len(others) else chosen], config.preprocess)
        found = nearest(
            network,
            Images(pixels.train.pixels[chosen], config.preprocess),
            unseen,
            ranges=tuple(METHODS) if ranges == AUTO else (ranges,),
            keep=keep,
        )
        quantized = found.quantized
        predictor = in_memory(finish(quantized.network, config, None))
        after = measure(predictor, loaded.model, config, pixels, progress)
        _check_gate(before, after, max_drop, lambda: _blamed(found, unseen, keep, progress))
        shown = pixels.val or pixels.test or pixels.train
        reference = TorchPredictor(loaded.model, config.preprocess, config.classes)
        parity = {"images": "real", **compare(reference, predictor, shown.pixels[:PARITY_IMAGES])}
        onnx.save(finish(quantized.network, config, parity), work / ONNX)
        OnnxPredictor(work / ONNX)  # what was written opens
        after["size_bytes"] = (work / ONNX).stat().st_size
        after["density"] = quantized.density
        record = lineage.step(
            "quantize", arguments, seed=seed, seconds=time.monotonic() - began, data=source.record(), before=before,
            after=after, parity=parity, scheme=vars(quantized.scheme), ranges=quantized.ranges,
            divergence=dict(found.tried), taken=list(found.taken),
            int8_layers=[quantized.int8_layers, quantized.layers], int8_macs=quantized.int8_macs,
        )  # fmt: skip
        config = replace(config.with_step(record), primary=ONNX, surgery=[])
        write_json(work / CONFIG, config.to_json())
    return QuantizedStep(out, config, record, found)


def _check_gate(
    before: dict[str, Any], after: dict[str, Any], max_drop: float | None, blamed: Callable[[], list[Blame]]
) -> None:
    part = VAL if VAL in after else TEST
    if max_drop is None or part not in after:
        return
    drop = 100 * (before[part]["top1"] - after[part]["top1"])
    if drop > max_drop:
        worst = [each for each in blamed() if each.share > 0][:WORST]
        named = ", ".join(f"{each.layer} ({each.share:.0%} of the difference)" for each in worst)
        kept = "".join(f" --keep {each.layer}" for each in worst)
        cure = f"to blame are {named}: keep them in float with{kept}" if worst else "keep the float model"
        raise GateError(
            f"int8 loses {drop:.1f} points on the {part} images, --max-drop allows {max_drop:.1f}; nothing was "
            f"written; {cure}, or allow more"
        )


def _blamed(found: Nearest, unseen: Images, keep: Sequence[str], progress: Progress | None) -> list[Blame]:
    return blame(
        found.exact, found.histograms, unseen, ranges=found.quantized.ranges, scheme=found.quantized.scheme,
        keep=keep, progress=progress,
    )  # fmt: skip
