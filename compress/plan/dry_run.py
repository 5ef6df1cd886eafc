"""`compress --dry-run`: the plan of a candidate from the middle of the search, as YAML to edit; nothing is run.

Which may meet the budgets is not known before networks were measured.
"""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from compress.plan.beginning import check_plan, fit_of, shares_of, sources_of
from compress.plan.plan import Plan, PlannedStep
from compress.plan.search import every_candidate
from compress.plan.settings import Compress
from compress.plan.timing import check_runtimes
from compress.plan.trial import Candidate
from compress.verbs import COMPRESS
from transfer.data.sources import Data
from zoo.call import Call, takes


@dataclass(frozen=True)
class Planned:
    """
    Attributes:
        plan: one that may be tried, or that was given.
        command: that takes it.
        searched: what is tried without it.
        alone: whether nothing else is.
    """

    plan: Plan
    command: str
    searched: list[str]
    alone: bool = True

    def lines(self) -> list[str]:
        """YAML; what is not of it is a comment."""
        found = self.plan.text(self.command).splitlines()
        if self.searched:
            found.append(f"# Without --plan some of these are tried: {', '.join(self.searched)}")
            if not self.alone:
                found.append("# smaller images before them; cuts without some residual blocks and longer recoveries,")
                found.append("# where that is faster.")
        return found

    def document(self) -> dict[str, Any]:
        """Ready for JSON."""
        return {"plan": [step.document() for step in self.plan.steps], "candidates": self.searched}


@takes(COMPRESS)
def planned(source: str | Path | Data, settings: Compress, call: Call) -> Planned:
    """The plan, and what would be tried; the images are looked for, and not read."""
    sources = sources_of(source, call.data, settings)
    settings = sources.settings
    given = None if settings.plan is None else Plan.read(settings.plan, seed=settings.seed)
    check_plan(given, sources)
    check_runtimes(settings.runtime)
    data = [] if sources.fits else ["--data", str(sources.images)]
    words = ["slimzoo", "compress", str(sources.first), *data, "--plan", "plan.yaml", *settings.beside_a_plan()]
    command = shlex.join([*words, "--out", "OUT"])
    fitted: tuple[PlannedStep, ...] = (fit_of(given, settings),) if sources.fits else ()
    if given is not None:
        return Planned(Plan((*fitted, *given.after_fit)), command, [])
    shares = shares_of(sources)
    middle = Candidate(shares[len(shares) // 2] if shares else None, int8=True)
    every = every_candidate(shares, settings.student)[1:]  # the first is there
    names, alone = [candidate.name for candidate in every], bool(settings.shares) or not shares
    return Planned(Plan((*fitted, *middle.plan(settings.seed).steps)), command, names, alone)
