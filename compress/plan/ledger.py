"""The trials of a search, kept in a database that its workers share: an Optuna study, on SQLite or what a URL names.

A worker takes a candidate by beginning a trial with it, and says that it lives as long as it is at work. Who reads the
ledger sees what is finished and what others are at. The trial of a worker that was killed counts for nothing, and its
candidate is free again: at once, where the worker was on this machine, and after GRACE_S of silence elsewhere.
"""

from __future__ import annotations

import errno
import os
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from compress.plan.space import Space
from compress.plan.trial import Candidate, Trial
from zoo.errors import SlimzooError, UsageError
from zoo.process import is_gone, this_process

if TYPE_CHECKING:
    from optuna import Study
    from optuna.storages import RDBStorage
    from optuna.trial import FrozenTrial
    from optuna.trial import Trial as Begun

HEARTBEAT_S, GRACE_S = 10, 60  # a worker says that it lives; how long it may be silent
WAIT_S = 60.0  # for a database that another process writes to
ANYWHERE = Space()
RECORD, CANDIDATE, WORKER, DRAWN = "record", "candidate", "worker", "drawn"  # attributes of a trial
ABOUT, FINISHED, UNTIL, TIMES = "about", "finished", "until", "times"  # and of a search


class Ledger:
    """
    Attributes:
        url: of the database.
        about: what the search is of, as it was made with.
    """

    def __init__(self, url: str, study: Study, storage: RDBStorage) -> None:
        self.url, self._study, self._storage, self._sampler = url, study, storage, study.sampler

    @property
    def place(self) -> str:
        """Of this search among others in its database."""
        return f"{self.url}#{self._study.study_name}"

    @property
    def about(self) -> dict[str, Any]:
        found: dict[str, Any] = self._study.user_attrs[ABOUT]
        return found

    @property
    def until(self) -> float:
        """Seconds since 1970, after which nothing is begun."""
        return float(self._study.user_attrs.get(UNTIL, "inf"))

    def allow(self, seconds: float) -> None:
        """From now on; workers hear of it."""
        with _quiet():
            self._study.set_user_attr(UNTIL, str(time.time() + seconds))
            self._study.set_user_attr(FINISHED, False)

    def finish(self) -> None:
        """No worker need look for work any more."""
        with _quiet():
            self._study.set_user_attr(FINISHED, True)

    def close(self) -> None:
        """Let go of the database; Windows neither moves nor deletes a file that is open."""
        _let_go(self._storage)

    @property
    def is_finished(self) -> bool:
        return bool(self._study.user_attrs.get(FINISHED))

    def trials(self) -> list[Trial]:
        """Those that are finished and whose models are still kept, the oldest first."""
        seed = int(self.about["seed"])
        last = {_taken(trial): trial.user_attrs[RECORD] for trial in self._all() if _is_of_use(trial)}
        return [Trial.of(record, seed) for record in last.values()]

    def running(self) -> set[Candidate]:
        """What workers that live are at."""
        from optuna.trial import TrialState

        self._bury()
        return {_taken(t) for t in self._all() if t.state == TrialState.RUNNING and CANDIDATE in t.user_attrs}

    def drawn(self) -> set[Candidate]:
        """What the sampler has drawn of what was tried and is at work."""
        from optuna.trial import TrialState

        alive = [trial for trial in self._all() if trial.state == TrialState.RUNNING or _is_of_use(trial)]
        return {_taken(trial) for trial in alive if trial.user_attrs.get(DRAWN)}

    def say_times(self, key: str, found: Mapping[str, Any]) -> None:
        """How fast the model of a step is where that counts, for workers elsewhere."""
        with _quiet():
            self._study.set_user_attr(f"{TIMES} {key}", dict(found))

    def times_of(self, key: str) -> dict[str, Any] | None:
        """What was said of it; None by now."""
        found: dict[str, Any] | None = self._study.user_attrs.get(f"{TIMES} {key}")
        return found

    def attempt(
        self, candidate: Candidate | None, run: Callable[[Candidate], Trial], space: Space = ANYWHERE
    ) -> Trial | None:
        """Try a candidate; None where another worker has taken it.

        Args:
            candidate: None leaves it to Optuna's sampler.
            run: what a trial does.
            space: of the search, from which the sampler draws.
        """
        from optuna import TrialPruned
        from optuna.exceptions import OptunaError
        from optuna.samplers import PartialFixedSampler

        begun_as, found = list[int](), list[Trial]()

        def objective(begun: Begun) -> tuple[float, float]:
            begun_as.append(begun.number)
            begun.set_user_attr(WORKER, this_process())
            drawn = space.drawn(begun) if candidate is None or space.holds(candidate) else None
            mine = candidate or drawn
            assert mine is not None
            begun.set_user_attr(CANDIDATE, asdict(mine))
            if mine in self._taken_before(begun.number):
                raise TrialPruned
            begun.set_user_attr(DRAWN, candidate is None)
            made = run(mine)
            found.append(made)
            begun.set_user_attr(RECORD, made.record())
            size = (made.metrics or {}).get("size_bytes")
            if made.lost is None or not size:
                raise TrialPruned
            return made.lost, made.latency_ms or float(size)

        with _quiet():  # no queue of Optuna's: SQLite gives its first to two who come at once
            self._study.sampler = self._sampler
            if candidate is not None and space.holds(candidate):
                self._study.sampler = PartialFixedSampler(space.params(candidate), self._sampler)
            try:
                self._study.optimize(objective, n_trials=1)
            except (OptunaError, ValueError):
                if not found or not self._was_given_up(*begun_as):
                    raise
                return None
        return found[0] if found else None

    def _was_given_up(self, number: int) -> bool:
        """Whether others took this worker for dead: the machine slept. What it made is kept, and soon found again."""
        from optuna.trial import TrialState

        return any(trial.number == number and trial.state == TrialState.FAIL for trial in self._all())

    def _taken_before(self, number: int) -> set[Candidate]:
        """What was tried, and what workers are at who began before; of those that have begun just now it is waited for
        what they take, so that of two who take the same one goes on."""
        from optuna.trial import TrialState

        until = time.monotonic() + GRACE_S
        while True:
            trials = [trial for trial in self._all() if trial.number != number]
            before = [trial for trial in trials if trial.state == TrialState.RUNNING and trial.number < number]
            if all(CANDIDATE in trial.user_attrs for trial in before) or time.monotonic() > until:
                done = [trial for trial in trials if _is_of_use(trial)]
                return {_taken(trial) for trial in (*done, *before) if CANDIDATE in trial.user_attrs}
            time.sleep(0.02)
            self._bury()

    def _all(self) -> list[FrozenTrial]:
        with _quiet():
            return self._study.get_trials(deepcopy=False)

    def _bury(self) -> None:
        """Give up the trials of workers that are gone."""
        from optuna.exceptions import OptunaError
        from optuna.storages import fail_stale_trials
        from optuna.trial import TrialState

        with _quiet():
            for trial in self._all():
                if trial.state == TrialState.RUNNING and _is_left(trial):
                    try:
                        self._study.tell(trial.number, state=TrialState.FAIL)
                    except (OptunaError, ValueError):
                        continue  # another worker has just told it
            fail_stale_trials(self._study)


