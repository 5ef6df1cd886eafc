"""The model directory: what every verb reads and writes.

DIR/config.json         timm's keys first, then one object "slimzoo":
                        {format, primary, preprocess, surgery, lineage, seen}
DIR/model.safetensors   weights; no pickle is ever written
DIR/model.onnx          where exported
DIR/judge.safetensors   of a model that was trained on every image; see zoo/files/judge.py
DIR/model.pt2           of a user's own module: its operators, for processes that do not know it
DIR/MANIFEST.sha256     checked at every load
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

from zoo.class_name import as_class_name
from zoo.disk import json_bytes, read_json, write_json, write_tensors
from zoo.errors import SlimzooError, UsageError
from zoo.files import elsewhere
from zoo.files.manifest import MANIFEST, verify_manifest
from zoo.files.model_card import CARD, model_card
from zoo.files.seen import Seen
from zoo.files.timm_form import record_of_network, timm_form
from zoo.finite import check_finite
from zoo.lineage import IN_MEMORY
from zoo.models.registry import is_users
from zoo.preprocess import Preprocess
from zoo.pretrained.upstream import is_upstream, preprocess_of

if TYPE_CHECKING:
    from torch import Tensor, nn

FORMAT = 1
CONFIG = "config.json"
SAFETENSORS: Final = "model.safetensors"
ONNX: Final = "model.onnx"
CODED: Final = "model.slim"
ELSEWHERE = "onnx:"  # before the name of a file that the model came as, for an architecture


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """What config.json says.

    Attributes:
        architecture: a registered name, "timm:NAME" or "torchvision:NAME"; "onnx:FILE" of a network from elsewhere.
        model_args: the builder's arguments, `num_classes` among them.
        classes: names in the order of the logits, as zoo.class_name writes them; None where they are not known.
        primary: the file that is the model. Where it is model.onnx, quantized or from elsewhere, it cannot be trained.
        surgery: see zoo/files/surgery.py.
        lineage: one record a step: verb, arguments, seed, versions, data, metrics before and after.
        seen: the images of all of these steps; None where nobody knows them.
    """

    architecture: str
    model_args: dict[str, Any]
    classes: tuple[str, ...] | None
    preprocess: Preprocess
    primary: Literal["model.safetensors", "model.onnx"] = SAFETENSORS
    surgery: list[dict[str, Any]] = field(default_factory=list)
    lineage: list[dict[str, Any]] = field(default_factory=list)
    seen: Seen | None = None

    def __post_init__(self) -> None:
        if self.classes is not None:
            object.__setattr__(self, "classes", tuple(map(as_class_name, self.classes)))

    @property
    def input_size(self) -> tuple[int, int, int]:
        """(channels, height, width) of what enters the network."""
        return (self.preprocess.channels, *self.preprocess.size)

    @property
    def from_elsewhere(self) -> bool:
        """Whether the model came as an ONNX file; it has no architecture that torch could build."""
        return self.architecture.startswith(ELSEWHERE)

    def with_step(self, record: dict[str, Any], seen: Seen | None = None) -> ModelConfig:
        """After one more step; `seen` are the images of that step."""
        known = self if seen is None else self.having_seen(seen, record["data"]["fingerprint"])
        return replace(known, lineage=[*self.lineage, record])

    def having_seen(self, seen: Seen, fingerprint: str) -> ModelConfig:
        """Add the images of the data of that fingerprint; none, where nobody kept those of other data."""
        earlier = {(step.get("data") or {}).get("fingerprint") for step in self.lineage} - {None, fingerprint}
        if self.seen is None and earlier:
            return self
        return replace(self, seen=(self.seen or Seen()) | seen)

    def to_json(self) -> dict[str, Any]:
        p = self.preprocess
        crop = {"crop": "center", "pad": "border"}.get(p.mode, "squash")
        name, arguments, why = timm_form(
            self.architecture, self.model_args, cut=bool(self.surgery), primary=self.primary
        )
        return {
            "architecture": name,
            "num_classes": self.model_args.get("num_classes", len(self.classes or ())),
            "label_names": None if self.classes is None else list(self.classes),
            "model_args": arguments,
            "pretrained_cfg": {
                **record_of_network(self.architecture),
                "input_size": list(self.input_size),
                "interpolation": p.interpolation,
                "crop_pct": 1.0 if p.resize_to is None else round(min(p.size) / p.resize_to, 4),
                "crop_mode": crop,
                "mean": list(p.mean),
                "std": list(p.std),
            },
            "slimzoo": {
                "format": FORMAT,
                "architecture": self.architecture,
                "model_args": self.model_args,
                "timm": why or 'timm.create_model("local-dir:DIR", pretrained=True)',
                "primary": self.primary,
                "preprocess": p.to_dict(),
                "surgery": self.surgery,
                "lineage": self.lineage,
                **({} if self.seen is None else {"seen": self.seen.to_json()}),
            },
        }

    @classmethod
    def from_json(cls, document: dict[str, Any], where: Path) -> ModelConfig:
        ours = document.get("slimzoo")
        if ours is None:
            raise SlimzooError(f"{where} has no object 'slimzoo': it is not a model that slimzoo wrote")
        if ours["format"] > FORMAT:
            raise SlimzooError(
                f"{where} is of format {ours['format']}, this version reads up to {FORMAT}; upgrade slimzoo"
            )
        names = document["label_names"]
        return cls(
            architecture=ours["architecture"],
            model_args=ours.get("model_args", document["model_args"]),
            classes=None if names is None else tuple(names),
            preprocess=Preprocess.from_dict(ours["preprocess"]),
            primary=ours["primary"],
            surgery=ours["surgery"],
            lineage=ours["lineage"],
            seen=Seen.from_json(ours.get("seen")),
        )


@dataclass(frozen=True)
class LoadedModel:
    """
    Attributes:
        model: in eval mode.
        judge: its twin by which later steps choose, where it has one; see zoo/files/judge.py.
    """

    model: nn.Module
    config: ModelConfig
    judge: nn.Module | None = None

    def __str__(self) -> str:
        """What messages and records say where a path would be."""
        return f"{IN_MEMORY}{self.config.architecture}"


def is_model_directory(path: Path) -> bool:
    """Whether it is one of ours, or one of timm's, which is read as it stands."""
    return is_own_directory(path) or elsewhere.is_timm_directory(path)


