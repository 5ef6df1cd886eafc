"""Export: one ONNX file, pixels in and probabilities out, that says what it is; and what runs it, in deploy/."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

import zoo.image
from compress.deployment.coded import export_coded
from compress.deployment.float_model import FloatModel, is_onnx_file, open_float_model
from compress.deployment.parity import compare
from compress.deployment.settings import Export
from compress.graph import preprocessing
from compress.graph.card import KEY, card
from compress.graph.network import FP32_TOLERANCE
from compress.step import Step
from compress.verbs import EXPORT
from transfer.data.fitted_data import reopen
from transfer.data.split import TEST, TRAIN, VAL
from zoo import lineage
from zoo.disk import json_bytes, write_json
from zoo.errors import SlimzooError, UsageError
from zoo.files.adopt import is_adopted
from zoo.files.directory import check_addable, check_free, new_directory
from zoo.files.manifest import replace_files
from zoo.files.model_directory import (
    CODED,
    CONFIG,
    ONNX,
    ModelConfig,
    is_model_directory,
    is_own_directory,
    read_config,
    save_model,
)
from zoo.files.onnx_file import load_onnx
from zoo.files.predictor import OnnxPredictor
from zoo.pretrained.upstream import is_upstream
from zoo.progress import Progress
from zoo.verb import takes

PARITY_IMAGES = 64
DEPLOY, INFER = "deploy", "infer.py"


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
    onnx.helper.set_model_props(model, {KEY: json.dumps(said)})
    onnx.checker.check_model(model, full_check=True)
    return model


def deployment(model: bytes) -> dict[str, bytes]:
    """What runs the file without slimzoo, by name: on onnxruntime, NumPy and Pillow alone."""
    here, image = Path(__file__).with_name(INFER), Path(zoo.image.__file__)
    return {
        f"{DEPLOY}/{ONNX}": model,
        f"{DEPLOY}/{INFER}": here.read_bytes(),
        f"{DEPLOY}/{image.name}": image.read_bytes(),
    }


def network_of(path: str | Path) -> onnx.ModelProto:
    """The network inside an exported file, without preprocessing: what is quantized and timed."""
    return preprocessing.network_of(load_onnx(path))


@dataclass(frozen=True)
class ExportedStep(Step):
    """
    Attributes:
        file: the exported one.
    """

    file: Path

    def lines(self) -> list[str]:
        record = self.record
        size = record["metrics"]["after"]["size_bytes"]
        if self.file.name == CODED:
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
        if self.file.name == CODED:
            return [["slimzoo", "predict", self.file, "IMAGE"]]
        return [["python", self.out / DEPLOY / INFER, "IMAGE"], ["slimzoo", "bench", self.out]]


@takes(EXPORT)
def export(
    directory: str | Path,
    settings: Export,
    *,
    out: str | Path | None = None,
    preprocess: str | Path | None = None,
    classes: str | Path | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
    tell: Callable[[str], None] = lambda line: None,
) -> ExportedStep:
    """Write model.onnx and deploy/, in the model directory or a new one, and a record in its lineage.

    deploy/ is a copy of the file with a script that runs it without slimzoo, on onnxruntime, NumPy and Pillow. The file
    is compared with the model on up to 64 real images (noise, if the data cannot be opened), in the form in which
    it will be used: pixels in, logits out, in a process of its own.

    Args:
        directory: a model directory, to which the files are added; or "timm:NAME", "torchvision:NAME" or a float32
            ONNX file, of which `out` becomes a model directory.
        settings: see `Export`.
        preprocess, classes: of an ONNX file from elsewhere, see `compress.deployment.float_model.open_float_model`.

    Raises:
        UsageError: the directory's model is an ONNX file already; no `out` where one is needed, or one where it is not;
            see also `open_float_model`.
        SlimzooError: the exported file gives other logits than the model; nothing is written.
    """
    if settings.coded:
        if out or preprocess or classes:
            raise UsageError("--coded adds model.slim to a model directory: it takes no --out and no --preprocess")
        config, record = export_coded(directory, progress=progress)
        return ExportedStep(Path(directory), config, record, Path(directory, CODED))
    began = time.monotonic()
    anew = _is_made_anew(directory, out)
    places = (("directory", directory), ("out", out), ("preprocess", preprocess), ("classes", classes))
    arguments = {name: str(value) for name, value in places if value is not None}
    if out is not None:
        check_free(Path(out), overwrite=overwrite)
    elif is_model_directory(Path(directory)):
        if read_config(Path(directory)).primary == ONNX:
            raise UsageError(f"{directory} is an ONNX model already: {Path(directory, ONNX)}")
        check_addable(Path(directory))
    _tell(progress, "exporting", 0)
    model = open_float_model(directory, preprocess=preprocess, classes=classes)
    content, parity = _compared(model, progress)
    after = {**(model.costs if anew else {}), "size_bytes": len(content)}
    seconds, notes = time.monotonic() - began, model.notes or {}
    record = lineage.step(EXPORT.name, arguments, seed=0, seconds=seconds, after=after, parity=parity, **notes)
    config = model.config.with_step(record)
    files = {ONNX: content, **deployment(content)}
    if out is None:
        replace_files(Path(directory), {CONFIG: json_bytes(config.to_json()), **files})
    else:
        with new_directory(Path(out), run={"verb": EXPORT.name, "arguments": arguments}, overwrite=overwrite) as work:
            _write(work, model, config, files)
    place = Path(directory if out is None else out)
    return ExportedStep(place, config, record, place / ONNX)


def _write(work: Path, model: FloatModel, config: ModelConfig, files: dict[str, bytes]) -> None:
    if model.loaded is None:
        write_json(work / CONFIG, config.to_json())
    else:
        save_model(work, model.loaded.model, config)
    (work / DEPLOY).mkdir()
    for name, part in files.items():
        (work / name).write_bytes(part)


def _is_made_anew(directory: str | Path, out: str | Path | None) -> bool:
    """Whether a new directory is made, which wants a name; one of ours is added to."""
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


def parity_images(config: ModelConfig) -> tuple[NDArray[np.uint8], list[NDArray[np.uint8]], str]:
    """Up to 64 images at the network's size, the first few as they come, and "real" or "noise"."""
    data = reopen(config.lineage)
    if data is not None:
        part = next(part for part in (TEST, VAL, TRAIN) if len(data.indices(part)))
        chosen = data.indices(part)[:: max(1, len(data.indices(part)) // PARITY_IMAGES)][:PARITY_IMAGES]
        raw = [data.read(int(i)) for i in chosen]
        return np.stack([config.preprocess.resize(image) for image in raw]), raw[:8], "real"
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 256, (PARITY_IMAGES, *config.preprocess.size, 3), dtype=np.uint8)
    return np.stack([config.preprocess.resize(image) for image in noise]), list(noise[:8]), "noise"


def _tell(progress: Progress | None, what: str, done: int) -> None:
    if progress is not None:
        progress(what, done, 1, "")
