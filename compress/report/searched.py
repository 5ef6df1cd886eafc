"""What a search has decided, as `compress` keeps it in OUT/trials.json; its models lie in OUT/variants."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from zoo.disk import read_json
from zoo.errors import SlimzooError
from zoo.files.manifest import TRIALS

VARIANTS = "variants"


@dataclass(frozen=True)
class Searched:
    """
    Attributes:
        models: the directory of model directories.
        chosen: a name among them; None where none was good enough.
        max_drop: points that might be lost.
        runtimes: by name, in which each is fastest.
    """

    models: Path
    chosen: str | None
    max_drop: float
    runtimes: Mapping[str, str]


def read_search(out: Path) -> Searched | None:
    """None where there was no search.

    Raises:
        SlimzooError: a damaged file.
    """
    file = out / TRIALS
    if not file.exists():
        return None
    found = read_json(file)
    try:
        runtimes = {trial["name"]: trial["runtime"] for trial in found["variants"] if trial["runtime"] is not None}
        runtimes.pop(found["baseline"], None)  # which all are compared with, as it would be run without a search
        return Searched(out / VARIANTS, found["chosen"], float(found["budgets"]["max_drop"]), runtimes)
    except (KeyError, TypeError, ValueError) as error:
        raise SlimzooError(f"{file} is not what `slimzoo compress` writes; take it away, or compress again") from error
