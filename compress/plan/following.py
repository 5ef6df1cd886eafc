"""A plan that a person wrote, followed step by step: as far as its gates and the time allow."""

from __future__ import annotations

from compress.plan.plan import Plan
from compress.plan.searching import TRYING, Search
from compress.plan.trial import Trial, reason_of
from zoo.errors import SlimzooError


def follow(search: Search, base: Trial, plan: Plan) -> None:
    """Do its steps, and keep what came of the last that passed; a step that misses its gate, cannot be done, or for
    which there is no time, is a trial that failed."""
    rest, kept, failed = plan.after_fit, base.kept, None
    assert kept is not None
    if not rest:
        return
    search.show()
    search.tell(f"{TRYING}{_name(plan)}")
    done = 0
    for step in rest:
        reason = search.no_time_for(f"`{step.verb}`", search.seconds_of(Plan((step,)), kept))
        if reason and search.settings.finish:
            search.said.append(reason)
            break
        if not reason:
            try:
                kept = search.timed(step, kept)
            except SlimzooError as error:
                reason = reason_of(error)
        if reason:
            upto = Plan(rest[: done + 1])
            failed = Trial(_name(upto), None, upto, reason=reason)
            break
        done += 1
    if done:
        trial = Trial(_name(Plan(rest[:done])), None, Plan(rest[:done]), kept)
        search.found(search.with_times(search.measured(trial, base)))
    if failed is not None:
        search.found(failed)


def _name(plan: Plan) -> str:
    return "-".join(step.verb for step in plan.after_fit)
