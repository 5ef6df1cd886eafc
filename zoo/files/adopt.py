"""Weights alone, as training scripts leave them, made a model directory: with --arch, --preprocess and --classes.

The directory is kept in the cache, under a name that says all that it depends on, so that an interrupted step finds it
again. What nobody has asked for in a month goes.
"""

from __future__ import annotations

import contextlib
import hashlib
import inspect
import os
import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zoo.classifier import classifier_name
from zoo.create import create_model
from zoo.disk import cache_directory, sha256
from zoo.errors import UsageError, argument
from zoo.files.description import FORM, read_classes, read_preprocess
from zoo.files.directory import new_directory
from zoo.files.elsewhere import Foreign, directory_of, is_timm_directory, read_timm_directory
from zoo.files.manifest import MANIFEST
from zoo.files.model_directory import LoadedModel, ModelConfig, is_model_directory, save_model
from zoo.files.state_file import SUFFIXES, State, fitted, is_state_file, prefix_of, read_state
from zoo.models.registry import model_entry
from zoo.preprocess import Preprocess
from zoo.pretrained import upstream
from zoo.verb import ADOPTED

if TYPE_CHECKING:
    from torch import nn

FOLDER = "models"  # in the cache
KEPT_S = 30 * 86400.0


def adopt(
    source: str | Path, *, arch: str | None = None, preprocess: str | None = None, classes: str | Path | None = None
) -> str:
    """What every verb takes for `source`: itself, or a model directory made of it.

    Args:
        source: a file of weights (.pth, .pt, .safetensors ...), "timm:local-dir:PATH", "timm:hf-hub:OWNER/NAME", or
            anything that says itself what it is.
        arch: of a file of weights: a model of the zoo, "timm:NAME" or "torchvision:NAME".
        preprocess: of a file of weights, see `zoo.files.description.read_preprocess`.
        classes: names in the order of the logits, where the source has none, see `zoo.files.description.read_classes`.

    Raises:
        UsageError: a file of weights without `arch` or `preprocess`, or that does not fit; anything else with them.
        SlimzooError: a damaged file.
    """
    options = {"--arch": arch, "--preprocess": preprocess, "--classes": classes}
    given = {name: value for name, value in options.items() if value is not None}
    if not upstream.is_upstream(source) and is_state_file(directory := directory_of(source)):
        if not directory.is_file():
            raise UsageError(f"{source} does not exist; wanted a file of weights ({', '.join(SUFFIXES)})")
        if arch is None or preprocess is None:
            wanted = "their architecture with --arch NAME" if arch is None else ""
            wanted += " and " if wanted and preprocess is None else ""
            wanted += f"how images are prepared with --preprocess, {FORM}" if preprocess is None else ""
            raise UsageError(f"{source} holds weights alone: name {wanted}")
        return str(_kept(directory, given, lambda: _described(directory, arch, preprocess, classes)))
    if upstream.is_upstream(source):
        directory = Path(source)
    elif (
        set(given) == {"--classes"} and is_timm_directory(directory) and read_timm_directory(directory).classes is None
    ):
        return str(_kept(directory, given, lambda: _named(directory, str(classes))))
    for name, value in given.items():
        raise UsageError(f"{name} {value}: {source} says that itself; leave {name} out")
    return str(directory) if upstream.place_of(source) else str(source)


def adopt_all(
    sources: Sequence[str], *, arch: str | None, preprocess: str | None, classes: str | Path | None
) -> list[str]:
    """Several, where the options are of those that need them, of one at least.

    Raises:
        see `adopt`.
    """
    needy = [source for source in sources if is_state_file(source)] or list(sources[:1])
    options: dict[str, Any] = {"arch": arch, "preprocess": preprocess, "classes": classes}
    return [adopt(source, **options) if source in needy else adopt(source) for source in sources]


def adopt_but_onnx(
    source: str, arch: str | None, preprocess: str | None, classes: str | None
) -> tuple[str, str | None, str | None]:
    """`adopt`, and what is left of `preprocess` and `classes`: of an .onnx file both, which has no use for `arch`.

    Raises:
        see `adopt`.
    """
    if Path(source).suffix.lower() == ".onnx" and not Path(source).is_dir():
        return adopt(source, arch=arch), preprocess, classes
    return adopt(source, arch=arch, preprocess=preprocess, classes=classes), None, None


def adopt_source(source: Any, settings: Any, keywords: dict[str, Any]) -> tuple[Any, Any]:
    """`adopt`, for the function of a step: takes `arch`, `preprocess` and `classes` out of its keywords.

    A model in memory says all that itself.

    Raises:
        UsageError: a module without its inputs' size; see also `adopt`.
    """
    source, options = path_of(source), {name: keywords.pop(name, None) for name in ADOPTED}
    if isinstance(source, LoadedModel):
        return _in_memory(source, options), settings
    return adopt(source, **options), settings


def path_of(source: Any) -> Any:
    """A path, a name or a model in memory as it is; the directory of a result that has no such model.

    Raises:
        UsageError: a module without its inputs' size, or anything else.
    """
    if isinstance(source, str | Path | LoadedModel):
        return source
    if (out := getattr(source, "out", None)) is not None:
        return str(out)
    kind = type(source).__name__
    hint = (
        "its save(DIR) makes a directory" if hasattr(source, "record") else "slimzoo.from_module makes one of a module"
    )
    raise UsageError(f"a {kind}, where a path or a model is wanted; {hint}")


