"""Checkpoints by step, without pickle, and signals that wait for the end of a step.

    checkpoints/step-N/{model.safetensors, optimizer.safetensors, state.json}

A checkpoint is written beside its place and renamed into it; older ones are removed afterwards.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import threading
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any

import torch
from torch import nn

from zoo.directory import write_json, write_tensors
from zoo.errors import Interrupted


def save_checkpoint(directory: Path, model: nn.Module, optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> None:
    """Write step-N for N = state["step"]; the newest earlier one stays until this one is complete."""
    directory.mkdir(parents=True, exist_ok=True)
    final = directory / f"step-{state['step']:07d}"
    work = directory / "writing"
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir()
    try:
        write_tensors(work / "model.safetensors", model.state_dict())
        moments = {
            f"{index}.{name}": value
            for index, slots in optimizer.state_dict()["state"].items()
            for name, value in slots.items()
        }
        write_tensors(work / "optimizer.safetensors", moments)
        write_json(work / "state.json", state)
        shutil.rmtree(final, ignore_errors=True)
        os.rename(work, final)
    except BaseException:
        shutil.rmtree(work, ignore_errors=True)
        raise
    for older in sorted(directory.glob("step-*"))[:-1]:
        shutil.rmtree(older)


def load_checkpoint_(directory: Path, model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Any] | None:
    """Load the newest checkpoint into model and optimizer; its state, or None where there is none."""
    from safetensors.torch import load_file

    found = sorted(directory.glob("step-*/state.json"))
    if not found:
        return None
    place = found[-1].parent
    model.load_state_dict(load_file(place / "model.safetensors"))
    slots: dict[int, dict[str, torch.Tensor]] = {}
    for key, value in load_file(place / "optimizer.safetensors").items():
        index, _, name = key.partition(".")
        slots.setdefault(int(index), {})[name] = value
    optimizer.load_state_dict({"state": slots, "param_groups": optimizer.state_dict()["param_groups"]})
    state: dict[str, Any] = json.loads((place / "state.json").read_text(encoding="utf-8"))
    return state


class EndOfStep:
    """Hold back SIGINT and SIGTERM until `raise_if_asked`; a second signal acts at once."""

    def __init__(self) -> None:
        self.signal: int | None = None
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
        if self.signal is not None:
            raise Interrupted("interrupted twice; stopped at once", exit_code=128 + number)
        self.signal = number

    def raise_if_asked(self) -> None:
        if self.signal is not None:
            raise Interrupted("interrupted", exit_code=128 + self.signal)
