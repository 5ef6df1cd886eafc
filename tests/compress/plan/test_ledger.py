"""Workers of a search that share a ledger: in threads' stead processes, some of which are killed."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from dataclasses import replace
from pathlib import Path

import pytest
from optuna.trial import TrialState
from sqlalchemy import create_engine, event, text

from compress.plan import ledger as ledgers
from compress.plan.pipeline import Kept
from compress.plan.space import Space
from compress.plan.trial import Candidate, Trial
from transfer.evaluation.statistics import PairedDrop
from zoo.errors import UsageError

ABOUT = {"seed": 3, "source": "photos", "networks": [{"share": 1.0, "blocks": 0}, {"share": 0.5, "blocks": 9}]}
SHARES = [0.8, 0.6, 0.4, 0.2]

# a worker that tries all shares in float, each of which takes a while, and says what it tried
WORKER = """
import os, pathlib, sys, time
from compress.plan.ledger import opened
from compress.plan.pipeline import Kept
from compress.plan.search import next_candidate
from compress.plan.settings import Budgets
from compress.plan.trial import Trial
from transfer.evaluation.statistics import PairedDrop

url, log, *shares = sys.argv[1:]
ledger = opened(url, "one", {"seed": 3}, seed=3)

def run(candidate):
    with open(log, "a", encoding="utf-8") as file:
        file.write(f"{os.getpid()} {candidate.name}\\n")
    time.sleep(1.0)
    drop = PairedDrop(10 * (1 - (candidate.share or 1)), (0.0, 1.0), 1.0, 100, 4)
    kept = Kept(pathlib.Path.cwd(), candidate.name, 1.0, False)
    return Trial(candidate.name, candidate, None, kept, {"size_bytes": int(1e6 * (candidate.share or 1))}, drop)

while True:
    running = ledger.running()
    found = next_candidate(ledger.trials(), Budgets(1.0), {}, [float(s) for s in shares], running=running, each=True)
    if found is not None:
        ledger.attempt(found, run)
    elif not running:
        break
    else:
        time.sleep(0.05)
ledger.close()
"""
OPEN = []  # ledgers of a test


def url_of(folder):
    """Of a database that a fixture made for this folder; of SQLite's file in it unless there is one."""
    named = folder / "url"
    return named.read_text(encoding="utf-8") if named.exists() else f"sqlite:///{folder / 'search.db'}"


def opened(*where, **how):
    OPEN.append(ledgers.opened(*where, **how))
    return OPEN[-1]


def joined(url):
    OPEN.append(ledgers.joined(url))
    return OPEN[-1]


@pytest.fixture(autouse=True)
def closed():
    yield
    while OPEN:
        OPEN.pop().close()


@pytest.fixture(scope="session")
def server():
    """PostgreSQL's, where Debian's package or another is installed, on a socket in a folder: how to reach a database of
    it. It does not run as root."""
    found = next(iter(sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)), None)
    programs = [shutil.which(name, path=None if found is None else str(found)) for name in ("initdb", "pg_ctl")]
    if None in programs or os.name == "nt":
        pytest.skip("no server of PostgreSQL is installed")
    make, control = programs
    user = "nobody" if os.geteuid() == 0 else None
    with tempfile.TemporaryDirectory(prefix="pg", dir="/tmp") as folder:  # a socket's path is short
        if user is not None:
            shutil.chown(folder, user)

        def run(*command):
            subprocess.run(command, user=user, cwd="/", check=True, stdout=subprocess.DEVNULL, timeout=60)

        run(make, "-D", f"{folder}/data", "-A", "trust", "-U", "slimzoo", "--no-sync", "--encoding=UTF8", "--locale=C")
        options = f"-k {folder} -c listen_addresses='' -c fsync=off"
        run(control, "-D", f"{folder}/data", "-w", "-l", f"{folder}/log", "-o", options, "start")
        yield lambda name: f"postgresql+psycopg://slimzoo@/{name}?host={folder}"
        run(control, "-D", f"{folder}/data", "-w", "-m", "immediate", "stop")


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request, tmp_path):
    """Of which `url_of` the test's folder is."""
    if request.param == "postgresql":
        reach = request.getfixturevalue("server")
        engine = create_engine(reach("postgres"), isolation_level="AUTOCOMMIT")
        name = f"d{uuid.uuid4().hex}"
        with engine.connect() as connection:
            connection.execute(text(f"CREATE DATABASE {name}"))
        engine.dispose()
        (tmp_path / "url").write_text(reach(name), encoding="utf-8")
    return request.param


def made(candidate):
    drop = PairedDrop(1.25, (-0.5, 3.0), 0.25, 200, 10)
    kept = Kept(Path(__file__).parent, "1", 2.5, False)
    metrics = {"size_bytes": 1000, "val": {"top1": 0.5, "correct": "01"}}
    return Trial(
        candidate.name,
        candidate,
        None,
        kept,
        metrics,
        drop,
        0.25,
        {"onnxruntime": 2.0, "openvino": 1.5},
        3e7,
        None,
        1.6,
    )


