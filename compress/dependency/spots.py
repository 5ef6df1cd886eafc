"""Fixed spots: where a forward does not run with other widths. Those of repeated blocks are found together."""

from __future__ import annotations

from collections.abc import Mapping

from compress.dependency.families import Families
from compress.dependency.record import DoesNotRun, Operators, Spot

SPOTS = 50  # different ones; each takes a pass or two on shapes
TOO_MANY = "its forward fixes shapes in too many places"


class FixedSpots:
    """What was learned of labels that have to stay.

    Where an operator failed in one block, the same line of the same class is likely to fail in the others. They are
    taken to stay, and once all else runs it is tried whether they have to.
    """

    def __init__(self, operators: Operators) -> None:
        self.operators = operators
        self._known: dict[int, str] = {}
        self._likely: dict[Spot, dict[int, str]] = {}
        self._spots: set[Spot] = set()
        self._checked: set[Spot] = set()
        self._passes = 0

    @property
    def stays(self) -> dict[int, str]:
        """Representative of a label -> why it stays."""
        return {label: why for likely in self._likely.values() for label, why in likely.items()} | self._known

    def learn(self, families: Families, wrong: Mapping[int, str]) -> None:
        """Labels that met wrongly or stood elsewhere."""
        self._known.update(wrong)
        self._passes += bool(wrong)
        if self._passes > 4 * SPOTS:
            self._known.update(dict.fromkeys(families.roots(), TOO_MANY))

    def fail(self, families: Families, error: DoesNotRun) -> None:
        """A pass stopped there."""
        spot, reason = error.spot, f"its forward fixes a shape: {error}"
        there = self.operators.get(spot, [])  # in the whole network; after a cut a width of one has no labels
        roots = families.roots_of([error.labels])
        roots = roots or families.roots_of([m for module, marks in there if module == error.module for m in marks])
        self._known.update(dict.fromkeys(roots or families.roots_inside(error.module), reason))
        self._spots.add(spot)
        self._passes += 1
        if len(self._spots) > SPOTS or self._passes > 4 * SPOTS:
            self._known.update(dict.fromkeys(families.roots(), TOO_MANY))
        alike = families.roots_of([m for _, marks in there for m in marks])
        if spot in self._checked:
            self._known.update(dict.fromkeys(alike, reason))
        else:
            self._likely[spot] = dict.fromkeys(alike, reason)

    def doubt(self) -> bool:
        """Forget what is only likely; False where there is nothing to forget."""
        self._checked |= self._likely.keys()
        doubtful = {label for likely in self._likely.values() for label in likely} - self._known.keys()
        self._likely.clear()
        return bool(doubtful)
