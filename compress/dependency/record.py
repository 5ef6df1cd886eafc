"""The record: what one traced pass leaves behind, and the error of a forward that does not run with other widths."""

from __future__ import annotations

from dataclasses import dataclass, field

from compress.dependency.labels import Array, Marks
from compress.dependency.positions import Step
from compress.dependency.sizes import Size

Shape = tuple[int, ...]
Named = dict[str, dict[int, Array]]  # tensor name -> dimension -> labels
Spot = tuple[type, str, str]  # class of the module that runs, line of the forward, operator
Factor = tuple[int, Marks]  # the size of a dimension that may shrink, and its labels
Operators = dict[Spot, list[tuple[str, Marks]]]  # modules, and what entered the operators there


@dataclass
class Record:
    """What one traced pass left behind."""

    named: Named = field(default_factory=dict)
    moved: list[tuple[str, Shape, Marks]] = field(default_factory=list)  # module, and what it reshaped or took apart
    joint: list[Array] = field(default_factory=list)  # labels that one reshaping laid out over several dimensions
    parts: list[tuple[Array, ...]] = field(default_factory=list)  # labels of parts that have to stay equally wide
    pieces: list[tuple[Array, Array]] = field(default_factory=list)  # labels, and those of a part taken of them
    steps: list[Step] = field(default_factory=list)  # of a pass whose labels are known
    products: list[tuple[int, tuple[Factor, ...]]] = field(default_factory=list)  # MACs: a constant times sizes
    scaled: list[tuple[float, Marks, str]] = field(default_factory=list)  # plain number, what it multiplies, line
    norms: list[tuple[str, Shape, Marks]] = field(default_factory=list)  # module, normalized shape, marks
    reads: list[tuple[Size, Marks, int]] = field(default_factory=list)  # number, marks, dimension it is the size of
    operators: Operators = field(default_factory=dict)
    lists: list[tuple[str, tuple[tuple[int, Marks, int], ...]]] = field(default_factory=list)  # size, marks, dimension
    groups: dict[str, tuple[int, Marks]] = field(
        default_factory=dict
    )  # module with groups -> how many, one label per group


class DoesNotRun(Exception):
    """The forward of a cut network failed.

    Attributes:
        marks: those of the tensors that entered the operator.
        module: name of the one that was running.
        record: what the pass left behind up to there.
    """

    def __init__(self, marks: Marks, module: str, spot: Spot, reason: str, record: Record) -> None:
        super().__init__(f"{reason}{spot[1]}")
        self.marks, self.module, self.spot, self.record = marks, module, spot, record
