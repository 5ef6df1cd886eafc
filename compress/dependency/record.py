"""The record: what one traced pass leaves behind, and the error of a forward that does not run with other widths."""

from __future__ import annotations

from dataclasses import dataclass, field

from compress.dependency.labels import Array, Marks
from compress.dependency.positions import Step
from compress.dependency.sizes import Read

Shape = tuple[int, ...]
Named = dict[str, dict[int, Array]]  # tensor name -> dimension -> labels
Spot = tuple[type, str, str]  # class of the module that runs, line of the forward, operator
Operators = dict[Spot, list[tuple[str, Marks]]]  # modules, and what entered the operators there


@dataclass(frozen=True)
class Moved:
    """A tensor with labels that was reshaped, sliced or split, or came of it: where attributes are read."""

    module: str
    shape: Shape
    marks: Marks


@dataclass(frozen=True)
class LabelledProduct:
    """MACs of one operator: `constant` times the sizes of dimensions that may shrink."""

    constant: int
    factors: tuple[tuple[int, Marks], ...]  # (size, marks of one dimension each)


@dataclass(frozen=True)
class Scaled:
    """A multiplication by a plain number, which the forward may have derived from a width."""

    number: float
    marks: Marks
    line: str


@dataclass
class Record:
    """What a pass left behind."""

    named: Named = field(default_factory=dict)
    moved: list[Moved] = field(default_factory=list)
    joint: list[Array] = field(default_factory=list)  # labels that one reshaping laid out over several dimensions
    parts: list[tuple[Array, ...]] = field(default_factory=list)  # labels of parts that have to stay equally wide
    pieces: list[tuple[Array, Array]] = field(
        default_factory=list
    )  # labels, and those of a part that was taken of them
    steps: list[Step] = field(default_factory=list)  # of a pass whose labels are known
    products: list[LabelledProduct] = field(default_factory=list)
    scaled: list[Scaled] = field(default_factory=list)
    norms: list[tuple[str, Shape, Marks]] = field(default_factory=list)  # module, normalized shape, marks
    reads: list[Read] = field(default_factory=list)
    operators: Operators = field(default_factory=dict)
    lists: list[tuple[str, tuple[tuple[int, Marks, int], ...]]] = field(default_factory=list)  # size, marks, dimension
    groups: dict[str, tuple[int, Marks]] = field(default_factory=dict)  # module with groups -> how many, a label each


class DoesNotRun(Exception):
    """The forward of a cut network failed; `labels` are those that entered the operator."""

    def __init__(self, labels: Array, module: str, spot: Spot, reason: str) -> None:
        super().__init__(f"{reason}{spot[1]}")
        self.labels, self.module, self.spot = labels, module, spot
        self.record = Record()  # up to there
