"""What is exported and quantized: a float network, and all that is known of it, wherever it comes from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import onnx
from onnx import TensorProto, numpy_helper
from torch import nn

from compress.graph.card import KEY
from compress.graph.foreign import normalized
from compress.graph.layers import macs_by_layer
from compress.graph.network import export_network
from compress.graph.operators import check_float
from compress.graph.preprocessing import network_of
from compress.graph.runnable import OriginalPredictor
from transfer.data.parts import Pixels
from transfer.evaluation.evaluate import evaluate_pixels
from transfer.evaluation.measure import evaluate_parts, metrics, predictor_of
from zoo.errors import UsageError
from zoo.files.description import FORM, read_classes, read_preprocess
from zoo.files.model_directory import (
    ELSEWHERE,
    ONNX,
    LoadedModel,
    ModelConfig,
    is_model_directory,
    load_model,
    read_config,
)
from zoo.files.onnx_file import load_onnx
from zoo.files.predictor import OnnxPredictor, Predictor, TorchPredictor, read_card
from zoo.pretrained.upstream import is_upstream
from zoo.progress import Progress

SUFFIX = ".onnx"


@dataclass(frozen=True)
class FloatModel:
    """A float network and all that is known of it.

    Attributes:
        network: "input" float32 (batch, C, H, W) -> "logits" (batch, K), BatchNorm folded.
        config: of a file from elsewhere its architecture is "onnx:" and the file's name.
        reference: what exported and quantized forms are compared with.
        predictor: the same, as fast as it gets; for accuracies.
        costs: `params`, `macs` and `size_bytes`.
        loaded: the torch model, where there is one.
        notes: for the lineage; of a file from elsewhere the `changes` that had to be made, in words.
    """

    network: onnx.ModelProto
    config: ModelConfig
    reference: Predictor
    predictor: Predictor
    costs: Mapping[str, Any]
    loaded: LoadedModel | None = None
    notes: Mapping[str, Any] | None = None

    def of_judge(self, judge: nn.Module) -> FloatModel:
        """The same of the model's judge."""
        return self if self.loaded is None or judge is self.loaded.model else _of(LoadedModel(judge, self.config))

    def metrics(self, predictor: Predictor, pixels: Pixels | None, progress: Progress | None = None) -> dict[str, Any]:
        """Costs, and what the predictor's answers to the held-out parts are worth; None where nobody has labels."""
        if pixels is None:
            return dict(self.costs)
        classes = len(self.config.classes or ())
        found = evaluate_parts(lambda part: evaluate_pixels(predictor, part, classes, progress=progress), pixels)
        return {**self.costs, **{part: evaluation.record() for part, evaluation in found.items()}}


def is_onnx_file(source: str | Path) -> bool:
    """Tell an ONNX file by its name: one that is not there counts too, and `load_onnx` says so."""
    return not is_upstream(source) and Path(source).suffix.lower() == SUFFIX and not Path(source).is_dir()


def open_float_model(
    source: str | Path | LoadedModel, *, preprocess: str | Path | None = None, classes: str | Path | None = None
) -> FloatModel:
    """Open a model directory, "timm:NAME" or "torchvision:NAME", or a float32 ONNX file.

    Args:
        preprocess: of an ONNX file from elsewhere, and never guessed: see `read_preprocess`.
        classes: names of the classes of such a file, see `read_classes`; without it they have none.

    Raises:
        UsageError: there is nothing of that name; it is quantized already; a file from elsewhere without
            `preprocess`, or anything else with it, since it says that itself.
        SlimzooError: a damaged file, or one that is no image classifier.
    """
    if not isinstance(source, LoadedModel):
        if is_onnx_file(source):
            return _from_file(Path(source), preprocess, classes)
        _refuse_descriptions(source, preprocess, classes)
        directory, ours = Path(source), not is_upstream(source) and is_model_directory(Path(source))
        if ours and (config := read_config(directory)).primary == ONNX:
            return _from_ours(load_onnx(directory / ONNX), directory / ONNX, config)
    return _of(load_model(source, judge=True))


