"""`slimzoo quantize`: from a model directory to a directory whose model is an ONNX file of int8 or another format."""

from __future__ import annotations

import importlib.util
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from compress.deploy.export import DEPLOY, PARITY_IMAGES, deployment, export_network, finish, in_memory
from compress.deploy.parity import compare
from compress.quantize.calibrate import AUTO, METHODS, Images, check_method
from compress.quantize.converted import Converted
from compress.quantize.cpu import best_scheme
from compress.quantize.fidelity import divergence, logits_of
from compress.quantize.formats import FORMATS, INT8, check_format
from compress.quantize.mixed import cheapest_first, fewest
from compress.quantize.nearest import Nearest, nearest
from compress.quantize.ptq import Quantized, check_layers, quantize_static
from compress.quantize.rounding import Roundings
from compress.quantize.sensitivity import Blame, blame
from compress.recipe import recovery_recipe
from compress.step import Step
from transfer.data.dataset import located, open_for
from transfer.data.loader import LabelledPixels, Progress
from transfer.data.parts import Pixels, measure, predictor_of, read_pixels
from transfer.data.split import TEST, VAL
from transfer.training.finetune import TrainingData
from transfer.training.recipe import Recipe
from zoo import lineage
from zoo.artifact import CONFIG, ONNX, LoadedModel, ModelConfig, load_model
from zoo.directory import CHECKPOINTS, check_free, new_directory, write_json
from zoo.errors import GateError, UsageError
from zoo.predictor import OnnxPredictor, TorchPredictor

CALIBRATION_IMAGES = 256
RANKING_IMAGES = 64
ROUNDING = 1e-9  # of shares of right answers
WORST = 3  # layers that are named where int8 loses too much


@dataclass(frozen=True)
class QuantizedStep(Step):
    found: Nearest | Converted

    @property
    def quantized(self) -> Quantized | Converted:
        return self.found.quantized if isinstance(self.found, Nearest) else self.found


