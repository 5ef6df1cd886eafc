"""`quantize`: from a float model, wherever it comes from, to a directory whose model is an ONNX file in int8 or another
format."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from torch import nn

from compress.deployment.export import PARITY_IMAGES, finish, in_memory
from compress.deployment.float_model import FloatModel, open_float_model
from compress.deployment.onnx_result import OnnxResult, run_without_slimzoo, write_onnx
from compress.deployment.parity import compare
from compress.quantization.calibrate import Images
from compress.quantization.converted import Converted
from compress.quantization.cpu import THIS, is_here, scheme_for
from compress.quantization.data import Calibration, open_calibration
from compress.quantization.fidelity import logits_of
from compress.quantization.int8 import Int8
from compress.quantization.nearest import CHANGES, Nearest
from compress.quantization.ptq import Quantized, check_layers, without_int8
from compress.quantization.sensitivity import Blame
from compress.quantization.settings import AUTO, FORMATS, INT8, RANGES, Quantize
from compress.recovery.recipe import recovery_recipe
from compress.step import JUDGE, ROUNDING, judge_of, large_loss
from compress.verbs import QUANTIZE
from transfer.data.loader import LabelledPixels
from transfer.data.parts import Pixels, read_pixels, seen_in
from transfer.data.split import TEST, VAL
from transfer.evaluation.divergence import divergence
from zoo.call import Call, takes
from zoo.errors import GateError, UsageError
from zoo.files.manifest import CHECKPOINTS
from zoo.files.model_directory import LoadedModel, ModelConfig
from zoo.files.predictor import OnnxPredictor
from zoo.files.program import refuse_program
from zoo.files.rehearsal import rehearsal
from zoo.progress import Progress
from zoo.run import Run

CALIBRATION_IMAGES = 256
ADVICE = "--max-drop 1 keeps the layers in float that do most harm, and --to fp16 loses next to nothing"
# nats an image; below, layers are not ranked, which takes most of the time: each one's share in so little is chance
BLAMED_FROM = 1e-3
WORST = 3  # layers that are named where int8 loses too much


@dataclass(frozen=True, kw_only=True)
class QuantizedStep(OnnxResult):
    found: Nearest | Converted

    @property
    def quantized(self) -> Quantized | Converted:
        return self.found.quantized if isinstance(self.found, Nearest) else self.found

    @property
    def divergence(self) -> float:
        """How far the answers are from the float network's, on images that did not calibrate, in nats per image."""
        return self.found.divergence if isinstance(self.found, Nearest) else sum(self.record["divergence"].values())

    def lines(self) -> list[str]:
        record, found = self.record, self.found
        said = [f"{record['arguments']['directory']}: {change}" for change in record.get("changes", ())]
        said += super().lines()
        if self.quantized.kept:
            said.append(f"in float: {', '.join(self.quantized.kept)}")
        became = _said_of_int8(found, record) if isinstance(found, Nearest) else str(found)
        said.append(f"{self.name}: {became}; {record['metrics']['after']['size_bytes'] / 1e6:.2f} MB")
        if isinstance(found, Nearest) and (floats := without_int8(found.exact)):
            said.append(floats)
        if why := record["unmeasured"]:
            said.append(f"accuracy is not measured: {why}")
            said.append(f"its answers diverge from the float model's by {self.divergence:.2g} nats an image")
        parity = record["parity"]
        return [*said, f"of {parity['n']} images {len(parity['flips'])} get another answer than from the float model"]

    def next(self) -> list[list[str | Path]]:
        source = self.record["arguments"]["directory"]
        return [["slimzoo", "bench", source, self.name], *run_without_slimzoo(self.name, self.config)]


def _said_of_int8(found: Nearest, record: dict[str, Any]) -> str:
    made, machine = found.quantized, record["made_for"]
    why = ", since this processor saturates on 8" if made.scheme.bits < record["arguments"]["bits"] else ""
    if machine != THIS:
        why = f", for {machine}" + ("" if record["tried_there"] else ", and not tried there")
    changes = "".join(f", {change}" for change in found.taken)
    share = f"{made.int8_layers} of {made.layers} layers, {made.int8_macs:.1%} of the MACs, run in int8"
    return f"{share}; {made.scheme}{why}; {RANGES.name(made.ranges)} ranges{changes}"