def check_database(url: str) -> None:
    """
    Raises:
        UsageError: it cannot be opened.
    """
    with _quiet(), _told(url):
        _let_go(_storage(url))


def opened(url: str, name: str, about: Mapping[str, Any], *, seed: int) -> Ledger:
    """The ledger of that search, made where it is not there.

    Args:
        name: the same for the same search.
        about: ready for JSON.
        seed: of Optuna's sampler.

    Raises:
        UsageError: the database cannot be opened.
    """
    import optuna

    with _quiet(), _told(url):
        storage = _storage(url)
        study = optuna.create_study(
            storage=storage,
            study_name=name,
            directions=["minimize", "minimize"],
            sampler=optuna.samplers.TPESampler(seed=seed % 2**32, n_startup_trials=4),
            load_if_exists=True,
        )
        if ABOUT not in study.user_attrs:
            study.set_user_attr(ABOUT, dict(about))
    return Ledger(url, study, storage)


def joined(url: str) -> Ledger:
    """The ledger of the search that is at work there.

    Raises:
        UsageError: the database cannot be opened, or no search is at work in it, or several are.
    """
    import optuna

    url, named = named_in(url)
    with _quiet(), _told(url):
        storage = _storage(url)
        names = [study.study_name for study in optuna.get_all_study_summaries(storage)]
        found = [Ledger(url, optuna.load_study(study_name=name, storage=storage), storage) for name in names]
        found = [ledger for ledger in found if ABOUT in ledger._study.user_attrs and not ledger.is_finished]
    if named:
        found = [ledger for ledger in found if ledger._study.study_name == named]
    if len(found) == 1:
        return found[0]
    _let_go(storage)
    if found:
        each = ", ".join(ledger.place for ledger in found)
        raise UsageError(f"{len(found)} searches are at work in {url}; name one of {each}")
    raise UsageError(f"no search is at work in {url}; `slimzoo compress` says the URL of its own when it begins")