@pytest.fixture
def ledger(database, tmp_path):
    return opened(url_of(tmp_path), "one", ABOUT, seed=3)


def test_a_trial_comes_back_as_it_was(ledger, tmp_path):
    candidate = Candidate(0.4, int8=True, longer=True)
    assert ledger.attempt(candidate, made) == made(candidate)
    (found,) = opened(url_of(tmp_path), "one", {}, seed=3).trials()
    assert found == made(candidate).__class__(**{**vars(made(candidate)), "plan": candidate.plan(3)})
    assert (found.runtime, found.latency_ms) == ("openvino", 1.5)


@pytest.mark.parametrize(
    "candidate",
    [
        Candidate(0.333),
        Candidate(student="mobilenet_v2"),
        Candidate(int8=True),
        Candidate(0.1, int8=True, blocks=9),
        Candidate(0.2, side=64, criterion="l2", allocation="sensitivity"),
        Candidate(0.5, side=64, resized=True),
    ],
)
def test_what_is_asked_for_is_tried_as_it_is_and_nothing_near_it(ledger, candidate):
    space = Space((0, 9), (None, 64), (None, "l2"), (None, "sensitivity"), side=96)
    running = []

    def run(taken):
        running.extend(ledger.running())
        return made(taken)

    assert ledger.attempt(candidate, run, space).candidate == candidate
    assert running == [candidate]
    assert [trial.candidate for trial in ledger.trials()] == [candidate]
    assert ledger.attempt(candidate, run, space) is None


def test_what_fails_is_a_trial_too_and_is_not_tried_again(ledger):
    candidate = Candidate(0.3)
    ledger.attempt(candidate, lambda c: Trial(c.name, c, reason="no such widths"))
    (found,) = ledger.trials()
    assert (found.candidate, found.reason) == (candidate, "no such widths")
    assert ledger.attempt(candidate, lambda c: pytest.fail("again")) is None


def test_what_raises_is_free_again(ledger, capfd):
    def stop(candidate):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        ledger.attempt(Candidate(0.5), stop)
    assert capfd.readouterr().err == ""  # Optuna says nothing of it
    assert (ledger.trials(), ledger.running()) == ([], set())
    assert ledger.attempt(Candidate(0.5), made) is not None


def test_of_workers_that_come_at_once_one_takes_it_and_nothing_else_is_tried(ledger, tmp_path):
    """Each finds its candidate taken, or tries it: none does another's twice, or draws one that nobody asked for."""
    named, at_once, wrong = [Candidate(share / 100) for share in range(20, 80, 10)], threading.Barrier(3), []

    def work():
        mine = opened(url_of(tmp_path), "one", ABOUT, seed=3)
        for candidate in named:
            at_once.wait(60)
            try:
                mine.attempt(candidate, made)
            except Exception as error:
                wrong.append(error)
        mine.close()

    workers = [threading.Thread(target=work) for _ in range(3)]
    for each in workers:
        each.start()
    for each in workers:
        each.join()
    assert wrong == []
    assert sorted(t.name for t in ledger.trials()) == sorted(candidate.name for candidate in named)


def test_a_worker_that_slept_and_was_taken_for_dead_goes_on(ledger, tmp_path):
    others = opened(url_of(tmp_path), "one", ABOUT, seed=3)

    def sleeps(candidate):
        others._study.tell(0, state=TrialState.FAIL)
        return made(candidate)

    assert ledger.attempt(Candidate(0.5), sleeps) is None
    assert ledger.attempt(Candidate(0.5), made) == made(Candidate(0.5))


def test_a_worker_that_was_killed_before_it_said_who_it_is_holds_nobody_up(ledger, monkeypatch):
    ledger._storage.create_new_trial(ledger._study._study_id)  # with which `ask` begins, and no more
    assert ledger._study.get_trials()[0].state == TrialState.RUNNING
    ledger.running()
    assert ledger._study.get_trials()[0].state == TrialState.RUNNING, "it may be about to say so"
    monkeypatch.setattr(ledgers, "GRACE_S", -1)
    ledger.running()
    assert ledger._study.get_trials()[0].state == TrialState.FAIL


def test_the_sampler_draws_others_than_were_tried(ledger):
    space = Space((0, 5, 9), (None, 80, 64), (None, "l2"), (None, "isomorphic"), 96, {0: 1.0, 5: 0.5, 9: 0.2})
    ledger.attempt(Candidate(student="mobilenet_v2"), made, space)  # of which the sampler knows nothing
    ledger.attempt(Candidate(0.3, side=64, criterion="l2"), made, space)
    drawn = [ledger.attempt(None, made, space) for _ in range(20)]
    found = [trial.candidate for trial in drawn if trial is not None]
    assert len(set(found)) == len(found) >= 16
    assert {c.blocks for c in found} == {0, 5, 9}
    assert {c.side for c in found} == {None, 80, 64}
    assert {c.criterion for c in found} == {None, "l2"}
    assert {c.allocation for c in found} == {None, "isomorphic"}
    assert not any((c.criterion, c.allocation) == ("l2", "isomorphic") for c in found), "which is l2's own"
    for c in found:
        assert c.share is None or c.share <= space.left[c.blocks] * ((c.side or 96) / 96) ** 2, (
            "channels are left to cut"
        )
    assert ledger.drawn() == set(found)


