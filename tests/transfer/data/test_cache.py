"""The cache: made once and read again; never half, never in the way, never above its limit."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from transfer.data.cache import LIMIT_GB, cached_array, content_key
from zoo.disk import cache_directory
from zoo.errors import UsageError

ROWS = np.arange(60, dtype=np.float32).reshape(20, 3)


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("SLIMZOO_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv(LIMIT_GB, raising=False)
    return tmp_path / "cache"


class Rows:
    """Gives the rows in blocks of 7, and counts how often it was asked."""

    def __init__(self, rows=ROWS):
        self.rows, self.asked = rows, 0

    def __call__(self):
        self.asked += 1
        for start in range(0, len(self.rows), 7):
            yield self.rows[start : start + 7]


def ask(make, key="k", rows=ROWS, kind="features"):
    return cached_array(kind, key, shape=rows.shape, dtype=rows.dtype.type, make=make)


def files(cache):
    return sorted(path.name for path in cache.rglob("*") if path.is_file())


def test_made_once_and_mapped_read_only(cache):
    make = Rows()
    first, second = ask(make), ask(make)
    assert make.asked == 1
    for array in (first, second):
        np.testing.assert_array_equal(array, ROWS)
        assert isinstance(array, np.memmap)
        with pytest.raises(ValueError, match="read-only"):
            array[0, 0] = 1
    assert files(cache) == ["k.npy"]
    np.testing.assert_array_equal(np.load(cache / "features/k.npy"), ROWS)  # NumPy's own reader knows the file


@pytest.mark.parametrize("damage", [b"", b"\x93NUMPY", b"no array at all" * 50, 0.5, 0.99])
def test_damaged_file_is_made_again(cache, damage):
    make, path = Rows(), cache / "features/k.npy"
    ask(make)
    whole = path.read_bytes()
    path.write_bytes(damage if isinstance(damage, bytes) else whole[: int(damage * len(whole))])
    np.testing.assert_array_equal(ask(make), ROWS)
    assert make.asked == 2
    assert path.read_bytes() == whole


@pytest.mark.parametrize("other", [ROWS[:19], ROWS.astype(np.float64), np.asfortranarray(ROWS), ROWS.reshape(3, 20)])
def test_array_of_another_form_is_made_again(cache, other):
    make = Rows()
    ask(make)
    np.save(cache / "features/k.npy", other)
    np.testing.assert_array_equal(ask(make), ROWS)
    assert make.asked == 2


def test_pickle_is_never_opened(cache):
    (cache / "features").mkdir(parents=True)
    np.save(cache / "features/k.npy", np.array([{"a": 1}] * 20, dtype=object))
    np.testing.assert_array_equal(ask(Rows()), ROWS)


@pytest.mark.parametrize("place", ["/dev/null/nowhere", "a file"])
def test_unwritable_cache_is_no_error(place, tmp_path, monkeypatch):
    if place == "a file":
        place = tmp_path / "file"
        place.write_text("")
    monkeypatch.setenv("SLIMZOO_CACHE", str(place))
    make = Rows()
    for _ in range(2):
        array = ask(make)
        np.testing.assert_array_equal(array, ROWS)
        assert not array.flags.writeable  # as from the disk
    assert make.asked == 2


def test_disk_that_is_full_half_way(cache):
    rows = np.random.default_rng(0).normal(size=(4000, 50))
    resource = pytest.importorskip("resource", reason="this system limits no files")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, hard))  # of 1.6 MB; Python turns the signal into an OSError
    try:
        np.testing.assert_array_equal(ask(Rows(rows), rows=rows), rows)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert files(cache) == []
    ask(Rows(rows), rows=rows)
    assert files(cache) == ["k.npy"]


def test_an_error_of_the_maker_is_told_and_leaves_nothing(cache):
    def make():
        yield ROWS[:7]
        raise OSError("a drawer that does not open")  # of the maker, not of the cache

    with pytest.raises(OSError, match="drawer"):
        ask(make)
    assert files(cache) == []


def test_nothing_to_keep(cache):
    assert ask(Rows(ROWS[:0]), rows=ROWS[:0]).shape == (0, 3)
    assert files(cache) == []


def age(path, seconds):
    os.utime(path, (time.time() - seconds,) * 2)


def test_least_recently_used_go_first(cache, monkeypatch):
    monkeypatch.setenv(LIMIT_GB, str(1e-9 * 900))  # each file has 368 bytes, 240 of them numbers
    for key, seconds in (("oldest", 4000), ("older", 3000), ("old", 2000)):
        ask(Rows(), key, kind="pixels" if key == "older" else "features")
        if seconds:
            age(next(cache.rglob(f"{key}.npy")), seconds)
    assert files(cache) == ["old.npy", "older.npy"]  # the third did not fit beside the two before it
    ask(Rows(), "older", kind="pixels")  # used again: now `old` is the least recently used
    age(cache / "pixels/older.npy", 100)
    ask(Rows(), "new")
    assert files(cache) == ["new.npy", "older.npy"]


def test_what_is_in_use_is_kept_above_the_limit(cache, monkeypatch):
    monkeypatch.setenv(LIMIT_GB, str(1e-9 * 400))
    ask(Rows(), "one")
    ask(Rows(), "two")
    assert files(cache) == ["one.npy", "two.npy"]
    age(cache / "features/one.npy", 61)
    ask(Rows(), "three")
    assert files(cache) == ["three.npy", "two.npy"]


def test_mapped_file_survives_its_removal(cache, monkeypatch):
    array = ask(Rows(), "one")
    age(cache / "features/one.npy", 61)
    monkeypatch.setenv(LIMIT_GB, str(1e-9 * 400))
    ask(Rows(), "two")
    assert files(cache) == ["two.npy"]
    np.testing.assert_array_equal(array, ROWS)


def test_array_above_the_limit_is_mapped_and_not_kept(cache, monkeypatch):
    monkeypatch.setenv(LIMIT_GB, "0")
    array = ask(Rows())
    assert isinstance(array, np.memmap)
    np.testing.assert_array_equal(array, ROWS)
    assert files(cache) == []


def test_limit_that_is_no_number(monkeypatch):
    monkeypatch.setenv(LIMIT_GB, "ten")
    with pytest.raises(UsageError, match="SLIMZOO_CACHE_GB='ten': wanted a number"):
        ask(Rows())


MAKER = """
import sys, time
import numpy as np
from transfer.data.cache import cached_array
def make():
    for row in range(2000):
        yield np.full((1, 50), row, dtype=np.int64)
        if row == 1000: print("half", flush=True); time.sleep(float(sys.argv[1]))
