"""Is a training run ever lost? Killed at random times and at each system call, on full disks, with NaNs.

    python benchmarks/bench_never_lost.py                 all suites; about 20 minutes on 2 cores
    python benchmarks/bench_never_lost.py SAMPLE|WHOLE [SUITE...]   some of them, as JSON, nothing kept

Processes are forked for every run to be killed, so this one keeps to one thread.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from typing import Any

import torch
from checkpoint_faults import full_disk, kill_points
from never_lost import command_kills, kills, nans
from record import write_result

SUITES: dict[str, Callable[..., dict[str, Any]]] = {
    suite.__name__: suite for suite in (kills, command_kills, kill_points, full_disk, nans)
}
WHOLE: dict[str, dict[str, Any]] = {
    "kills": {"runs": 23, "kills": 200},
    "command_kills": {"kills": 5},
    "kill_points": {},
    "full_disk": {"mounted": True},
    "nans": {"count": 20},
}
SAMPLE: dict[str, dict[str, Any]] = {
    "kills": {"runs": 2, "kills": 4, "epochs": 4},
    "kill_points": {"every": 13},
    "full_disk": {"every": 7},
    "nans": {"count": 4, "epochs": 3},
}


def measured(sizes: dict[str, dict[str, Any]], names: list[str]) -> dict[str, Any]:
    """The figures of each suite, and the seconds that it took."""
    figures = {}
    for name in names or sizes:
        began = time.monotonic()
        figures[name] = SUITES[name](**sizes[name])
        figures[name]["seconds"] = round(time.monotonic() - began, 1)
    return figures


def failures(figures: dict[str, Any]) -> list[str]:
    """What is not as it must be, in words."""
    wrong = []
    for name in ("kills", "command_kills"):
        if name in figures and figures[name]["identical"] not in (True, figures[name].get("runs")):
            wrong.append(f"{name}: {figures[name]}")
    if figures.get("kill_points", {}).get("unreadable"):
        wrong.append(f"{figures['kill_points']['unreadable']} of the kill points left nothing readable")
    full = figures.get("full_disk", {"writes": 0, "loads": 0, "file_size_limits": 0, "loads_under_limits": 0})
    if full["writes"] != full["loads"] or full["file_size_limits"] != full["loads_under_limits"]:
        wrong.append(f"full disk: {full}")
    if full.get("file_systems", 0) != full.get("loads_on_them", 0):
        wrong.append(f"full disk: {full}")
    found = figures.get("nans", {"saved": 0, "injected": 0, "finite_in_the_end": 0})
    if found["saved"] or found["injected"] != found["finite_in_the_end"]:
        wrong.append(f"NaN: {found}")
    return wrong


def main(arguments: list[str]) -> int:
    torch.set_num_threads(1)
    if arguments:
        figures = measured({"WHOLE": WHOLE, "SAMPLE": SAMPLE}[arguments[0]], arguments[1:])
        print(json.dumps({**figures, "failures": failures(figures)}))
        return 0
    figures = measured(WHOLE, [])
    missed = failures(figures)
    print(write_result("never_lost", {**figures, "failures": missed}, "python benchmarks/bench_never_lost.py"))
    return 4 if missed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
