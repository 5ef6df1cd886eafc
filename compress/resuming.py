"""`resume`: an interrupted step goes on from its last checkpoint, and ends as if it had never been interrupted."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from compress.verbs import STEPS
from transfer.training.distributed import world_size
from zoo.errors import UsageError
from zoo.files.directory import PARTIAL, partial_of
from zoo.files.manifest import RUN
from zoo.lineage import IN_MEMORY
from zoo.progress import Progress


def resume(
    directory: str | Path,
    *,
    finish: bool = False,
    progress: Progress | None = None,
    tell: Callable[[str], None] = lambda line: None,
) -> Any:
    """Go on with the run in DIR.partial/; either name will do.

    Args:
        finish: of `compress`, begin no other trial.

    Returns:
        What the step's own function returns.

    Raises:
        UsageError: there is none, or it keeps no checkpoints; another verb than `compress` is to be finished.
    """
    named = Path(os.path.abspath(directory))  # it may be "."
    out = named.with_name(named.name.removesuffix(PARTIAL))
    try:
        run = json.loads((partial_of(out) / RUN).read_text(encoding="utf-8"))
    except OSError as error:
        state = "is complete" if out.exists() else "does not exist"
        raise UsageError(f"{out} {state} and {partial_of(out)} holds no interrupted run: nothing to resume") from error
    except ValueError as error:
        raise UsageError(f"{partial_of(out) / RUN} is damaged: run the command again with --overwrite") from error
    step = STEPS.get(run["verb"])
    if step is None or not step.resumes:
        raise UsageError(f"`{run['verb']}` keeps no checkpoints; run it again with --overwrite")
    if not step.distributed and world_size() > 1:
        raise UsageError(f"`{step.name}` runs in one process: resume it without the launcher")
    arguments = {**run["arguments"], "out": str(out)}  # DIR may be named from elsewhere now
    if finish and "finish" not in arguments:
        raise UsageError(f"--finish is of `compress`, and {out} is of `{step.name}`: leave it out")
    arguments |= {"finish": True} if finish else {}
    if gone := next((value for value in arguments.values() if str(value).startswith(IN_MEMORY)), None):
        raise UsageError(
            f"{out} was begun with {gone.removeprefix(IN_MEMORY)}, which was in memory: call `slimzoo.{step.name}` "
            "again with the same, and resume=True"
        )
    source = arguments.pop(step.source)
    return step.load_function()(source, **arguments, resume=True, progress=progress, tell=tell)
