"""What a model's lineage says of its zeros."""

from __future__ import annotations

from typing import Any

from compress.sparsity.settings import parse_pattern
from compress.sparsity.sparsify import NOfM
from compress.verbs import SPARSIFY


def is_sparse(records: list[dict[str, Any]]) -> bool:
    """Whether the model of this lineage was made sparse: steps after that hold its zeros."""
    return any(record["verb"] == SPARSIFY.name for record in records)


def pattern_of(records: list[dict[str, Any]]) -> NOfM | None:
    """The N:M pattern that the model of this lineage was given last; None without one."""
    sparse = [record for record in records if record["verb"] == SPARSIFY.name]
    given = sparse[-1]["arguments"]["pattern"] if sparse else None
    if given is None:
        return None
    n, m = parse_pattern(given)
    return NOfM(n=n, m=m)
