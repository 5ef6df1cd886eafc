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
        budgets: what it might lose and cost.
        why: the choice, in a sentence; empty of what an earlier version wrote.
        elsewhere: the machine whose latencies counted, where it was another.
        runtimes: by name, in which each is fastest.
    """

    models: Path
    chosen: str | None
    budgets: Mapping[str, float]
    runtimes: Mapping[str, str]
    why: str = ""
    elsewhere: str | None = None


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
        budgets = {name: float(most) for name, most in found["budgets"].items()}
        why, elsewhere = found.get("why", ""), found.get("elsewhere")
        return Searched(
            out / VARIANTS, found["chosen"], {"max_drop": budgets.pop("max_drop"), **budgets}, runtimes, why, elsewhere
        )
    except (KeyError, TypeError, ValueError) as error:
        raise SlimzooError(f"{file} is not what `slimzoo compress` writes; take it away, or compress again") from error
