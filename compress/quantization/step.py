"""`slimzoo quantize`: from a float model, wherever it comes from, to a directory whose model is an int8 ONNX file, or
one of another format."""

from __future__ import annotations

import importlib.util
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from compress.deployment.export import DEPLOY, PARITY_IMAGES, deployment, finish, in_memory
from compress.deployment.float_model import FloatModel, open_float_model
from compress.deployment.parity import compare
from compress.graph.network import export_network
from compress.quantization.calibrate import AUTO, METHODS, Images, check_method
from compress.quantization.converted import Converted
from compress.quantization.cpu import Scheme, best_scheme
from compress.quantization.data import open_calibration
from compress.quantization.fidelity import divergence, logits_of
from compress.quantization.formats import FORMATS, INT8, check_format
from compress.quantization.mixed import cheapest_first, fewest
from compress.quantization.nearest import Nearest, nearest
from compress.quantization.ptq import Quantized, check_layers, quantize_static
from compress.quantization.rounding import Roundings
from compress.quantization.sensitivity import Blame, blame
from compress.recovery.recipe import recovery_recipe
from compress.step import ROUNDING, Step, large_loss
from transfer.data.dataset import located
from transfer.data.loader import LabelledPixels
from transfer.data.parts import Pixels, read_pixels, seen_in
from transfer.data.split import TEST, VAL
from transfer.training.finetune import TrainingData
from transfer.training.recipe import Recipe
from zoo import lineage
from zoo.disk import write_json
from zoo.errors import GateError, UsageError
from zoo.files.directory import check_free, new_directory
from zoo.files.manifest import CHECKPOINTS
from zoo.files.model_directory import CONFIG, ONNX, ModelConfig
from zoo.files.predictor import OnnxPredictor
from zoo.files.rehearsal import rehearsal
from zoo.progress import Progress

CALIBRATION_IMAGES = 256
RANKING_IMAGES = 64
ADVICE = "--max-drop 1 keeps the layers in float that do most harm, and --to fp16 loses next to nothing"
WORST = 3  # layers that are named where int8 loses too much


