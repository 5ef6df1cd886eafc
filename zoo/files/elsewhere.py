"""Models fitted elsewhere: timm's directories (`timm.models.save_for_hf`), on the disk or in the hub's cache.

A directory is config.json, in which timm's keys say architecture, arguments, classes and preprocessing, and a file of
weights. It is read as it stands; nothing is written into it.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zoo import lineage
from zoo.create import create_model
from zoo.errors import SlimzooError, UsageError
from zoo.files.manifest import MANIFEST
from zoo.files.state_file import fitted, read_state
from zoo.preprocess import Preprocess
from zoo.pretrained import upstream, upstream_timm
from zoo.pretrained.library_caches import hub_file

if TYPE_CHECKING:
    from torch import nn

CONFIG = "config.json"
WEIGHTS = ("model.safetensors", "pytorch_model.bin")  # as timm names them
OTHERS = ("*.safetensors", "*.bin", "*.pth", "*.pt")  # the only one of its kind is the weights too


@dataclass(frozen=True, kw_only=True)
class Foreign:
    """What is known of a model that was fitted elsewhere.

    Attributes:
        architecture: "timm:NAME", or any other that `create_model` builds.
        model_args: the builder's arguments, `num_classes` among them.
        classes: names in the order of the logits; None where nobody has said them.
        weights: the file.
        key: under which it keeps them, such as "state_dict_ema", where they are not all that it holds.
        licence: of the weights, where it is said.
    """

    architecture: str
    model_args: dict[str, Any]
    classes: tuple[str, ...] | None
    preprocess: Preprocess
    weights: Path
    key: str | None = None
    licence: str | None = None

    def record(self, arguments: dict[str, Any], **more: Any) -> dict[str, Any]:
        """The first of the model's lineage: where it comes from, as the export that writes it as a directory."""
        of: dict[str, Any] = {
            "architecture": self.architecture,
            "licence": self.licence,
            "lineage": [],
            "key": self.key,
        }
        return lineage.step("export", arguments, seed=0, seconds=0.0, of=of, **more)

    def load(self) -> nn.Module:
        """The network with its weights, in eval mode.

        Raises:
            UsageError: the file's keys are not the architecture's, or it holds more than weights.
            SlimzooError: a damaged file.
        """
        model = create_model(self.architecture, **self.model_args)
        upstream_timm.verify_hub_file(self.weights, "damaged; delete it and the file that it points to")
        state, _ = read_state(self.weights)
        model.load_state_dict(
            {**model.state_dict(), **fitted(state, model.state_dict(), what=f"{self.weights} and {self.architecture}")}
        )
        return model.eval()


def is_timm_directory(path: Path) -> bool:
    """Whether config.json is one of timm's, and not one of ours, which says more and has a manifest beside it."""
    if not (path / CONFIG).is_file() or (path / MANIFEST).exists():
        return False
    try:
        document = json.loads((path / CONFIG).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(document, dict) and "architecture" in document and "slimzoo" not in document


def read_timm_directory(directory: Path) -> Foreign:
    """What a directory of timm's says of its model; only config.json is read.

    Raises:
        UsageError: an architecture that this timm does not have; no weights.
        SlimzooError: a preprocessing that Preprocess cannot do.
    """
    import timm

    document = json.loads((directory / CONFIG).read_text(encoding="utf-8"))
    cfg = document.get("pretrained_cfg", document)  # the oldest have one object for all
    name, arguments = document["architecture"], dict(document.get("model_args") or {})
    if not timm.is_model(name):
        raise UsageError(
            f"{directory / CONFIG} names the architecture {name!r}, which timm {timm.__version__} does not have: "
            "install a newer timm, or wanted is a directory of timm's or of slimzoo's"
        )
    cfg = {**upstream_timm.default_record(name), **cfg, "architecture": name}
    channels, height, width = cfg["input_size"]
    channels = arguments.pop("in_chans", channels)
    if cfg.get("fixed_input_size"):
        arguments.setdefault("img_size", [height, width])
    if (side := arguments.get("img_size")) is not None:
        height, width = (side, side) if isinstance(side, int) else side
    if channels != 3:
        arguments["in_channels"] = channels
    number = document.get("num_classes", cfg.get("num_classes"))
    arguments["num_classes"] = number
    return Foreign(
        architecture=f"timm:{name.partition('.')[0]}",
        model_args=arguments,
        classes=_names(document, cfg, number),
        preprocess=upstream_timm.preprocess_from(cfg, (channels, height, width)),
        weights=weights_in(directory),
        licence=document.get("pretrained_cfg", document).get("license"),
    )


def _names(document: dict[str, Any], cfg: dict[str, Any], number: int) -> tuple[str, ...] | None:
    said = document.get("label_names") or document.get("labels") or cfg.get("label_names")
    if isinstance(said, dict):  # by index, where some have no name
        said = [said.get(str(i), said.get(i, f"class {i}")) for i in range(number)]
    return tuple(map(str, said)) if said and len(said) == number else None


def weights_in(directory: Path) -> Path:
    """The file of weights of a directory of timm's.

    Raises:
        UsageError: there is none.
    """
    found = [directory / name for name in WEIGHTS if (directory / name).is_file()]
    found += [path for pattern in OTHERS for path in sorted(directory.glob(pattern))]
    if not found:
        raise UsageError(f"{directory} has no weights: wanted {' or '.join(WEIGHTS)} beside {CONFIG}")
    return found[0]


def directory_of(source: str | Path) -> Path:
    """What a source means on this disk: "timm:local-dir:PATH" is PATH, "timm:hf-hub:OWNER/NAME" a folder of the hub's
    cache, downloaded if it is not there; anything else is a path as it stands.

    Raises:
        UsageError: it is neither there nor to be reached.
        SlimzooError: a download failed.
    """
    place = upstream.place_of(source)
    if place is None:
        return Path(source)
    kind, where = place
    if kind == "local-dir":
        if not Path(where, CONFIG).is_file():
            raise UsageError(f"{source}: {where} has no {CONFIG}; wanted a directory of timm's (save_for_hf)")
        return Path(where)
    repository, _, revision = where.partition("@")
    if repository.count("/") != 1:
        raise UsageError(f"{source}: wanted timm:hf-hub:OWNER/NAME, perhaps with @REVISION")
    revision = revision or "main"
    folder = _in_hub_cache(repository, revision)
    if folder is None:
        folder = upstream_timm.fetch_repository(str(source), repository, revision, (CONFIG,), WEIGHTS)
    if not is_timm_directory(folder):
        raise SlimzooError(f"{source}: its {CONFIG} is not one of timm's; wanted a model that timm saved")
    return folder


def _in_hub_cache(repository: str, revision: str) -> Path | None:
    config = hub_file(repository, CONFIG, revision=revision)
    weights = (hub_file(repository, name, revision=revision) for name in WEIGHTS)
    return config.parent if config is not None and any(weights) else None
