"""A plan that a person wrote, followed step by step: as far as its gates and the time allow."""

from __future__ import annotations

import time

from compress.plan.pipeline import Kept
from compress.plan.plan import Plan
from compress.plan.searching import TRYING, Search
from compress.plan.trial import Trial
from zoo.errors import GateError


def follow(search: Search, base: Trial, plan: Plan) -> None:
    """Do its steps, and keep what came of the last that passed; a step that misses its gate is a trial that failed."""
    rest, kept, failed = plan.after_fit, base.kept, None
    assert kept is not None
    if not rest:
        return
    search.show()
    search.tell(f"{TRYING}{_name(plan)}")
    done = 0
    for step in rest:
        if reason := _why_not(search, Plan((step,)), kept):
            search.said.append(reason)
            break
        try:
            kept = search.timed(step, kept)
        except GateError as error:
            failed = Trial(_name(Plan(rest[: done + 1])), None, Plan(rest[: done + 1]), reason=str(error))
            break
        done += 1
    if done:
        trial = Trial(_name(Plan(rest[:done])), None, Plan(rest[:done]), kept)
        search.found(search.with_times(search.measured(trial, base)))
    if failed is not None:
        search.found(failed)


def _name(plan: Plan) -> str:
    return "-".join(step.verb for step in plan.after_fit)


def _why_not(search: Search, step: Plan, source: Kept) -> str | None:
    """Why a step is not begun."""
    (verb,), expected = step.verbs, search.seconds_of(step, source)
    if expected and search.settings.finish:
        return f"finished as asked, before `{verb}`"
    if expected and search.until - time.time() < expected + search.comparing_s:
        return f"the time was up before `{verb}`, which takes about {expected:.0f} s"
    return None