@dataclass(frozen=True)
class QuantizedStep(Step):
    found: Nearest | Converted

    @property
    def quantized(self) -> Quantized | Converted:
        return self.found.quantized if isinstance(self.found, Nearest) else self.found

    @property
    def divergence(self) -> float:
        """Of the answers from the float network's, on images that did not calibrate, in nats an image."""
        return self.found.divergence if isinstance(self.found, Nearest) else sum(self.record["divergence"].values())


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
    preprocess: str | Path | None = None,
    classes: str | Path | None = None,
    seed: int = 0,
    overwrite: bool = False,
    resume: bool = False,
    progress: Progress | None = None,
) -> QuantizedStep:
    """Export, calibrate on training images, quantize, measure, and write `out`.

    In int8, weights are equalized, their rounding learned and biases corrected where that brings the answers nearer to
    the float network's (compress/quantization/nearest.py); or the network is trained with its weights and activations
    rounded, taught by itself as it was (compress/quantization/qat.py).

    Args:
        directory: a model directory with float weights, "timm:NAME", "torchvision:NAME" or a float32 ONNX file.
        data: the data of its fit, or others of its classes. Images of other classes, or of none, only calibrate: how
            near the answers stay to the float model's is said, and no accuracy.
        to: "int8", whose activations' ranges are calibrated; "int8-dynamic", whose are found at run time; "fp16" or
            "bf16" (compress/quantization/formats.py). `ranges`, `bits`, `epochs` and `keep` are for the first.
        max_drop: points of validation accuracy that may be lost. Where all layers in int8 lose more, those that do the
            most harm for the milliseconds that they save stay in float; where that is not enough, it is refused.
        ranges: of the activations: "minmax", "percentile" or "mse" (see calibrate.py); "auto" takes the one
            whose answers are nearest to the float network's on training images that did not calibrate.
        bits: of the weights, 2 to 8; activations have 8. 4 and fewer take half the bytes in the file, and no less time.
        epochs: of training with rounded weights and activations; needs the extra qat and a torch model.
        keep: names of layers that stay in float.
        preprocess, classes: of an ONNX file from elsewhere, see `compress.deployment.float_model.open_float_model`.

    Raises:
        GateError: the accuracy falls by more than `max_drop`, and which layers are to blame; nothing is written.
        UsageError: there is no such format, or it has no such option; the network has no layer of that name; `max_drop`
            or `epochs` with images that have no labels of use; torchao is not installed; see also `open_float_model`.
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
    if max_drop is not None and not max_drop >= 0:
        raise UsageError(f"max_drop={max_drop}: wanted points of accuracy, at least 0")
    Recipe(epochs=epochs, seed=seed)
    arguments = {
        "directory": located(directory), "data": located(data), "out": str(out), "to": to, "max_drop": max_drop,
        "ranges": ranges, "bits": bits, "epochs": epochs, "keep": list(keep), "seed": seed,
        **{k: located(value) for k, value in (("preprocess", preprocess), ("classes", classes)) if value is not None},
    }  # fmt: skip
    began = time.monotonic()
    model = open_float_model(directory, preprocess=preprocess, classes=classes)
    config = model.config
    check_layers(model.network, keep)
    if epochs:
        _check_trainable(model)
    calibration = open_calibration(config, data, max_drop=max_drop, most=2 * CALIBRATION_IMAGES, seed=seed)
    if epochs and calibration.unmeasured is not None:
        raise UsageError(f"--epochs needs labelled images of the model's classes: {calibration.unmeasured}")
    run = {"verb": "quantize", "arguments": arguments}
    record = partial(
        lineage.step, "quantize", arguments, seed=seed, data=calibration.data.record(),
        unmeasured=calibration.unmeasured, **(model.notes or {}),
    )  # fmt: skip
    with new_directory(out, run=run, overwrite=overwrite, resume=resume) as work:
        with rehearsal(work, f"the ONNX model of {config.architecture}") as folder:
            _write(folder, finish(model.network, config, None), config.with_step(record(seconds=0.0)))
        pixels = read_pixels(calibration.data, config.preprocess, progress)
        config = config.having_seen(seen_in(calibration.data, pixels), calibration.data.fingerprint())
        measured = pixels if calibration.unmeasured is None else None
        before = model.metrics(model.predictor, measured, progress)
        shuffled = np.random.default_rng(seed).permutation(len(pixels.train))
        chosen, others = shuffled[:CALIBRATION_IMAGES], shuffled[CALIBRATION_IMAGES:][:CALIBRATION_IMAGES]
        seen, unseen = (
            Images(pixels.train.pixels[few], config.preprocess) for few in (chosen, others if len(others) else chosen)
        )
        if progress is not None:
            progress("quantizing", 0, 1, "")
        found: Nearest | Converted
        ranking: list[Blame] = []
        if to == INT8:
            scheme = best_scheme()
            int8 = _Int8(
                scheme=replace(scheme, bits=min(bits, scheme.bits)),
                ranges=tuple(METHODS) if ranges == AUTO else (ranges,),
                keep=tuple(keep),
                recipe=recovery_recipe(config, mirror=calibration.data.mirror, epochs=epochs, seed=seed)
                if epochs
                else None,
                progress=progress,
            )
            found = int8.of(model, pixels, seen, unseen, work / CHECKPOINTS)
            ranking = int8.ranking(found, unseen)
            val = pixels.val
            if max_drop is not None and val is not None:
                least = before[VAL]["top1"] - max_drop / 100
                found = int8.within(found, ranking, lambda net: _top1(net, config, val) >= least - ROUNDING)
            details = int8.record(found, ranking)
        else:
            found = FORMATS[to](model.network, seen)
            apart = divergence(logits_of(model.network, unseen), logits_of(found.network, unseen))
            details = {**found.record(), "divergence": {to: apart}}
        quantized = found.quantized if isinstance(found, Nearest) else found
        unsaid = finish(quantized.network, config, None).SerializeToString()
        after = model.metrics(OnnxPredictor(unsaid), measured, progress)
        _check_gate(before, after, max_drop, ranking, to)
        held_out = pixels.val or pixels.test
        shown = unseen.pixels if held_out is None else held_out.pixels
        parity = {"images": "real", **compare(model.reference, unsaid, shown[:PARITY_IMAGES])}
        finished = finish(quantized.network, config, parity, metrics=after)
        after["size_bytes"] = finished.ByteSize()
        after["density"] = quantized.density
        done = record(
            seconds=time.monotonic() - began, before=before, after=after, parity=parity, **details,
            large_loss=large_loss(before, after, ADVICE if to == INT8 else "keep the float model"),
        )  # fmt: skip
        config = _write(work, finished, config.with_step(done))
    return QuantizedStep(out, config, done, found)


def _write(folder: Path, model: onnx.ModelProto, config: ModelConfig) -> ModelConfig:
    """Write an ONNX model, what runs it, and its config, which is returned."""
    content = model.SerializeToString()
    (folder / DEPLOY).mkdir(exist_ok=True)
    for name, part in {ONNX: content, **deployment(content)}.items():
        (folder / name).write_bytes(part)
    OnnxPredictor(folder / ONNX)  # what was written opens
    config = replace(config, primary=ONNX, surgery=[])
    write_json(folder / CONFIG, config.to_json())
    return config


def _check_trainable(model: FloatModel) -> None:
    if model.loaded is None:
        raise UsageError(
            f"--epochs trains in torch, and {model.config.architecture} is an ONNX file; leave out --epochs"
        )
    if importlib.util.find_spec("torchao") is None:
        raise UsageError("--epochs needs torchao, which is not installed: pip install 'slimzoo[qat]'")


@dataclass(frozen=True, kw_only=True)
class _Int8:
    """How a network becomes int8.

    Attributes:
        recipe: of training with rounding; None does without.
    """

    scheme: Scheme
    ranges: tuple[str, ...]
    keep: tuple[str, ...]
    recipe: Recipe | None
    progress: Progress | None

    def of(self, model: FloatModel, pixels: Pixels, seen: Images, unseen: Images, checkpoints: Path) -> Nearest:
        network, trained = model.network, None
        if self.recipe is not None:
            network, trained = self._trained(model, pixels, self.recipe, checkpoints)
        return nearest(
            network, seen, unseen, ranges=self.ranges, keep=self.keep, scheme=self.scheme, trained=trained,
            progress=self.progress,
        )  # fmt: skip

    def _trained(
        self, model: FloatModel, pixels: Pixels, recipe: Recipe, checkpoints: Path
    ) -> tuple[onnx.ModelProto, Roundings]:
        from compress.quantization.qat import train_quantized  # imports torchao

        assert model.loaded is not None
        data = TrainingData(pixels.train, pixels.val, model.config.preprocess)
        trained = train_quantized(
            model.loaded.model, data, recipe, bits=self.scheme.bits, keep=self.keep, checkpoints=checkpoints,
            progress=self.progress,
        )  # fmt: skip
        network = export_network(trained.model, model.config.input_size)
        return network, trained.roundings(network)

    def ranking(self, found: Nearest, unseen: Images) -> list[Blame]:
        few = Images(unseen.pixels[:RANKING_IMAGES], unseen.preprocess)
        return blame(
            found.exact, found.histograms, few, ranges=found.quantized.ranges, scheme=self.scheme,
            roundings=found.roundings, keep=self.keep, progress=self.progress,
        )  # fmt: skip

    def within(self, found: Nearest, ranking: Sequence[Blame], holds: Callable[[onnx.ModelProto], bool]) -> Nearest:
        """The same, with as many layers in float as the accuracy needs; as it is, where that does not help either."""
        made: dict[tuple[str, ...], Quantized] = {}

        def holds_with(layers: tuple[str, ...]) -> bool:
            if len(layers) == len(ranking):  # nothing would be quantized
                return False
            made[layers] = quantize_static(
                found.exact, histograms=found.histograms, ranges=found.quantized.ranges, keep=[*self.keep, *layers],
                scheme=self.scheme, roundings=found.roundings,
            )  # fmt: skip
            return holds(made[layers].network)

        order = cheapest_first(ranking)
        if holds(found.quantized.network) or not order:
            return found
        layers = fewest(order, holds_with)
        return found if layers is None else replace(found, quantized=made[layers])

    def record(self, found: Nearest, ranking: Sequence[Blame]) -> dict[str, Any]:
        """For the lineage."""
        quantized = found.quantized
        recipe = {} if self.recipe is None else {"recipe": self.recipe.to_dict()}
        return recipe | {
            "scheme": vars(quantized.scheme), "ranges": quantized.ranges, "divergence": dict(found.tried),
            "taken": list(found.taken), "kept": list(quantized.kept), "ranking": [each.record() for each in ranking],
            "int8_layers": [quantized.int8_layers, quantized.layers], "int8_macs": quantized.int8_macs,
        }  # fmt: skip


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