def is_own_directory(path: Path) -> bool:
    return (path / CONFIG).is_file() and (path / MANIFEST).is_file()


def read_config(directory: Path) -> ModelConfig:
    """Read config.json after checking the directory against its manifest.

    Raises:
        UsageError: there is no model directory of that name.
        SlimzooError: a file is damaged or of a newer format.
    """
    directory = elsewhere.directory_of(directory)
    if elsewhere.is_timm_directory(directory):
        return _foreign_config(elsewhere.read_timm_directory(directory), directory)
    if not (directory / CONFIG).is_file():
        what = "is a file" if directory.is_file() else "does not exist"
        what = "has no config.json" if directory.is_dir() else what
        raise UsageError(f"{directory} {what}; wanted: a model directory, as `slimzoo fit` or timm writes it")
    verify_manifest(directory)
    path = directory / CONFIG
    return ModelConfig.from_json(read_json(path), path)


def write_config(directory: Path, config: ModelConfig) -> None:
    """Write config.json, and the card that says it to people and to the hub."""
    write_json(directory / CONFIG, config.to_json())
    (directory / CARD).write_bytes(_card(config))


def config_files(config: ModelConfig) -> dict[str, bytes]:
    """What `write_config` writes, by name."""
    return {CONFIG: json_bytes(config.to_json()), CARD: _card(config)}


def _card(config: ModelConfig) -> bytes:
    return model_card(config.to_json()).encode("utf-8", "backslashreplace")


def save_model(directory: Path, model: nn.Module, config: ModelConfig, judge: nn.Module | None = None) -> ModelConfig:
    """Write config.json and model.safetensors into an existing directory (see `zoo.files.directory.new_directory`).

    The surgery is found by comparing the model with its fresh architecture. Of a module that other processes cannot
    build by its name, the program is written too. Returns the config that was written.
    """
    from zoo.create import create_model
    from zoo.files.judge import write_judge
    from zoo.files.program import PROGRAM, write_program
    from zoo.files.surgery import surgery_between

    fresh = create_model(config.architecture, **config.model_args)
    config = replace(config, primary=SAFETENSORS, surgery=surgery_between(fresh, model))
    write_config(directory, config)
    write_tensors(directory / SAFETENSORS, model.state_dict())
    if judge is not None:
        write_judge(directory, judge, model, surgery_between(fresh, judge))
    if is_users(config.architecture):
        write_program(directory / PROGRAM, model, config.input_size)
    return config


