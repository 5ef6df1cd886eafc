"""Metrics: what a lineage record says of a model before or after a step, as values, and in a line for people."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from transfer.data.split import TEST, VAL

EXPECTED = "expected"


@dataclass(frozen=True, kw_only=True)
class Accuracy:
    """The accuracy of a model on the images of one part.

    Attributes:
        top1, balanced: shares of the images, and of each class's images on average, that are answered right.
        top1_ci, balanced_ci: 95% intervals.
        n: images.
    """

    top1: float
    top1_ci: tuple[float, float]
    n: int
    balanced: float | None = None
    balanced_ci: tuple[float, float] | None = None

    @classmethod
    def of(cls, record: Mapping[str, Any]) -> Accuracy:
        known = {each.name for each in fields(cls)}
        given = {key: value for key, value in record.items() if key in known}
        values: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in given.items()}
        return cls(**values)

    def __str__(self) -> str:
        """ "98.1% (95% interval 96.1% to 99.0%, 360 images)"."""
        low, high = self.top1_ci
        return f"{self.top1:.1%} (95% interval {low:.1%} to {high:.1%}, {self.n} images)"


@dataclass(frozen=True, kw_only=True)
class Metrics:
    """
    Attributes:
        val, test: None without images of that part.
        expected: of new images, cross-validated; None where a part that was held out says it.
        params, macs: of one image's inference; size_bytes: of the weights, or of the file that holds them.
        record: all of it, as the lineage has it.
    """

    val: Accuracy | None = None
    test: Accuracy | None = None
    expected: Accuracy | None = None
    params: int | None = None
    macs: int | None = None
    size_bytes: int | None = None
    record: Mapping[str, Any]

    @classmethod
    def of(cls, record: Mapping[str, Any] | None) -> Metrics | None:
        if record is None:
            return None
        parts = {part: Accuracy.of(record[part]) for part in (VAL, TEST, EXPECTED) if record.get(part)}
        return cls(**parts, **{key: record.get(key) for key in ("params", "macs", "size_bytes")}, record=record)  # type: ignore[arg-type]

    def __str__(self) -> str:
        """Accuracy on the parts that there are, parameters, MACs."""
        accuracies = [f"{part} {found}" for part, found in ((VAL, self.val), (TEST, self.test)) if found is not None]
        costs = [] if self.params is None else [f"{self.params:,} parameters"]
        costs += [] if self.macs is None else [f"{self.macs / 1e6:.1f} M MACs"]
        return "; ".join([*accuracies, *costs])
