"""Amounts as a person writes them: 5ms, 2MB, 50M; a number is in the unit that is named first."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from zoo.errors import UsageError, argument


@dataclass(frozen=True)
class Kind:
    """
    Attributes:
        name: of what is measured.
        units: of all spellings, in lower case; numbers are of the one that is 1.
        example: of a right one.
        least_bare: a word without a unit is taken as it is from here on, and asked back below.
    """

    name: str
    units: Mapping[str, float]
    example: str
    least_bare: float = 0.0


TIME = Kind("a time", {"ms": 1.0, "us": 1e-3, "µs": 1e-3, "s": 1e3}, "5ms")
SIZE = Kind(
    "a size",
    {"b": 1.0, "kb": 1e3, "mb": 1e6, "gb": 1e9, "kib": 2.0**10, "mib": 2.0**20, "gib": 2.0**30},
    "2MB",
    least_bare=1e4,
)
COUNT = Kind("a count", {"": 1.0, "k": 1e3, "m": 1e6, "g": 1e9}, "50M", least_bare=1e4)
KINDS = (TIME, SIZE, COUNT)


def reader(name: str, kind: Kind) -> Callable[[object], object]:
    """A validator of the option of that name.

    Its errors are UsageErrors: no such amount, a unit of something else, none where it is needed, nothing or less.
    """

    def read(given: object) -> object:
        if given is None or not isinstance(given, str):
            found = given
        else:
            found = _amount(name, given, kind)
        if isinstance(found, int | float) and not 0 < found < math.inf:
            raise UsageError(f"{argument(name, given)} must be above 0 and finite, such as {kind.example}")
        return found

    return read


def _amount(name: str, given: str, kind: Kind) -> float:
    named = argument(name, given)
    found = re.fullmatch(r"\s*(\d+\.?\d*(?:e[+-]?\d+)?|\.\d+)\s*([a-zµμ]*)\s*", given, re.IGNORECASE)
    if found is None:
        raise UsageError(f"{named}: wanted {kind.name}, such as {kind.example}")
    value, unit = float(found[1]), found[2].lower().replace("μ", "µ")
    if not unit and "" not in kind.units and value < kind.least_bare:
        shown = f"{value:g}{kind.example.lstrip('0123456789')}"
        raise UsageError(f"{named} is {kind.name} of what unit? Write {shown}, or another of {_units(kind)}")
    if not unit and "" in kind.units and value < kind.least_bare:
        of_all = "; a share of the network's is for `slimzoo prune` and --shares" if value <= 1 else ""
        raise UsageError(f"{named}: only {value:g}? Write {value:g}M, or {value:g}k{of_all}")
    if unit in kind.units or not unit:
        return value * kind.units.get(unit, 1.0)
    other = next((each for each in KINDS if unit in each.units), None)
    is_of = f"{found[2]} measures {other.name}" if other is not None else f"there is no unit {found[2]}"
    raise UsageError(f"{named}: {is_of}; wanted {kind.name}, such as {kind.example}")


def _units(kind: Kind) -> str:
    return ", ".join(unit for unit in kind.units if unit)
