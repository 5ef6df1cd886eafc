"""Checkpoints by step: whole or not there, checked when read, without pickle. And signals that wait for a step's end.

    checkpoints/step-N/{model.safetensors, optimizer.safetensors, ..., state.json, MANIFEST.sha256}

Each is written beside its place, flushed to the disk file by file, and renamed into it, so that power may fail at any
moment. The newest two are kept: if the newest turns out damaged, the one before is taken. After the rates were halved
(see `transfer.training.finetune`), names get a suffix: step-N.1, step-N.2.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import threading
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any

import torch
from torch import Tensor

from zoo.disk import fsync, write_flushed
from zoo.errors import Interrupted, SlimzooError
from zoo.files.manifest import MANIFEST, read_manifest, verify_manifest

KEPT = 2
STATE = "state.json"
WRITING = "writing"


@dataclass(frozen=True)
class Checkpoint:
    """A training run at the end of a step.

    Attributes:
        state: JSON-ready, with at least "step" (how many are done), "halvings" (of the rates) and "boundary" (whether
            an uninterrupted run would have made this checkpoint too, so that it may go back to it).
        tensors: by file, without ".safetensors", and by name; on the CPU, shared with nobody.
    """

    state: dict[str, Any]
    tensors: dict[str, dict[str, Tensor]]

    def non_finite(self) -> list[str]:
        """Names ("file: tensor") of what holds a NaN or an infinity."""
        return [
            f"{file}: {name}"
            for file, tensors in self.tensors.items()
            for name, tensor in tensors.items()
            if tensor.is_floating_point() and tensor.numel() and not _is_finite(tensor)
        ]


def _is_finite(tensor: Tensor) -> bool:
    low, high = torch.aminmax(tensor)  # NaN if any value is
    return bool(torch.isfinite(low) and torch.isfinite(high))


def save_checkpoint(directory: Path, checkpoint: Checkpoint) -> Path:
    """Write a checkpoint into its place and remove those that are no longer needed.

    Raises:
        OSError: no space, or no permission; what was there before still is.
    """
    halvings = checkpoint.state["halvings"]
    final = directory / (f"step-{checkpoint.state['step']:07d}" + (f".{halvings}" if halvings else ""))
    work = directory / WRITING
    directory.mkdir(parents=True, exist_ok=True)
    shutil.rmtree(work, ignore_errors=True)
    try:
        work.mkdir()
        manifest = ""
        for name, content in _files(checkpoint):
            write_flushed(work / name, content)
            manifest += f"{hashlib.sha256(content).hexdigest()}  {name}\n"
        write_flushed(work / MANIFEST, manifest.encode())
        fsync(work)
        if final.exists():  # damaged, or it would not be written again
            shutil.rmtree(final)
        os.rename(work, final)
    except BaseException:
        shutil.rmtree(work, ignore_errors=True)
        raise
    fsync(directory)
    _remove_old(directory)
    return final


def _files(checkpoint: Checkpoint) -> Iterator[tuple[str, bytes]]:
    from safetensors.torch import save

    for file, tensors in checkpoint.tensors.items():
        yield f"{file}.safetensors", save({name: tensor.contiguous() for name, tensor in tensors.items()})
    yield STATE, (json.dumps(checkpoint.state, indent=1) + "\n").encode()


def newest_checkpoint(directory: Path, *, boundary: bool = False) -> Checkpoint | None:
    """Read the newest checkpoint that is whole, warning of newer ones that are not; None where there is none at all.

    Args:
        boundary: only those with a true "boundary".

    Raises:
        SlimzooError: there are checkpoints, and none can be read.
    """
    damaged: list[str] = []
    for place in reversed(_places(directory)):
        try:
            found = _read(place)
        except (SlimzooError, OSError, ValueError) as error:
            damaged.append(" ".join(str(error).split()))
            continue
        if boundary and not found.state["boundary"]:
            continue
        if damaged and not boundary:
            warnings.warn(f"a damaged checkpoint was passed over for {place.name}: {damaged[0]}", stacklevel=3)
        return found
    if damaged and not boundary:
        raise SlimzooError(f"no checkpoint in {directory} can be read ({damaged[0]}); start afresh with --overwrite")
    return None


def _read(place: Path) -> Checkpoint:
    from safetensors import SafetensorError
    from safetensors.torch import load

    verify_manifest(place)
    listed, found = set(read_manifest(place)), {path.name for path in place.iterdir()}
    if found != {*listed, MANIFEST}:
        raise SlimzooError(f"{place}: {MANIFEST} lists {len(listed)} files, and there are {len(found)} with it")
    try:
        tensors = {file.stem: load(file.read_bytes()) for file in sorted(place.glob("*.safetensors"))}
    except SafetensorError as error:
        raise SlimzooError(f"{place}: {error}") from error
    return Checkpoint(json.loads((place / STATE).read_text(encoding="utf-8")), tensors)


def _places(directory: Path) -> list[Path]:
    """All checkpoints, oldest first: what came after a halving is newer than what came before it, whatever its step."""

    def age(place: Path) -> tuple[int, int]:
        step, _, halvings = place.name.removeprefix("step-").partition(".")
        return int(halvings or 0), int(step)

    return sorted(directory.glob("step-*[0-9]"), key=age)


def _remove_old(directory: Path) -> None:
    """Keep the newest two, and the newest boundary, which a run must be able to go back to."""
    *older, last = _places(directory)
    kept = [last, *older[-(KEPT - 1) :]]
    boundary = next((place for place in reversed([*older, last]) if _is_boundary(place)), None)
    for place in older:
        if place not in kept and place != boundary:
            shutil.rmtree(place, ignore_errors=True)


def _is_boundary(place: Path) -> bool:
    try:
        return bool(json.loads((place / STATE).read_text(encoding="utf-8"))["boundary"])
    except (OSError, ValueError, KeyError):  # half removed, or damaged
        return False


class EndOfStep:
    """Hold back SIGINT and SIGTERM until the end of a step; a second signal acts at once.

    Attributes:
        signal: its number, 0 while there was none.
    """

    def __init__(self) -> None:
        self.signal = 0
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> EndOfStep:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._previous[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.signal:
            raise Interrupted("interrupted twice; stopped at once", exit_code=128 + number)
        self.signal = number