@takes(QUANTIZE)
def quantize(directory: str | Path | LoadedModel, settings: Quantize, call: Call) -> QuantizedStep:
    """Export, calibrate on training images, quantize, measure, and write `out`.

    In int8, weights are equalized, their rounding learned and biases corrected where that brings the answers nearer to
    the float network's (compress/quantization/nearest.py); or the network is trained with its weights and activations
    rounded, taught by itself as it was (compress/quantization/qat.py).

    Args:
        directory: a model directory with float weights, "timm:NAME", "torchvision:NAME" or a float32 ONNX file.
        settings: see `Quantize`.
        call: `data` are those of its fit, or others of its classes. Images of other classes, or of none, only
            calibrate: how near the answers stay to the float model's is said, and no accuracy.

    Raises:
        GateError: the accuracy falls by more than `max_drop`, and which layers are to blame; nothing is written.
        UsageError: the network has no layer of that name; `max_drop` or `epochs` with images that have no labels of
            use; torchao is not installed; see also `open_float_model`.
        SlimzooError: the format was asked for and had no effect.
    """
    run = call.run()
    scheme_for(settings.machine)
    model = open_float_model(directory, preprocess=call.preprocess, classes=call.classes)
    check_layers(model.network, settings.keep)
    if settings.epochs:
        _check_trainable(model)
    calibration = open_calibration(
        model.config, call.data, max_drop=settings.max_drop, most=2 * CALIBRATION_IMAGES, seed=settings.seed
    )
    if settings.epochs and calibration.unmeasured is not None:
        raise UsageError(f"--epochs needs labelled images of the model's classes: {calibration.unmeasured}")
    judge, calibration = _divided(model, calibration, trains=bool(settings.epochs))
    run.data = calibration.data.record()
    notes = {"unmeasured": calibration.unmeasured, **(model.notes or {})}
    with run.directory() as work:
        checkpoints = work / CHECKPOINTS
        with rehearsal(work, f"the ONNX model of {model.config.architecture}") as folder:
            config = model.config.with_step(run.record(done=False, **notes))
            write_onnx(folder, finish(model.network, model.config, None), config)
        pixels = read_pixels(calibration.data, model.config.preprocess, call.progress)
        seen = seen_in(calibration.data, pixels)
        model = replace(model, config=model.config.having_seen(seen, calibration.data.fingerprint()))
        if judge is None:
            job = _Job(model, settings, calibration, pixels, checkpoints, call.progress)
        else:
            twin = _Job(model.of_judge(judge), settings, calibration, pixels, checkpoints / JUDGE, call.progress)
            job = twin.for_model(model, checkpoints)
        found, details = job.quantized()
        finished, record = job.finished(run, found, {**notes, **details})
        config = write_onnx(work, finished, model.config.with_step(record))
    return QuantizedStep(out=run.out, config=config, record=record, onnx=finished, found=found)


def _divided(model: FloatModel, calibration: Calibration, *, trains: bool) -> tuple[nn.Module | None, Calibration]:
    """The model's judge, and the images as they are used: see zoo/files/judge.py.

    A few images more that only calibrate change nothing: a model that has not seen any of them needs no judge.
    """
    data, loaded = calibration.data, model.loaded
    if not data.refit:
        return None, calibration
    judge = None if loaded is None else judge_of(loaded, data)
    if loaded is not None and judge is None:
        return None, replace(calibration, data=data.whole())
    if loaded is None or (judge is loaded.model and not trains):
        return None, replace(calibration, data=replace(data, refit=False))
    return judge, calibration


