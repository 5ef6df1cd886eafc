"""The states that a run can go back to: the last boundary in memory, the newest checkpoints on the disk."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from transfer.training import distributed
from transfer.training.checkpoint import Checkpoint, newest_checkpoint, save_checkpoint
from transfer.training.run_state import RunState, check_same_run
from transfer.training.step import NonFinite

CHECKPOINT_STEPS = 50
SAVING_SHARE = 0.05  # of the time, at most, goes into the checkpoints of epochs shorter than CHECKPOINT_STEPS
MOST_HALVINGS = 2


class Boundaries:
    """Keeps the states of a run; made before its first step.

    A boundary is the start, every `CHECKPOINT_STEPS` steps, and each epoch's end: a function of the step alone, so that
    a run that goes back goes back to the same one whether or not it was interrupted in between.

    Args:
        run: see `run_state.describe_run`.
        directory: of checkpoints; None keeps the last boundary in memory only.
    """

    def __init__(self, state: RunState, run: dict[str, Any], directory: Path | None) -> None:
        self._state, self._run, self._directory = state, run, directory
        self._last = state.capture(run, boundary=True)
        self._infinite_from_the_start = set(self._last.non_finite())  # a mask of the model's, say
        self._saved_at, self._saving_s = time.monotonic(), 0.0

    def resume(self) -> None:
        """Go on from the newest checkpoint, if there is one.

        Raises:
            see `newest_checkpoint` and `check_same_run`.
        """
        found = newest_checkpoint(self._directory) if self._directory is not None else None
        if found is not None and self._directory is not None:
            check_same_run(found.state["run"], self._run)
            self._state.restore_(found)
            self._last = newest_checkpoint(self._directory, boundary=True) or self._last
        distributed.barrier()  # nobody writes before all have read

    def keep(self, *, epoch_ends: bool, over: bool, asked: bool) -> None:
        """At the end of each step: keep the state if this is a boundary, and save it.

        An epoch's end is passed over where the last checkpoint took long and is recent; at most `CHECKPOINT_STEPS` are
        lost all the same.

        Args:
            epoch_ends: this step was an epoch's last.
            over: it was the run's last.
            asked: save in any case.

        Raises:
            NonFinite: the state is not fit to be kept.
        """
        counted = self._state.step % CHECKPOINT_STEPS == 0
        boundary = epoch_ends or counted
        if not (boundary or asked):
            return
        kept = self._state.capture(self._run, boundary=boundary)
        infinite = [name for name in kept.non_finite() if name not in self._infinite_from_the_start]
        if infinite:
            raise NonFinite(f"{infinite[0]} became infinite")
        if boundary:
            self._last = kept
        if counted or asked or over or time.monotonic() - self._saved_at > self._saving_s / SAVING_SHARE:
            self._save(kept)

    def go_back(self) -> bool:
        """Go to the last boundary, with half of the rates; False if they were halved `MOST_HALVINGS` times already."""
        halvings = self._state.halvings + 1
        if halvings > MOST_HALVINGS:
            return False
        self._state.restore_(self._last)
        self._state.halvings = halvings
        self._last = self._state.capture(self._run, boundary=True)
        self._save(self._last)
        return True

    def _save(self, kept: Checkpoint) -> None:
        if self._directory is not None and distributed.is_main():
            began = time.monotonic()
            save_checkpoint(self._directory, kept)
            self._saved_at = time.monotonic()
            self._saving_s = self._saved_at - began
