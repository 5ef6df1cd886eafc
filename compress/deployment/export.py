"""Export: one ONNX file, pixels in and probabilities out, that says what it is; and what runs it, in deploy/."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from compress.deployment.coded import export_coded
from compress.deployment.float_model import FloatModel, is_onnx_file, open_float_model
from compress.deployment.onnx_result import files_of, run_without_slimzoo, write_files
from compress.deployment.parity import compare
from compress.deployment.settings import Export
from compress.graph import preprocessing
from compress.graph.card import KEY, card, for_others
from compress.graph.network import FP32_TOLERANCE
from compress.verbs import EXPORT
from transfer.data.fitted_data import reopen
from transfer.data.split import TEST, TRAIN, VAL
from transfer.result import StepResult
from zoo import lineage
from zoo.call import Call, takes
from zoo.errors import SlimzooError, UsageError
from zoo.files.adopt import is_adopted
from zoo.files.directory import check_addable, check_free, new_directory
from zoo.files.manifest import replace_files
from zoo.files.model_directory import (
    CODED,
    ONNX,
    LoadedModel,
    ModelConfig,
    config_files,
    is_model_directory,
    is_own_directory,
    read_config,
    save_model,
    write_config,
)
from zoo.files.onnx_file import load_onnx
from zoo.files.predictor import OnnxPredictor
from zoo.pretrained.upstream import is_upstream
from zoo.progress import Progress

PARITY_IMAGES = 64


def finish(
    network: onnx.ModelProto,
    config: ModelConfig,
    parity: dict[str, Any] | None,
    *,
    metrics: dict[str, Any] | None = None,
) -> onnx.ModelProto:
    """Pixels in, logits and probabilities out, and what the file says of itself (compress/graph/card.py)."""
    model = preprocessing.with_probabilities(preprocessing.with_preprocessing(network, config.preprocess))
    said = card(network, config, parity=parity, metrics=metrics)
    del model.metadata_props[:]
    onnx.helper.set_model_props(model, {KEY: json.dumps(said), **for_others(config)})
    onnx.checker.check_model(model, full_check=True)
    return model


def network_of(path: str | Path) -> onnx.ModelProto:
    """The network inside an exported file, without preprocessing: what is quantized and timed."""
    return preprocessing.network_of(load_onnx(path))


@dataclass(frozen=True, kw_only=True)
class ExportedStep(StepResult):
    """
    Attributes:
        content: of the exported file.
        coded: whether that is a coded file, model.slim, and no ONNX.
        loaded: the model that was exported, where torch has it.
    """

    content: bytes
    coded: bool = False
    loaded: LoadedModel | None = None

    @property
    def onnx(self) -> onnx.ModelProto:
        """The model, from images (bytes, or tensors where they are prepared) to logits and probabilities."""
        return onnx.load_from_string(self.content)

    @property
    def file(self) -> Path:
        """The exported one."""
        return Path(self.name, CODED if self.coded else ONNX)

    def write(self, folder: Path) -> None:
        _write(folder, self.loaded, self.config, files_of(self.content, self.config))

    def lines(self) -> list[str]:
        record = self.record
        size = record["metrics"]["after"]["size_bytes"]
        if self.coded:
            before = record["metrics"]["before"]["size_bytes"]
            times = f"{before / size:.1f} times smaller than the weights"
            return [f"{self.file}: {size:,} bytes, {times}; every bit is the same"]
        parity = record["parity"]
        return [
            *(f"{record['arguments']['directory']}: {change}" for change in record.get("changes", ())),
            f"{self.file}: {size / 1e6:.2f} MB; on {parity['n']} {parity['images']} images the logits differ by "
            f"at most {parity['max_abs']:.1e} (their standard deviation is {parity['logits_std']:.2f}), "
            f"top-1 agrees on {parity['top1_agreement']:.1%}",
        ]

    def next(self) -> list[list[str | Path]]:
        if self.coded:
            return [["slimzoo", "predict", self.file, "IMAGE"]]
        return [*run_without_slimzoo(self.name, self.config), ["slimzoo", "bench", self.name]]


@takes(EXPORT)
def export(directory: str | Path | LoadedModel, settings: Export, call: Call) -> ExportedStep:
    """Write model.onnx and deploy/, in the model directory or a new one, and a record in its lineage.

    deploy/ is a copy of the file with a script that runs it without slimzoo, on onnxruntime, NumPy and Pillow. The file
    is compared with the model on up to 64 real images (noise, if the data cannot be opened), in the form in which
    it will be used: pixels in, logits out, in a process of its own.

    Args:
        directory: a model directory, to which the files are added; or "timm:NAME", "torchvision:NAME" or a float32
            ONNX file, of which `out` becomes a model directory.
        settings: see `Export`.

    Raises:
        UsageError: the directory's model is an ONNX file already; no `out` where one is needed, or one where it is not;
            see also `open_float_model`.
        SlimzooError: the exported file gives other logits than the model; nothing is written.
    """
    if isinstance(directory, StepResult) and directory.out is not None and call.out is None:
        directory = directory.out  # to which the files are added
    if settings.coded:
        return _coded(directory, call)
    began, out = time.monotonic(), call.out
    anew = _is_made_anew(directory, out)
    places = {"directory": directory, "out": out, "preprocess": call.preprocess, "classes": call.classes}
    arguments = {name: str(value) for name, value in places.items() if value is not None}
    _check_place(directory, call)
    _tell(call.progress, "exporting", 0)
    model = open_float_model(directory, preprocess=call.preprocess, classes=call.classes)
    content, parity = _compared(model, call.progress)
    after = {**(model.costs if anew else {}), "size_bytes": len(content)}
    seconds, notes = time.monotonic() - began, model.notes or {}
    record = lineage.step(EXPORT.name, arguments, seed=0, seconds=seconds, after=after, parity=parity, **notes)
    config = model.config.with_step(record)
    files, made = files_of(content, config), {"verb": EXPORT.name, "arguments": arguments}
    if out is not None:
        with new_directory(Path(out), run=made, overwrite=call.overwrite) as work:
            _write(work, model.loaded, config, files)
    elif not isinstance(directory, LoadedModel):
        out = directory
        replace_files(Path(directory), {**config_files(config), **files})
    place = None if out is None else Path(out)
    return ExportedStep(out=place, config=config, record=record, content=content, loaded=model.loaded)


def _coded(directory: str | Path | LoadedModel, call: Call) -> ExportedStep:
    if call.out or call.preprocess or call.classes:
        raise UsageError("--coded adds model.slim to a model directory: it takes no --out and no --preprocess")
    if isinstance(directory, LoadedModel):
        raise UsageError("--coded adds model.slim to a model directory, and this model is in memory: save it first")
    config, record = export_coded(directory, progress=call.progress)
    content = Path(directory, CODED).read_bytes()
    return ExportedStep(out=Path(directory), config=config, record=record, content=content, coded=True)


def _check_place(directory: str | Path | LoadedModel, call: Call) -> None:
    """Refuse, before any work, a directory that is taken or cannot be added to."""
    if call.out is not None:
        check_free(Path(call.out), overwrite=call.overwrite)
    elif not isinstance(directory, LoadedModel) and is_model_directory(Path(directory)):
        if read_config(Path(directory)).primary == ONNX:
            raise UsageError(f"{directory} is an ONNX model already: {Path(directory, ONNX)}")
        check_addable(Path(directory))


def _write(work: Path, loaded: LoadedModel | None, config: ModelConfig, files: dict[str, bytes]) -> None:
    if loaded is None:
        write_config(work, config)
    else:
        save_model(work, loaded.model, config)
    write_files(work, files)


def _is_made_anew(directory: str | Path | LoadedModel, out: str | Path | None) -> bool:
    """Whether a new directory is made, which wants a name; one of ours is added to."""
    if isinstance(directory, LoadedModel):
        return True
    own = is_own_directory(Path(directory)) and not is_adopted(Path(directory))
    anew = is_upstream(directory) or is_onnx_file(directory) or (not own and is_model_directory(Path(directory)))
    if anew and out is None:
        raise UsageError(f"{directory} is no directory of slimzoo's to write into; name a new one with --out DIR")
    if not anew and out is not None and Path(directory).exists():
        raise UsageError(f"{directory} is a model directory, to which export adds model.onnx; leave --out {out} out")
    return anew


def _compared(model: FloatModel, progress: Progress | None) -> tuple[bytes, dict[str, Any]]:
    """The exported file, and how near its answers are to the model's.

    Raises:
        SlimzooError: not near enough.
    """
    images, raw, kind = parity_images(model.config)
    exported = finish(model.network, model.config, None).SerializeToString()
    parity = {"images": kind, **compare(model.reference, exported, images, raw)}
    _tell(progress, "exporting", 1)
    if not parity["max_abs"] <= FP32_TOLERANCE * parity["logits_std"]:
        raise SlimzooError(
            f"the exported file differs from the model by {parity['max_abs']:.2g} (logits' standard deviation "
            f"{parity['logits_std']:.2g}); it was not written"
        )
    return finish(model.network, model.config, parity).SerializeToString(), parity


def in_memory(model: onnx.ModelProto) -> OnnxPredictor:
    return OnnxPredictor(model.SerializeToString())


def parity_images(config: ModelConfig) -> tuple[NDArray[Any], list[NDArray[np.uint8]], str]:
    """Up to 64 images at the network's size, the first few as they come, and "real" or "noise"."""
    data = reopen(config.lineage)
    if data is not None:
        part = next(part for part in (TEST, VAL, TRAIN) if len(data.indices(part)))
        chosen = data.indices(part)[:: max(1, len(data.indices(part)) // PARITY_IMAGES)][:PARITY_IMAGES]
        raw = [data.read(int(i), config.preprocess.least) for i in chosen]
        return np.stack([config.preprocess.resize(image) for image in raw]), raw[:8], "real"
    rng = np.random.default_rng(0)
    if config.preprocess.is_prepared:
        shape = (PARITY_IMAGES, *config.preprocess.size, config.preprocess.channels)
        return rng.standard_normal(shape, dtype=np.float32), [], "noise"
    noise = rng.integers(0, 256, (PARITY_IMAGES, *config.preprocess.size, 3), dtype=np.uint8)
    return np.stack([config.preprocess.resize(image) for image in noise]), list(noise[:8]), "noise"


def _tell(progress: Progress | None, what: str, done: int) -> None:
    if progress is not None:
        progress(what, done, 1, "")