def quantize(
    directory: str | Path,
    *,
    data: str | Path,
    out: str | Path,
    to: str = INT8,
    max_drop: float | None = None,
    ranges: str = AUTO,
    bits: int = 8,
    epochs: int = 0,
    keep: Sequence[str] = (),
    seed: int = 0,
    overwrite: bool = False,
    resume: bool = False,
    progress: Progress | None = None,
) -> QuantizedStep:
    """Export, calibrate on training images, quantize, measure, and write `out`.

    In int8, weights are equalized, their rounding learned and biases corrected where that brings the answers nearer to
    the float network's (compress/quantize/nearest.py); or the network is trained with its weights and activations
    rounded, taught by itself as it was (compress/quantize/qat.py).

    Args:
        directory: a model directory with float weights.
        data: the data of its fit.
        to: "int8", whose activations' ranges are calibrated; "int8-dynamic", whose are found at run time; "fp16" or
            "bf16" (compress/quantize/formats.py). `ranges`, `bits` and `keep` are for the first.
        max_drop: points of validation accuracy that may be lost. Where all layers in int8 lose more, those that do the
            most harm for the milliseconds that they save stay in float; where that is not enough, it is refused.
        ranges: of the activations: "minmax", "percentile" or "mse" (compress/quantize/calibrate.py); "auto" takes the
            one whose answers are nearest to the float network's on training images that did not calibrate.
        bits: of the weights, 2 to 8; activations have 8. 4 and fewer take half the bytes in the file, and no less time.
        epochs: of training with rounded weights and activations; needs the extra qat.
        keep: names of layers that stay in float.

    Raises:
        GateError: the accuracy falls by more than `max_drop`, and which layers are to blame; nothing is written.
        UsageError: there is no such format, or it has no such option; the network has no layer of that name; torchao is
            not installed.
        SlimzooError: the format was asked for and had no effect.
    """
    out = Path(out)
    check_free(out, overwrite=overwrite, resume=resume)
    given = {"--ranges": ranges != AUTO, "--bits": bits != 8, "--epochs": epochs > 0, "--keep": bool(keep)}
    check_format(to, calibrated=given)
    if ranges != AUTO:
        check_method(ranges)
    if not 2 <= bits <= 8:
        raise UsageError(f"bits={bits}: weights can have 2 to 8")
    if epochs and importlib.util.find_spec("torchao") is None:
        raise UsageError("--epochs needs torchao, which is not installed: pip install 'slimzoo[qat]'")
    scheme = best_scheme()
    scheme = replace(scheme, bits=min(bits, scheme.bits))
    arguments = {
        "directory": located(directory), "data": located(data), "out": str(out), "to": to, "max_drop": max_drop,
        "ranges": ranges, "bits": bits, "epochs": epochs, "keep": list(keep), "seed": seed,
    }  # fmt: skip
    began = time.monotonic()
    loaded = load_model(directory)
    config = loaded.config
    source = open_for(config, data)
    run = {"verb": "quantize", "arguments": arguments}
    with new_directory(out, run=run, overwrite=overwrite, resume=resume) as work:
        pixels = read_pixels(source, config.preprocess, progress)
        before = measure(predictor_of(loaded.model, config), loaded.model, config, pixels, progress)
        shuffled = np.random.default_rng(seed).permutation(len(pixels.train))
        chosen, others = shuffled[:CALIBRATION_IMAGES], shuffled[CALIBRATION_IMAGES:][:CALIBRATION_IMAGES]
        if progress is not None:
            progress("quantizing", 0, 1, "")
        network, trained, notes = export_network(loaded.model, config.input_size), None, {}
        if epochs:
            check_layers(network, keep)
            recipe = recovery_recipe(config, mirror=source.mirror, epochs=epochs, seed=seed)
            network, trained = _train(loaded, pixels, recipe, scheme.bits, keep, work / CHECKPOINTS, progress)
            notes = {"recipe": recipe.to_dict()}
        unseen = Images(pixels.train.pixels[others if len(others) else chosen], config.preprocess)
        calibration = Images(pixels.train.pixels[chosen], config.preprocess)
        found: Nearest | Converted
        quantized: Quantized | Converted
        ranking: list[Blame] = []
        if to != INT8:
            quantized = found = FORMATS[to](network, calibration)
            details = found.record() | {
                "divergence": {to: divergence(logits_of(network, unseen), logits_of(found.network, unseen))}
            }
        else:
            found = nearest(
                network,
                calibration,
                unseen,
                ranges=tuple(METHODS) if ranges == AUTO else (ranges,),
                keep=keep,
                scheme=scheme,
                trained=trained,
                progress=progress,
            )
            ranking = _ranking(found, Images(unseen.pixels[:RANKING_IMAGES], config.preprocess), keep, progress)
            val = pixels.val
            if max_drop is not None and val is not None:
                least = before[VAL]["top1"] - max_drop / 100
                found = _within(found, ranking, keep, lambda network: _top1(network, config, val) >= least - ROUNDING)
            quantized, details = found.quantized, _details(found, ranking) | notes
        predictor = in_memory(finish(quantized.network, config, None))
        after = measure(predictor, loaded.model, config, pixels, progress)
        _check_gate(before, after, max_drop, ranking, to)
        shown = pixels.val or pixels.test or pixels.train
        reference = TorchPredictor(loaded.model, config.preprocess, config.classes)
        unsaid = finish(quantized.network, config, None).SerializeToString()
        parity = {"images": "real", **compare(reference, unsaid, shown.pixels[:PARITY_IMAGES])}
        content = finish(quantized.network, config, parity, metrics=after).SerializeToString()
        (work / DEPLOY).mkdir(exist_ok=True)
        for name, part in {ONNX: content, **deployment(content)}.items():
            (work / name).write_bytes(part)
        OnnxPredictor(work / ONNX)  # what was written opens
        after["size_bytes"] = (work / ONNX).stat().st_size
        after["density"] = quantized.density
        record = lineage.step(
            "quantize", arguments, seed=seed, seconds=time.monotonic() - began, data=source.record(), before=before,
            after=after, parity=parity, **details,
        )  # fmt: skip
        config = replace(config.with_step(record), primary=ONNX, surgery=[])
        write_json(work / CONFIG, config.to_json())
    return QuantizedStep(out, config, record, found)


def _train(
    loaded: LoadedModel,
    pixels: Pixels,
    recipe: Recipe,
    bits: int,
    keep: Sequence[str],
    checkpoints: Path,
    progress: Progress | None,
) -> tuple[onnx.ModelProto, Roundings]:
    from compress.quantize.qat import train_quantized  # imports torchao

    data = TrainingData(pixels.train, pixels.val, loaded.config.preprocess)
    trained = train_quantized(
        loaded.model, data, recipe, bits=bits, keep=keep, checkpoints=checkpoints, progress=progress
    )
    network = export_network(trained.model, loaded.config.input_size)
    return network, trained.roundings(network)


def _details(found: Nearest, ranking: Sequence[Blame]) -> dict[str, Any]:
    """Of int8, for the lineage."""
    quantized = found.quantized
    return {
        "scheme": vars(quantized.scheme), "ranges": quantized.ranges, "divergence": dict(found.tried),
        "taken": list(found.taken), "kept": list(quantized.kept), "ranking": [each.record() for each in ranking],
        "int8_layers": [quantized.int8_layers, quantized.layers], "int8_macs": quantized.int8_macs,
    }  # fmt: skip


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
    before: dict[str, Any], after: dict[str, Any], max_drop: float | None, ranking: Sequence[Blame], to: str
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
            f"{to} loses {drop:.1f} points on the {part} images, --max-drop allows {max_drop:.1f}; nothing was "
            f"written; {blamed}keep the float model, or allow more"
        )
