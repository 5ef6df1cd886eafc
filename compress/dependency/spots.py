"""Fixed spots: where a forward does not run with other widths. Those of repeated blocks are found together."""

from __future__ import annotations

from compress.dependency.families import Families
from compress.dependency.labels import Reasons
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
        self._known: Reasons = {}
        self._likely: dict[Spot, Reasons] = {}
        self._spots: set[Spot] = set()
        self._checked: set[Spot] = set()
        self._passes = 0

    @property
    def stays(self) -> Reasons:
        """Representative of a label -> why it stays."""
        return {label: why for likely in self._likely.values() for label, why in likely.items()} | self._known

    def learn(self, families: Families, wrong: Reasons) -> None:
        """Take note of labels that met wrongly or stood elsewhere, and why: they stay."""
        self._known.update(wrong)
        self._passes += bool(wrong)
        self._give_up_if_too_many(families)

    def fail(self, families: Families, error: DoesNotRun) -> None:
        """Take note of where a pass stopped: the labels that entered there stay."""
        spot, reason = error.spot, f"its forward fixes a shape: {error}"
        there = self.operators.get(spot, [])  # in the whole network; after a cut a width of one has no labels
        concerned = families.of(error.marks) - {-1}
        concerned = concerned or families.of(tuple(m for name, marks in there if name == error.module for m in marks))
        self._known.update(families.stay(concerned - {-1} or families.inside(error.module), reason))
        self._spots.add(spot)
        self._passes += 1
        self._give_up_if_too_many(families)
        alike = families.stay(families.of(tuple(m for _, marks in there for m in marks)), reason)
        if spot in self._checked:
            self._known.update(alike)
        else:
            self._likely[spot] = alike

    def _give_up_if_too_many(self, families: Families) -> None:
        if len(self._spots) > SPOTS or self._passes > 4 * SPOTS:
            self._known.update(families.stay(range(len(families.each)), TOO_MANY))

    def doubt(self) -> bool:
        """Forget what is only likely; False where there is nothing to forget."""
        self._checked |= self._likely.keys()
        doubtful = {label for likely in self._likely.values() for label in likely} - self._known.keys()
        self._likely.clear()
        return bool(doubtful)
