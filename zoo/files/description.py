"""What an ONNX file from elsewhere does not say of itself: its preprocessing and the names of its classes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from zoo.errors import UsageError, did_you_mean
from zoo.files.model_directory import read_config
from zoo.preprocess import Preprocess
from zoo.pretrained.load import preprocess_of
from zoo.pretrained.upstream import is_upstream, recorded_preprocess
from zoo.pretrained.weights import WEIGHTS

NEEDED = ("size", "mode", "interpolation", "mean", "std")  # whose defaults would be guesses
KNOWN = (*NEEDED, "resize_to", "antialias", "background")
FORM = "a JSON file with the keys of config.json's `preprocess`, or a model that shares it: timm:NAME, NAME or DIR"


def read_preprocess(source: str | Path) -> Preprocess:
    """The Preprocess in a JSON file, of a model's name, or of a model directory.

    Raises:
        UsageError: none of these, or a file that leaves open what would have to be guessed.
    """
    path = Path(source)
    if is_upstream(source):
        return recorded_preprocess(str(source))
    if path.is_dir():
        return read_config(path).preprocess
    if path.is_file():
        return _preprocess_in(path)
    if str(source) in WEIGHTS:
        return preprocess_of(WEIGHTS[str(source)])
    siblings = [each.name for each in path.parent.iterdir()] if path.parent.is_dir() else []
    near = did_you_mean(path.name, [*WEIGHTS, *siblings], f"wanted {FORM}")
    raise UsageError(f"--preprocess {source}: no file, directory or model of that name; {near}")


def _preprocess_in(path: Path) -> Preprocess:
    record = _json(path, "--preprocess")
    if isinstance(record, dict):
        record = record.get("slimzoo", record)  # a whole config.json
        record = record.get("preprocess", record)
    if not isinstance(record, dict):
        raise UsageError(f"--preprocess {path} holds no JSON object; wanted {FORM}")
    if unknown := sorted(record.keys() - set(KNOWN)):
        raise UsageError(f"--preprocess {path}: unknown {unknown[0]!r}; {did_you_mean(unknown[0], KNOWN, _known())}")
    if missing := [name for name in NEEDED if name not in record]:
        raise UsageError(f"--preprocess {path} does not say {', '.join(missing)}, which are not guessed; {_known()}")
    try:
        return Preprocess.from_dict(record)
    except (TypeError, ValueError) as error:
        raise UsageError(f"--preprocess {path}: {error}") from error


def read_classes(path: str | Path, outputs: int) -> tuple[str, ...]:
    """Names of classes in the order of the logits, from a text file, one a line, or a JSON list.

    Raises:
        UsageError: it cannot be read, or holds another number of names than `outputs`, or one twice.
    """
    path = Path(path)
    if path.suffix.lower() == ".json":
        names = _json(path, "--classes")
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise UsageError(f"--classes {path}: wanted a JSON list of names, in the order of the logits")
    else:
        names = _text(path, "--classes").splitlines()
    names = [name.strip() for name in names]
    if len(names) != outputs:
        raise UsageError(f"--classes {path} names {len(names)} classes, the network answers with {outputs}")
    if "" in names or len(set(names)) < len(names):
        first = next(name for name in names if not name or names.count(name) > 1)
        raise UsageError(f"--classes {path}: {first!r} {'stands there twice' if first else 'is no name'}")
    return tuple(names)


def _known() -> str:
    return f"its keys are {', '.join(KNOWN)}"


def _json(path: Path, option: str) -> Any:
    try:
        return json.loads(_text(path, option))
    except json.JSONDecodeError as error:
        raise UsageError(f"{option} {path} is not JSON: {error}") from error


def _text(path: Path, option: str) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise UsageError(f"{option} {path} is not text in UTF-8") from error
    except OSError as error:
        raise UsageError(f"{option} {path}: {error.strerror}") from error