class _Job:
    """The work of `quantize` on one model and its images.

    Attributes:
        before: metrics of the float model.
        seen, unseen: images that calibrate, and others on which answers are compared: those to validate by, where all
            the rest calibrate.
        after_judge: metrics of what became of its judge, where that has been quantized before.
        changes: to a network that are tried, see `nearest`; of a model with a judge those that paid there.
        judged: what became of its judge, in int8.
    """

    def __init__(
        self,
        model: FloatModel,
        settings: Quantize,
        calibration: Calibration,
        pixels: Pixels,
        checkpoints: Path,
        progress: Progress | None,
    ) -> None:
        self.model, self.settings, self.pixels, self.progress = model, settings, pixels, progress
        self.calibration, self.checkpoints = calibration, checkpoints
        self.config = model.config
        self.measured = pixels if calibration.unmeasured is None else None
        self.before = model.metrics(model.predictor, self.measured, progress)
        shuffled = np.random.default_rng(settings.seed).permutation(len(pixels.train))
        chosen, others = shuffled[:CALIBRATION_IMAGES], shuffled[CALIBRATION_IMAGES:][:CALIBRATION_IMAGES]
        few = pixels.train.pixels[chosen]
        rest = pixels.train.pixels[others] if len(others) else few if pixels.val is None else pixels.val.pixels
        self.seen, self.unseen = (Images(these, self.config.preprocess) for these in (few, rest[:CALIBRATION_IMAGES]))
        self.ranking: list[Blame] = []
        self.after_judge: dict[str, Any] | None = None
        self.changes: tuple[str, ...] = CHANGES
        self.judged: Nearest | None = None

    def for_model(self, model: FloatModel, checkpoints: Path) -> _Job:
        """The same on the model and all images, as this one, on its judge, has found best.

        Raises:
            GateError: its judge loses more than it may.
        """
        found, _ = self.quantized()
        after, settings = self._measured(self._unsaid(found)), self.settings
        if isinstance(found, Nearest):
            made = found.quantized
            settings = settings.model_copy(update={"ranges": made.ranges, "keep": made.kept, "max_drop": None})
        calibration = replace(self.calibration, data=self.calibration.data.whole())
        job = _Job(model, settings, calibration, self.pixels.whole(), checkpoints, self.progress)
        job.ranking, job.after_judge = self.ranking, after
        if isinstance(found, Nearest):
            job.changes, job.judged = found.taken, found
        if VAL in self.before:
            job.before = {**job.before, VAL: self.before[VAL]}
        return job

    def quantized(self) -> tuple[Nearest | Converted, dict[str, Any]]:
        """What the network became, and notes for the record."""
        settings, model = self.settings, self.model
        if self.progress is not None:
            self.progress("quantizing", 0, 1, "")
        if settings.to != INT8:
            found: Converted = FORMATS.value(settings.to)(model.network, self.seen)
            apart = divergence(logits_of(model.network, self.unseen), logits_of(found.network, self.unseen))
            return found, {**found.record(), "divergence": {FORMATS.name(settings.to): apart}}
        int8 = self._int8()
        nearest_ = int8.of(model, self.pixels, self.seen, self.unseen, self.checkpoints)
        holds, val = None, self.pixels.val
        if settings.max_drop is not None and val is not None:
            least = self.before[VAL]["top1"] - settings.max_drop / 100
            holds = partial(_holds, self.config, val, least)
        loses = holds is not None and not holds(nearest_.quantized.network)
        if loses or (nearest_.divergence > BLAMED_FROM and self.after_judge is None):
            self.ranking = int8.ranking(nearest_, self.unseen)
        if holds is not None and loses:
            nearest_ = int8.within(nearest_, self.ranking, holds)
        if self.judged is not None:  # its images were seen by neither
            nearest_ = replace(nearest_, divergence=self.judged.divergence, tried=self.judged.tried)
        machine = self.settings.machine
        made_for = {"made_for": machine, "tried_there": is_here(machine)}
        return nearest_, int8.record(nearest_, self.ranking) | made_for

    def _int8(self) -> Int8:
        settings, scheme, recipe = self.settings, scheme_for(self.settings.machine), None
        if settings.epochs:
            mirror = self.calibration.data.mirror
            recipe = recovery_recipe(self.config, mirror=mirror, epochs=settings.epochs, seed=settings.seed)
        return Int8(
            scheme=replace(scheme, bits=min(settings.bits, scheme.bits)),
            ranges=tuple(RANGES) if settings.ranges == AUTO else (settings.ranges,),
            keep=settings.keep,
            recipe=recipe,
            progress=self.progress,
            changes=self.changes,
            settled=self.judged is not None,
        )

    def finished(
        self, run: Run, found: Nearest | Converted, details: dict[str, Any]
    ) -> tuple[onnx.ModelProto, dict[str, Any]]:
        """The file to write, and the record.

        Raises:
            GateError: it loses more than it may.
        """
        quantized = found.quantized if isinstance(found, Nearest) else found
        unsaid = self._unsaid(found)
        after = self._measured(unsaid)
        held_out = self.pixels.val or self.pixels.test
        shown = self.unseen.pixels if held_out is None else held_out.pixels
        parity = {"images": "real", **compare(self.model.reference, unsaid, shown[:PARITY_IMAGES])}
        finished = finish(quantized.network, self.config, parity, metrics=after)
        after["size_bytes"] = finished.ByteSize()
        after["density"] = quantized.density
        advice = ADVICE if self.settings.to == INT8 else "keep the float model"
        lost = large_loss(self.before, after, advice)
        return finished, run.record(before=self.before, after=after, parity=parity, **details, large_loss=lost)

    def _unsaid(self, found: Nearest | Converted) -> bytes:
        """The file as it will be written, but for what is only known of it then."""
        quantized = found.quantized if isinstance(found, Nearest) else found
        content: bytes = finish(quantized.network, self.config, None).SerializeToString()
        return content

    def _measured(self, unsaid: bytes) -> dict[str, Any]:
        """Its metrics, on validation images those of its judge.

        Raises:
            GateError: it loses more than it may.
        """
        after = self.model.metrics(OnnxPredictor(unsaid), self.measured, self.progress)
        if self.after_judge is not None and VAL in self.after_judge:
            after[VAL] = self.after_judge[VAL]
        _check_gate(self.before, after, self.settings, self.ranking)
        return after