def test_a_trial_whose_model_is_gone_is_tried_again(ledger, tmp_path):
    """It made room for others, or lies on another machine."""

    def making(candidate):
        (tmp_path / "step").mkdir()
        return replace(made(candidate), kept=Kept(tmp_path / "step", "1", 1.0, False))

    assert ledger.attempt(Candidate(0.5), making) is not None
    assert ledger.attempt(Candidate(0.5), making) is None
    (tmp_path / "step").rmdir()
    assert ledger.trials() == []
    assert ledger.attempt(Candidate(0.5), making) is not None
    assert len(ledger.trials()) == 1


def test_a_folder_may_have_any_name(tmp_path):
    folder = tmp_path / "a b#c & d"
    folder.mkdir()
    place = opened(url_of(folder), "one", ABOUT, seed=3).place
    assert joined(place).about == ABOUT
    assert joined(place).place == place


def test_a_search_is_joined_by_its_url(ledger, tmp_path):
    assert joined(url_of(tmp_path)).about == ABOUT
    opened(url_of(tmp_path), "two", ABOUT, seed=3)
    with pytest.raises(UsageError, match="2 searches are at work"):
        joined(url_of(tmp_path))
    assert joined(url_of(tmp_path) + "#two").about == ABOUT
    ledger.finish()
    assert joined(url_of(tmp_path)).about == ABOUT
    opened(url_of(tmp_path), "two", ABOUT, seed=3).finish()
    with pytest.raises(UsageError, match="no search is at work"):
        joined(url_of(tmp_path))


@pytest.mark.parametrize("url", ["nonsense", "sqlite:////nowhere/at/all/search.db", "nosuchdatabase://x/y"])
def test_a_database_that_cannot_be_opened_is_told_in_a_line(url):
    with pytest.raises(UsageError, match="cannot be opened") as told:
        joined(url)
    assert "\n" not in str(told.value)


def test_a_full_disk_is_told_as_such(tmp_path):
    """SQLite takes no more pages, as on a full disk."""
    ledger = opened(url_of(tmp_path), "one", ABOUT, seed=3)
    engine = ledger._storage.engine
    engine.dispose()
    event.listen(engine, "connect", lambda connection, record: connection.execute("PRAGMA max_page_count = 1"))

    def fill():
        for number in range(2000):  # until the last page is full
            ledger.say_times(f"{number}", {"latencies": {"onnxruntime": 1.0}, "said": "x" * 1000})

    with pytest.raises(OSError, match="No space left on device"):
        fill()


def worker(folder):
    command = [sys.executable, "-W", "error", "-c", WORKER, url_of(folder), str(folder / "log"), *map(str, SHARES)]
    return subprocess.Popen(command, stderr=subprocess.PIPE, encoding="utf-8")


def done(process):
    _, said = process.communicate(timeout=120)
    assert process.returncode == 0, said


def front(folder):
    trials = opened(url_of(folder), "one", ABOUT, seed=3).trials()
    return sorted((trial.name, trial.lost, trial.costs["size_bytes"]) for trial in trials)


def lines(folder):
    log = folder / "log"
    return [line.split() for line in log.read_text(encoding="utf-8").splitlines()] if log.exists() else []


@pytest.mark.parametrize("kills", [2, pytest.param(10, marks=pytest.mark.slow)])
def test_killed_workers_lose_no_trial_and_none_is_done_twice(kills, database, tmp_path):
    """SIGKILLs of two workers, in the middle of a trial: all candidates are tried, what was finished once only, and it
    is what one alone finds."""
    workers, hit = [worker(tmp_path), worker(tmp_path)], 0
    for turn in range(kills):
        victim = workers[turn % 2]
        while victim.poll() is None and not any(pid == str(victim.pid) for pid, _ in lines(tmp_path)):
            time.sleep(0.02)
        hit += victim.poll() is None
        victim.kill()
        victim.communicate()
        workers[turn % 2] = worker(tmp_path)
    for process in workers:
        done(process)
    assert hit >= kills // 2
    every = [Candidate(share, int8) for share in (None, *SHARES) for int8 in (False, True)]
    alone = [(c.name, pytest.approx(10 * (1 - (c.share or 1))), int(1e6 * (c.share or 1))) for c in every]
    assert front(tmp_path) == sorted(alone, key=lambda one: one[0])
    assert len(lines(tmp_path)) - len(alone) <= hit  # each may cost the one trial that was at work
    assert opened(url_of(tmp_path), "one", ABOUT, seed=3).running() == set()