def _of(loaded: LoadedModel) -> FloatModel:
    network = export_network(loaded.model, loaded.config.input_size)
    config = loaded.config
    if config.classes is None and "num_classes" not in config.model_args and is_upstream(config.architecture):
        outputs = network.graph.output[0].type.tensor_type.shape.dim[-1].dim_value
        config = replace(config, model_args={**config.model_args, "num_classes": outputs})
    return FloatModel(
        network=network,
        config=config,
        reference=TorchPredictor(loaded.model, config.preprocess, config.classes),
        predictor=predictor_of(loaded.model, config),
        costs=metrics(loaded.model, config, {}),
        loaded=loaded,
    )


def _from_file(path: Path, preprocess: str | Path | None, classes: str | Path | None) -> FloatModel:
    model = load_onnx(path)
    said = {each.key: each.value for each in model.metadata_props}.get(KEY)
    architecture = f"{ELSEWHERE}{path.stem}"
    if said is not None:
        card = read_card(said, path)
        _refuse_descriptions(path, preprocess, classes)
        beside = is_model_directory(path.parent) and path.name == ONNX
        config = ModelConfig(
            architecture=architecture,
            model_args={},
            classes=card.classes,
            primary=ONNX,
            preprocess=card.preprocess,
            seen=card.seen,
            lineage=read_config(path.parent).lineage if beside else [],  # which says what it was trained on
        )
        notes = {"of": {key: card.said.get(key) for key in ("architecture", "licence", "lineage")}}
        return _from_ours(model, path, config, notes)
    check_float(model, path)
    if preprocess is None:
        raise UsageError(f"{path} does not say how its images are prepared: name it with --preprocess, {FORM}")
    wanted = read_preprocess(preprocess)
    foreign = normalized(model, path, wanted.size)
    if (channels := foreign.input_size) != (wanted.channels, *wanted.size):
        ours, theirs = ("x".join(map(str, size)) for size in (channels, (wanted.channels, *wanted.size)))
        raise UsageError(
            f"{path} takes {ours}, --preprocess {preprocess} prepares {theirs}; write the right one into a JSON file"
        )
    named = None if classes is None else read_classes(classes, foreign.outputs)
    config = ModelConfig(
        architecture=architecture,
        model_args={"num_classes": foreign.outputs},
        classes=named,
        preprocess=wanted,
        primary=ONNX,
    )
    original = OriginalPredictor(foreign.original, wanted, named)
    return FloatModel(
        network=foreign.network,
        config=config,
        reference=original,
        predictor=original,
        costs=costs(foreign.network),
        notes={"changes": list(foreign.changes)},
    )


def _refuse_descriptions(source: str | Path, preprocess: str | Path | None, classes: str | Path | None) -> None:
    for option, value in (("--preprocess", preprocess), ("--classes", classes)):
        if value is not None:
            raise UsageError(f"{option} {value}: {source} says that itself; leave {option} out")


def _from_ours(
    model: onnx.ModelProto, path: Path, config: ModelConfig, notes: Mapping[str, Any] | None = None
) -> FloatModel:
    network = network_of(model)
    check_float(network, path)
    if "num_classes" not in config.model_args:
        outputs = network.graph.output[0].type.tensor_type.shape.dim[-1].dim_value
        config = replace(config, model_args={"num_classes": outputs})
    predictor = OnnxPredictor(path)
    return FloatModel(network, config, predictor, predictor, costs(network), notes=notes)


def costs(network: onnx.ModelProto) -> dict[str, Any]:
    """`params`: stored weights; `macs`, for one image; `size_bytes`, of the weights."""
    weights = [tensor for tensor in network.graph.initializer if tensor.data_type == TensorProto.FLOAT]
    params = sum(numpy_helper.to_array(tensor).size for tensor in weights)
    return {"params": params, "macs": sum(macs_by_layer(network).values()), "size_bytes": 4 * params}