def _in_memory(model: LoadedModel, options: dict[str, Any]) -> LoadedModel:
    for name, value in options.items():
        if value is not None:
            raise UsageError(f"{argument(name, value)}: a model in memory says that itself; leave it out")
    return model


def adopt_source_but_onnx(source: Any, settings: Any, keywords: dict[str, Any]) -> tuple[Any, Any]:
    """Adopt as `adopt_source` does, leaving an .onnx file's `preprocess` and `classes` among the keywords."""
    source, options = path_of(source), {name: keywords.pop(name, None) for name in ADOPTED}
    if isinstance(source, LoadedModel):
        return _in_memory(source, options), settings
    adopted, keywords["preprocess"], keywords["classes"] = adopt_but_onnx(str(source), **options)
    return adopted, settings


def is_adopted(directory: Path) -> bool:
    """Whether a directory is one of the cache's, which nothing is added to."""
    return (cache_directory() / FOLDER).absolute() in directory.absolute().parents


def _described(path: Path, arch: str, preprocess: str, classes: str | Path | None) -> tuple[Foreign, nn.Module]:
    prepared = read_preprocess(preprocess)
    state, key = read_state(path)
    arguments, model = _built(path, arch, prepared, state)
    what = f"{path} and {arch}"
    model.load_state_dict({**model.state_dict(), **fitted(state, model.state_dict(), what=what)})
    named = None if classes is None else read_classes(classes, arguments["num_classes"])
    return (
        Foreign(architecture=arch, model_args=arguments, classes=named, preprocess=prepared, weights=path, key=key),
        model.eval(),
    )


def _named(directory: Path, classes: str) -> tuple[Foreign, nn.Module]:
    found = read_timm_directory(directory)
    named = read_classes(classes, found.model_args["num_classes"])
    return Foreign(**{**vars(found), "classes": named}), found.load()


def _built(path: Path, arch: str, prepared: Preprocess, state: State) -> tuple[dict[str, Any], nn.Module]:
    """The builder's arguments and the network, with as many classes as the file's classifier has rows."""
    import torch

    arguments: dict[str, Any] = {} if prepared.channels == 3 else {"in_channels": prepared.channels}
    arguments |= _sized(arch, prepared)
    with torch.device("meta"):
        plain = create_model(arch, **arguments)
    wanted = plain.state_dict()
    head = prefix_of(state, wanted) + classifier_name(plain)
    rows = [len(state[key]) for key in (f"{head}.weight", f"{head}.bias") if key in state and state[key].dim()]
    arguments["num_classes"] = rows[0] if rows else len(wanted[f"{classifier_name(plain)}.weight"])
    return arguments, create_model(arch, **arguments)


def _sized(arch: str, prepared: Preprocess) -> dict[str, Any]:
    """The builder's argument for the size of images, where it has one for each patch of them."""
    import torch

    side = prepared.size[0]
    if ":" not in arch:
        return {"image_size": side} if "image_size" in inspect.signature(model_entry(arch).build).parameters else {}
    with torch.device("meta"):
        model = create_model(arch)
    if not arch.startswith("timm:") or upstream.input_size_of(model)[1:] == prepared.size:
        return {}
    cfg: Any = getattr(model, "pretrained_cfg", {})
    return {"img_size": list(prepared.size)} if cfg.get("fixed_input_size") else {}


def _kept(source: Path, given: dict[str, Any], make: Any) -> Path:
    """The directory in the cache that is made of the source and what was said of it."""
    key = hashlib.sha256()
    files = [source] if source.is_file() else sorted(path for path in source.iterdir() if path.is_file())
    for path in [*files, *(Path(str(value)) for value in given.values() if Path(str(value)).is_file())]:
        key.update(sha256(path).encode())
    key.update(repr(sorted((name, str(value)) for name, value in given.items())).encode())
    place = cache_directory() / FOLDER / key.hexdigest()[:16] / (source.stem if source.is_file() else source.name)
    if not is_model_directory(place):
        _forget_old()
        foreign, model = make()
        arguments = {"directory": os.path.abspath(source), **{n[2:]: _located(value) for n, value in given.items()}}
        size = sum(t.numel() * t.element_size() for t in model.state_dict().values())
        after = {"params": sum(p.numel() for p in model.parameters()), "size_bytes": size}
        config = ModelConfig(
            architecture=foreign.architecture,
            model_args=foreign.model_args,
            classes=foreign.classes,
            preprocess=foreign.preprocess,
            lineage=[foreign.record(arguments, after=after)],
        )
        with new_directory(place, run={"verb": "export", "arguments": arguments}, overwrite=True) as work:
            save_model(work, model, config)
    with contextlib.suppress(OSError):
        os.utime(place / MANIFEST)  # asked for now
    return place


def _located(value: Any) -> str:
    return os.path.abspath(value) if os.path.exists(value) else str(value)


def _forget_old() -> None:
    for place in (cache_directory() / FOLDER).glob(f"*/*/{MANIFEST}"):
        with contextlib.suppress(OSError):
            if time.time() - place.stat().st_mtime > KEPT_S:
                shutil.rmtree(place.parents[1])
