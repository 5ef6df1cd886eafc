"""Energy of the processor's packages, where the machine tells it: Linux's powercap interface to RAPL.

It is that of everything that runs on them, so a round that other work disturbed says nothing. The counters are the
administrator's on most systems (CVE-2020-8694); there, nothing is said.
"""

from __future__ import annotations

from pathlib import Path

ZONES = Path("/sys/class/powercap")


def energy_uj() -> dict[str, tuple[int, int]]:
    """Of each package, its counter in microjoules and where that wraps around; empty where none can be read."""
    found = {}
    for zone in sorted(ZONES.glob("intel-rapl:[0-9]*")):
        if zone.name.count(":") == 1:  # a package, of which others are parts; AMD's counters have the same name
            try:
                counts = [
                    int((zone / name).read_text(encoding="ascii")) for name in ("energy_uj", "max_energy_range_uj")
                ]
            except (OSError, ValueError):
                continue
            found[zone.name] = (counts[0], counts[1])
    return found


def joules(before: dict[str, tuple[int, int]], after: dict[str, tuple[int, int]]) -> float | None:
    """What went between two looks; None where nothing is told."""
    if not before or before.keys() != after.keys():
        return None
    return sum((now - before[zone][0]) % (wrap + 1) for zone, (now, wrap) in after.items()) / 1e6
