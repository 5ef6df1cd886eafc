"""Which process this is, as a file or a database keeps it, and whether that one still lives."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping
from typing import Any


def this_process() -> dict[str, Any]:
    """Ready for JSON."""
    return {"host": platform.node(), "pid": os.getpid(), "began": _began(os.getpid())}


def is_gone(process: Mapping[str, Any]) -> bool:
    """Whether it was of this machine and has ended; of other machines nothing is known."""
    return bool(process["host"] == platform.node() and _began(process["pid"]) != process["began"])


def is_another(process: Mapping[str, Any]) -> bool:
    """Whether it lives on this machine and is not this one."""
    here = process["host"] == platform.node() and process["pid"] != os.getpid()
    return bool(here and not is_gone(process))


def _began(pid: int) -> float | None:
    """When it was started, by the system; a number may be another's later. None where there is none of that number."""
    import psutil

    try:
        return float(psutil.Process(pid).create_time())
    except psutil.Error:
        return None