def load_model(source: str | Path | LoadedModel, *, judge: bool = False) -> LoadedModel:
    """Load a model directory, ours or one of timm's, or an upstream model with its pretrained weights: build, operate,
    load. Eval mode, CPU. What is loaded already is given back.

    Where a user's own module was saved and this process does not know its name, its program is loaded, which can be run
    and exported and not be cut; see `zoo.files.own_module.from_module`.

    Args:
        judge: load its judge too, where it has one.

    Raises:
        UsageError: no such directory; its model is an ONNX file, which torch does not run; weights that are NaN.
        SlimzooError: a damaged file.
    """
    from safetensors.torch import load_file

    from zoo.files.judge import read_judge

    if isinstance(source, LoadedModel):
        return source
    if is_upstream(source):
        return _upstream(str(source))
    directory = elsewhere.directory_of(source)
    if elsewhere.is_timm_directory(directory):
        foreign = elsewhere.read_timm_directory(directory)
        return LoadedModel(foreign.load(), _foreign_config(foreign, directory))
    config = read_config(directory)
    if config.from_elsewhere and not any(step["verb"] == "quantize" for step in config.lineage):
        raise UsageError(
            f"{directory} holds an ONNX model from elsewhere, which cannot be trained, pruned or run by torch; "
            "`slimzoo quantize` takes it"
        )
    if config.primary != SAFETENSORS:
        raise UsageError(
            f"{directory} holds only the {_format_of(config)} ONNX model, which cannot be trained, pruned or quantized "
            "again; use the directory that it was made from"
        )
    tensors = load_file(directory / SAFETENSORS)
    model = _rebuilt(directory, config, tensors, config.surgery)
    check_finite(model, directory / SAFETENSORS)
    twin = read_judge(directory, tensors) if judge else None
    return LoadedModel(model, config, None if twin is None else _rebuilt(directory, config, *twin))


def _rebuilt(
    directory: Path, config: ModelConfig, tensors: dict[str, Tensor], surgery: list[dict[str, Any]]
) -> nn.Module:
    """The network of these tensors, in eval mode: of a user's own module, whose name may not be known, its program."""
    from zoo.create import create_model
    from zoo.files.program import PROGRAM, read_program
    from zoo.files.surgery import apply_surgery_
    from zoo.tensors import load_tensors_

    program = directory / PROGRAM

    def loaded(model: nn.Module) -> nn.Module:
        load_tensors_(model, tensors)
        return model.eval()

    def built() -> nn.Module:
        model = create_model(config.architecture, **config.model_args)
        apply_surgery_(model, surgery, {name: tensor.shape for name, tensor in tensors.items()})
        return loaded(model)

    if not program.is_file():
        return built()
    if is_users(config.architecture):
        with suppress(RuntimeError, KeyError, AttributeError):  # the name now means another module
            return built()
    return loaded(read_program(program))


def _foreign_config(foreign: elsewhere.Foreign, directory: Path) -> ModelConfig:
    return ModelConfig(
        architecture=foreign.architecture,
        model_args=foreign.model_args,
        classes=foreign.classes,
        preprocess=foreign.preprocess,
        lineage=[foreign.record({"directory": str(directory.absolute())})],
    )


def _format_of(config: ModelConfig) -> str:
    """Name the format of an ONNX model, by what made it."""
    to = [step["arguments"].get("to") for step in config.lineage if step["verb"] == "quantize"]
    return (to and to[-1]) or "int8"


def _upstream(name: str) -> LoadedModel:
    from zoo.create import create_model
    from zoo.pretrained.upstream import upstream_weights

    model = create_model(name, pretrained=True)
    check_finite(model, name)
    record = upstream_weights(name)
    classes = record.classes if record is not None else None
    config = ModelConfig(architecture=name, model_args={}, classes=classes, preprocess=preprocess_of(model))
    return LoadedModel(model.eval(), config)
