"""How much other work took of the processors while something was measured.

Linux counts for each thread how long it was ready to run and did not (/proc/PID/task/*/schedstat), which a quota of a
container lengthens as well as a neighbour, and for each processor what the hypervisor took away (steal). Elsewhere it
is what the processors did beyond this process.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

_PROC = Path("/proc")
_STEAL = 8  # the column of a processor's line in /proc/stat, after its name


@dataclass(frozen=True)
class Look:
    """Counters of this process and its processors, in seconds since some start."""

    wall_s: float
    cpu_s: float
    waited_s: dict[str, float] = field(default_factory=dict)  # of each thread
    taken_s: float = 0.0  # by the hypervisor; where no thread's waiting is counted, by whatever ran
    switches: int = 0  # that this process did not ask for


def look(cpus: Sequence[int] | None) -> Look:
    """The counters now; `cpus` are the processors that this process is kept on, None is all of them."""
    wall_s, cpu_s = time.perf_counter(), time.process_time()
    waited_s = _waited()
    if waited_s:
        return Look(wall_s, cpu_s, waited_s, _stolen(cpus), _switches())
    return Look(wall_s, cpu_s, {}, _busy(cpus), _switches())


def taken(before: Look, after: Look, threads: int) -> float:
    """The share of `threads` processors' time that other work took between two looks, 0 to 1."""
    wall_s = after.wall_s - before.wall_s
    others_s = after.taken_s - before.taken_s
    if after.waited_s:
        others_s += sum(s - before.waited_s.get(thread, 0.0) for thread, s in after.waited_s.items())
    else:
        others_s -= after.cpu_s - before.cpu_s
    return min(1.0, max(0.0, others_s / (wall_s * threads))) if wall_s > 0 else 0.0


def _waited() -> dict[str, float]:
    found = {}
    try:
        for thread in os.listdir(_PROC / "self/task"):
            text = (_PROC / "self/task" / thread / "schedstat").read_text(encoding="ascii")
            found[thread] = int(text.split()[1]) / 1e9
    except (OSError, IndexError, ValueError):  # no Linux, a kernel that does not count, a thread that ended meanwhile
        return {}
    return found


def _stolen(cpus: Sequence[int] | None) -> float:
    try:
        lines = [line.split() for line in (_PROC / "stat").read_text(encoding="ascii").splitlines()]
        tick = os.sysconf("SC_CLK_TCK")
        wanted = {"cpu"} if cpus is None else {f"cpu{cpu}" for cpu in cpus}
        return sum(int(line[_STEAL]) for line in lines if line[0] in wanted) / tick
    except (OSError, IndexError, ValueError):
        return 0.0


def _busy(cpus: Sequence[int] | None) -> float:
    import psutil

    times = psutil.cpu_times(percpu=True)
    wanted = range(len(times)) if cpus is None else cpus
    idle = ("idle", "iowait", "guest", "guest_nice")  # Linux counts what guests took in `user` too
    return float(sum(sum(v for k, v in times[cpu]._asdict().items() if k not in idle) for cpu in wanted))


def _switches() -> int:
    try:
        text = (_PROC / "self/status").read_text(encoding="utf-8")
        return int(text.split("nonvoluntary_ctxt_switches:")[1].split()[0])
    except (OSError, IndexError, ValueError):
        import psutil

        return int(psutil.Process().num_ctx_switches().involuntary)