def _holds(config: ModelConfig, val: LabelledPixels, least: float, network: onnx.ModelProto) -> bool:
    return _top1(network, config, val) >= least - ROUNDING


def _check_trainable(model: FloatModel) -> None:
    if model.loaded is None:
        raise UsageError(
            f"--epochs trains in torch, and {model.config.architecture} is an ONNX file; leave out --epochs"
        )
    refuse_program(model.loaded.model, model.config.architecture, "quantize --epochs")
    check_training()


def check_training() -> None:
    """
    Raises:
        UsageError: what training needs is not installed.
    """
    if importlib.util.find_spec("torchao") is None:
        raise UsageError("--epochs needs torchao, which is not installed: pip install 'slimzoo[qat]'")


def _top1(network: onnx.ModelProto, config: ModelConfig, part: LabelledPixels) -> float:
    answers = in_memory(finish(network, config, None)).logits(part.pixels).argmax(1)
    return float((answers == part.labels).mean())


def _check_gate(before: dict[str, Any], after: dict[str, Any], settings: Quantize, ranking: Sequence[Blame]) -> None:
    part, most = VAL if VAL in after else TEST, settings.max_drop
    if most is None or part not in after:
        return
    drop = 100 * (before[part]["top1"] - after[part]["top1"])
    if drop > most + 100 * ROUNDING:
        worst = [each for each in ranking if each.share > 0][:WORST]
        named = ", ".join(f"{each.layer} ({each.share:.0%} of the difference)" for each in worst)
        blamed = f"most to blame are {named}, and the harmful layers in float do not help; " if worst else ""
        raise GateError(
            f"{FORMATS.name(settings.to)} loses {drop:.1f} points on the {part} images, --max-drop allows {most:.1f}; "
            f"nothing was written; {blamed}keep the float model, or allow more"
        )
