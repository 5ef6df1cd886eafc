"""What made a measurement worth less than it could be, in words, as trtexec says of its own."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from compress.report.statistics import DISTURBED

MOSTLY = 0.5  # of the measurements: from here on fewer threads are worth a word
UNSTEADY = 1.2  # the slowest tenth of the undisturbed rounds over the fastest: more is a clock that changes
EAGER, GRAPH = "torch-cuda", "torch-cuda-graph"
LAUNCHES = 1.25  # times as long, told call by call
_CGROUP = Path("/sys/fs/cgroup/cpu.stat")
_CPUS = Path("/sys/devices/system/cpu")


class Throttling:
    """What the container's quota and the processor's heat took away since this was made, where Linux says so."""

    def __init__(self) -> None:
        self._before = _throttled()

    def said(self) -> list[str]:
        quota_s, hot = (after - before for after, before in zip(_throttled(), self._before, strict=True))
        found = []
        if quota_s > 0:
            found.append(f"throttled: the container's quota stopped its threads for {quota_s:.2f} s in all")
        if hot > 0:
            found.append(f"throttled: the processor slowed itself down {hot:.0f} times, being hot")
        return found


def diagnoses(taken: Sequence[Sequence[float]], reference_ms: Sequence[float], threads: int, usable: int) -> list[str]:
    """Say what is wrong, nothing where all is well.

    Args:
        taken: of each row, of each round, the share of the processors' time that other work took.
        reference_ms: of the reference, its undisturbed rounds.
        threads, usable: threads of a runtime, and processors that this process may use.
    """
    found = []
    shares = np.array([share for row in taken for share in row])
    busy = shares > DISTURBED
    if threads > usable:
        found.append(f"thread contention: {threads} threads on {usable} processors; take --threads {usable}")
    elif busy.any():
        share = float(shares[busy].mean())
        left = usable - math.ceil(share * threads)
        room = f"; --threads {left} would leave it room" if busy.mean() > MOSTLY and 0 < left < threads else ""
        found.append(
            f"a busy neighbour: {busy.mean():.0%} of the measurements were disturbed, in which other work took "
            f"{share:.0%} of the processors' time{room}"
        )
    if len(reference_ms) >= 5:
        slow, fast = np.quantile(reference_ms, 0.9), np.quantile(reference_ms, 0.1)
        if slow / fast > UNSTEADY:
            said = "an unsteady clock" if threads == 1 else "an unsteady clock, or threads that wait for each other"
            steadier = "" if threads == 1 else "; --threads 1 is steadier where a hypervisor moves the processors"
            found.append(f"{said}: undisturbed rounds of one model took {fast:.3g} to {slow:.3g} ms{steadier}")
    return found


def launch_bound(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Say where a GPU waits to be told what to do: the same network is faster when all of it is told at once.

    Args:
        rows: of a benchmark.
    """
    found = []
    graphs = {_same(row): row["device_ms"] for row in rows if row["runtime"] == GRAPH and row["device_ms"]}
    for row in rows:
        graph_ms = graphs.get(_same(row)) if row["runtime"] == EAGER else None
        if graph_ms and row["device_ms"] and row["device_ms"] > LAUNCHES * graph_ms:
            found.append(
                f"launch-bound: {row['model']} in {row['precision']} at batch {row['batch']} keeps the GPU for "
                f"{row['device_ms']:.3g} ms told call by call, for {graph_ms:.3g} ms told at once ({GRAPH})"
            )
    return found


def _same(row: Mapping[str, Any]) -> tuple[Any, ...]:
    return row["model"], row["precision"], row["batch"]


def _throttled() -> tuple[float, float]:
    """Seconds by the quota of this container (cgroup v2), and times that a processor was too hot."""
    quota_s = hot = 0.0
    try:
        stat = dict(line.split() for line in _CGROUP.read_text(encoding="ascii").splitlines())
        quota_s = int(stat.get("throttled_usec", 0)) / 1e6
    except (OSError, ValueError):
        pass
    for count in _CPUS.glob("cpu[0-9]*/thermal_throttle/core_throttle_count"):
        try:
            hot += int(count.read_text(encoding="ascii"))
        except (OSError, ValueError):
            continue
    return quota_s, hot