array = cached_array("features", "k", shape=(2000, 50), dtype=np.int64, make=make)
assert (array == np.arange(2000)[:, None]).all()
"""


def test_several_processes_at_once_and_one_killed(cache):
    def process(wait):
        return subprocess.Popen([sys.executable, "-c", MAKER, wait], stdout=subprocess.PIPE, text=True)

    killed = process("60")
    assert killed.stdout.readline() == "half\n"
    together = [process("0.2") for _ in range(3)]
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    for one in (killed, *together):
        one.communicate()
    assert [one.returncode for one in together] == [0, 0, 0]
    whole = [name for name in files(cache) if name.endswith(".npy")]
    assert whole == ["k.npy"]
    left = next(cache.rglob("*.tmp"))  # what the kill left goes like any file that nobody uses
    age(left, 61)
    os.environ[LIMIT_GB] = str(1e-9 * 900_000)
    try:
        ask(Rows(), "new")
    finally:
        del os.environ[LIMIT_GB]
    assert files(cache) == ["k.npy", "new.npy"]


def test_where_it_is(monkeypatch, tmp_path):
    assert cache_directory() == tmp_path / "cache"
    monkeypatch.delenv("SLIMZOO_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_directory() == tmp_path / "slimzoo"


def test_keys_differ_where_the_lines_do():
    keys = [
        content_key("ab", ["c"]),
        content_key("a", ["bc"]),
        content_key("ab", "c", ""),
        content_key("ab", ["c", ""]),
    ]
    assert content_key("ab", ["c"]) == content_key("ab", iter(["c"])) == content_key("ab", "c")
    assert len(set(keys)) == len(keys)