def named_in(place: str) -> tuple[str, str]:
    """URL and name of `Ledger.place`; the name is empty where there is none."""
    url, mark, name = place.rpartition("#")
    return (url, name) if mark else (name, "")


def _storage(url: str) -> RDBStorage:
    from optuna.storages import RDBStorage

    wait = {"connect_args": {"timeout": WAIT_S}} if url.startswith("sqlite") else {"pool_pre_ping": True}
    return RDBStorage(url, engine_kwargs=wait, heartbeat_interval=HEARTBEAT_S, grace_period=GRACE_S)


def _let_go(storage: RDBStorage) -> None:
    storage.remove_session()
    storage.engine.dispose()


def _is_left(trial: FrozenTrial) -> bool:
    """Whether its worker is gone, or was before it could say who it is."""
    worker = trial.user_attrs.get(WORKER)
    if worker is not None:
        return is_gone(worker)
    silent = datetime.now() - (trial.datetime_start or datetime.max)  # both of Optuna's clock, which knows no zones
    return silent.total_seconds() > GRACE_S


def _is_of_use(trial: FrozenTrial) -> bool:
    """Whether it is finished, and did not lose its model since, to make room for others, or with another machine."""
    record = trial.user_attrs.get(RECORD)
    return record is not None and (record["kept"] is None or Path(record["kept"]["path"]).exists())


def _taken(trial: FrozenTrial) -> Candidate:
    return Candidate(**trial.user_attrs[CANDIDATE])


@contextmanager
def _quiet() -> Iterator[None]:
    """Optuna without its log and warnings, and without warnings that something of it is new.

    Raises:
        OSError: the disk of the database is full.
        SlimzooError: it does not answer.
    """
    import optuna
    from sqlalchemy.exc import SQLAlchemyError

    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)  # of what is interrupted it warns with a traceback
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            yield
    except (SQLAlchemyError, optuna.exceptions.StorageInternalError) as error:
        reason = str(error.__cause__ or error).strip().splitlines()[0]
        if "disk is full" in reason:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)) from error
        raise SlimzooError(f"the database of the search does not answer: {reason}") from error
    finally:
        optuna.logging.set_verbosity(before)


@contextmanager
def _told(url: str) -> Iterator[None]:
    """What a database says of a URL that it does not like, in a line."""
    from sqlalchemy.exc import SQLAlchemyError

    try:
        yield
    except (SQLAlchemyError, ImportError) as error:
        first = str(error).strip().splitlines()[0]
        raise UsageError(
            f"the database {url} cannot be opened ({first}); wanted a URL of SQLAlchemy's, such as "
            "sqlite:////PATH/search.db or postgresql+psycopg://USER:PASSWORD@HOST/NAME"
        ) from error
