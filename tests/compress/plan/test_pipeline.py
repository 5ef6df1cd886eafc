"""Steps are done once, whoever asks; what changes what they make makes another step of them."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from compress.plan import pipeline as module
from compress.plan.pipeline import Pipeline, content_of
from compress.plan.plan import PlannedStep
from compress.pruning.settings import Prune
from compress.quantization.settings import Quantize
from transfer.fitting.settings import Fit
from zoo.disk import sha256
from zoo.errors import UsageError
from zoo.files.directory import partial_of
from zoo.files.manifest import MANIFEST
from zoo.lineage import located

FIT = {"model": "lenet5_caffe", "method": "scratch", "epochs": 1, "size": 28}


def step(**more):
    return PlannedStep("fit", Fit(**FIT | more))


CUT = PlannedStep("prune", Prune(macs=0.5, recover=0, criterion="l2"))


@pytest.fixture
def pipeline(photos, tmp_path):
    return Pipeline(photos, folder=tmp_path / "steps")


def test_a_step_is_done_once_and_the_next_from_it(pipeline, photos, tmp_path):
    fitted = pipeline.done(step())
    cut = pipeline.done(CUT, fitted)
    assert not fitted.reused
    assert not cut.reused
    before = {
        path: sha256(path) for path in (tmp_path / "steps").rglob("*") if path.suffix != ".lock" and path.is_file()
    }
    again = Pipeline(photos, folder=tmp_path / "steps")
    assert again.is_done(step(), None)
    base = again.done(step())
    assert (base.path, base.reused, base.seconds) == (fitted.path, True, fitted.seconds)
    assert again.done(CUT, base) == module.Kept(cut.path, cut.key, cut.seconds, True)
    assert {path: sha256(path) for path in before} == before


def test_what_a_step_depends_on_is_in_its_key(pipeline, photos, tmp_path, monkeypatch):
    key = pipeline.key(step(), None)
    kept = module.Kept(tmp_path, "one", 0.0, True)
    others = {
        pipeline.key(step(seed=1), None),
        pipeline.key(step(epochs=2), None),
        pipeline.key(step(), kept),
        pipeline.key(step(), module.Kept(tmp_path, "two", 0.0, True)),
        Pipeline("digits", folder=tmp_path).key(step(), None),
        Pipeline(changed(photos, tmp_path), folder=tmp_path).key(step(), None),
    }
    monkeypatch.setattr(module, "code", lambda: "other code")
    others.add(pipeline.key(step(), None))
    monkeypatch.undo()
    monkeypatch.setattr(module, "versions", lambda: {"torch": "1"})
    others.add(pipeline.key(step(), None))
    assert len(others | {key}) == 9


def test_what_settings_name_is_in_a_key_by_what_lies_there(pipeline, tmp_path, photos):
    backbone, more = tmp_path / "backbone.safetensors", tmp_path / "more"
    backbone.write_bytes(b"one")
    more.mkdir()
    (more / "1.png").write_bytes(b"one")
    steps = [PlannedStep("fit", Fit(model=str(backbone))), PlannedStep("prune", Prune(macs=0.5, unlabeled=str(more)))]
    before = [pipeline.key(each, None) for each in steps]
    assert [pipeline.key(each, None) for each in steps] == before
    backbone.write_bytes(b"two")
    (more / "2.png").write_bytes(b"two")
    assert not {pipeline.key(each, None) for each in steps} & set(before)


def test_where_it_lies_and_how_it_is_named_is_not_in_a_key(pipeline, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for folder in (tmp_path, tmp_path / "moved"):
        folder.mkdir(exist_ok=True)
        (folder / "backbone.safetensors").write_bytes(b"one")
    named = ["backbone.safetensors", "./backbone.safetensors", str(tmp_path / "moved" / "backbone.safetensors")]
    assert len({pipeline.key(PlannedStep("fit", Fit(model=name)), None) for name in named}) == 1


def test_a_folder_that_is_called_as_the_model_is_no_input(pipeline, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    before = pipeline.key(step(), None)
    (tmp_path / FIT["model"]).mkdir()
    (tmp_path / FIT["model"] / "large").write_bytes(b"one")
    assert pipeline.key(step(), None) == before
    assert Fit(model=FIT["model"]).arguments(located)["model"] == FIT["model"]
    (tmp_path / FIT["model"] / "config.json").write_text("{}", encoding="utf-8")
    assert Fit(model=FIT["model"]).arguments(located)["model"] == str(tmp_path / FIT["model"])


def test_ones_own_code_is_in_a_key(pipeline, tmp_path, monkeypatch):
    """And what lies at a place of timm's."""
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "of_mine.py").write_text("def least(*given): return 1", encoding="utf-8")
    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs" / "weights.bin").write_bytes(b"one")
    steps = [
        PlannedStep("prune", Prune(macs=0.5, criterion="of_mine:least")),
        PlannedStep("fit", Fit(model=f"timm:local-dir:{tmp_path / 'theirs'}")),
    ]
    before = [pipeline.key(each, None) for each in steps]
    assert [pipeline.key(each, None) for each in steps] == before
    (tmp_path / "of_mine.py").write_text("def least(*given): return 2", encoding="utf-8")
    (tmp_path / "theirs" / "weights.bin").write_bytes(b"three")
    assert not {pipeline.key(each, None) for each in steps} & set(before)


def test_a_folder_that_is_called_as_a_method_is_no_input(pipeline, tmp_path, monkeypatch):
    """A cluster's scratch folder is not read through."""
    monkeypatch.chdir(tmp_path)
    before = pipeline.key(step(), None)
    (tmp_path / "scratch").mkdir()
    (tmp_path / "scratch" / "large").write_bytes(b"one")
    assert pipeline.key(step(), None) == before


def test_int8_for_this_processor_is_another_step_on_another(pipeline, monkeypatch):
    this, any_other = PlannedStep("quantize", Quantize()), PlannedStep("quantize", Quantize(machine="any"))
    before = [pipeline.key(each, None) for each in (this, any_other)]
    monkeypatch.setattr(module, "best_scheme", lambda: "another")
    after = [pipeline.key(each, None) for each in (this, any_other)]
    assert after[0] != before[0]
    assert after[1] == before[1]


def test_what_others_are_at_is_no_room_to_be_made(pipeline, monkeypatch):
    """A step of another process vanishes under its name in work, and the one that is used stays."""
    monkeypatch.setattr(module, "MOST_BYTES", 1.0)
    fitted = pipeline.done(step())
    (at_work := pipeline.folder / "key.partial").mkdir()
    (at_work / MANIFEST).write_text("", encoding="utf-8")
    cut = pipeline.done(CUT, fitted)
    assert cut.path.exists()
    assert at_work.exists()


def changed(photos, folder):
    """The same images but for one grey level of one."""
    held = dict(np.load(photos))
    held["images"][3, 4, 5, 0] ^= 1
    np.savez(folder / "changed.npz", **held)
    return folder / "changed.npz"


def test_images_that_were_moved_are_the_same(photos, tmp_path):
    shutil.copy(photos, tmp_path / "elsewhere.npz")
    assert content_of(photos) == content_of(tmp_path / "elsewhere.npz")


def test_images_in_another_order_are_others(photos, tmp_path):
    """They would be divided otherwise."""
    held = dict(np.load(photos))
    np.savez(tmp_path / "turned.npz", images=held["images"][::-1], labels=held["labels"][::-1])
    assert content_of(photos) != content_of(tmp_path / "turned.npz")


def test_a_directory_of_timms_is_known_by_its_files(tmp_path):
    (tmp_path / "config.json").write_text('{"architecture": "resnet18"}', encoding="utf-8")
    (tmp_path / "model.safetensors").write_bytes(b"one")
    before = content_of(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"two")
    assert content_of(tmp_path) != before


def test_our_own_code_is_read_whole():
    """A file more, or a byte of one, is other code; see `code`."""
    files = [
        path for package in module.PACKAGES for path in Path(module.__file__).parents[2].joinpath(package).rglob("*.py")
    ]
    assert len(files) > 300
    assert len(module.code()) == 64


def test_what_was_damaged_is_made_again(pipeline):
    fitted = pipeline.done(step())
    weights = fitted.path / "model.safetensors"
    good = weights.read_bytes()
    weights.write_bytes(good[:-1] + bytes([good[-1] ^ 1]))
    assert not pipeline.is_done(step(), None)
    assert not pipeline.done(step()).reused
    assert weights.read_bytes() == good


def test_a_step_that_fails_is_not_kept_and_says_why(pipeline):
    fitted = pipeline.done(step())
    impossible = PlannedStep("prune", Prune(macs=1e-6, recover=0, criterion="l2"))
    for _ in range(2):
        with pytest.raises(UsageError, match="below what"):
            pipeline.done(impossible, fitted)
    assert not pipeline.is_done(impossible, fitted)


def test_a_training_that_was_interrupted_goes_on(photos, tmp_path, monkeypatch):
    """It ends with the bytes of one that was not."""
    whole = Pipeline(photos, folder=tmp_path / "whole").done(step(epochs=4))

    def progress(title, done, total, note=""):
        if stop and title == "scratch" and done > total / 2:
            raise KeyboardInterrupt

    titles = []
    stop = True
    monkeypatch.setattr("transfer.training.boundary.CHECKPOINT_STEPS", 1)
    stopped = Pipeline(photos, folder=tmp_path / "stopped", progress=lambda *a: (titles.append(a), progress(*a)))
    with pytest.raises(KeyboardInterrupt):
        stopped.done(step(epochs=4))
    place = stopped.folder / stopped.key(step(epochs=4), None)
    assert partial_of(place).is_dir()
    stop = False
    titles.clear()
    resumed = stopped.done(step(epochs=4))
    first = next(done for title, done, *_ in titles if title == "scratch")
    assert first > 1  # it did not begin anew
    assert sha256(resumed.path / "model.safetensors") == sha256(whole.path / "model.safetensors")


WORKER = """
import sys
from compress.plan.pipeline import Pipeline
from compress.plan.plan import PlannedStep
from transfer.fitting.settings import Fit
kept = Pipeline(sys.argv[1], folder=__import__("pathlib").Path(sys.argv[2])).done(
    PlannedStep("fit", Fit(model="lenet5_caffe", method="scratch", epochs=1, size=28)))
print("reused", kept.reused)
"""


def test_of_several_processes_one_does_the_work(photos, tmp_path):
    command = [sys.executable, "-c", WORKER, str(photos), str(tmp_path / "steps")]
    workers = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    said = sorted(worker.communicate()[0].splitlines()[-1] for worker in workers)
    assert said == ["reused False", "reused True"]


def test_the_oldest_goes_when_there_is_no_room(pipeline, monkeypatch):
    first, second = pipeline.done(step(seed=1)), pipeline.done(step(seed=2))
    pipeline.done(step(seed=1))  # it is of use
    size = sum(path.stat().st_size for path in first.path.iterdir())
    monkeypatch.setattr(module, "MOST_BYTES", 2.5 * size)
    third = Pipeline(pipeline.data, folder=pipeline.folder).done(step(seed=3))
    there = {path.parent for path in pipeline.folder.glob(f"*/{MANIFEST}")}
    assert there == {first.path, third.path}
    assert second.path not in there


def test_what_a_run_has_made_stays_as_long_as_it_goes_on(pipeline, monkeypatch):
    """However much that is: in the end it chooses among all of it."""
    monkeypatch.setattr(module, "MOST_BYTES", 1.0)
    made = [pipeline.done(step(seed=seed)) for seed in (1, 2)]
    assert all(each.path.exists() for each in made)
    Pipeline(pipeline.data, folder=pipeline.folder).done(step(seed=3))
    assert not any(each.path.exists() for each in made)


def test_what_is_remembered_is_asked_once(pipeline):
    asked = []

    def make():
        asked.append(1)
        return {"ms": 1.5}

    assert [pipeline.remembered("speed", ["a"], make) for _ in range(3)] == [{"ms": 1.5}] * 3
    pipeline.remembered("speed", ["b"], make)
    assert len(asked) == 2


def test_what_is_worth_nothing_to_others_is_asked_again(pipeline):
    """Whoever kept it had no use for the rest."""
    answers = iter([{"disturbed": True}, {"disturbed": False}])
    asked = [pipeline.remembered("speed", ["c"], lambda: next(answers), **how) for how in ({}, CALM, CALM, {})]
    assert [found["disturbed"] for found in asked] == [True, False, False, False]


CALM = {"keeps": lambda found: not found["disturbed"]}


def test_what_is_whole_counts_though_nobody_could_note_how_long_it_took(pipeline, monkeypatch):
    """The disk was full by then, or the process killed."""
    fitted = pipeline.done(step())
    fitted.path.with_suffix(".json").unlink()
    assert pipeline.is_done(step(), None)
    again = pipeline.done(step())
    assert (again.reused, again.seconds) == (True, 0.0)


def test_an_export_that_was_interrupted_is_none(pipeline, monkeypatch):
    fitted = pipeline.done(step())
    with monkeypatch.context() as patch:
        patch.setattr(module, "export", lambda *given, **more: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            pipeline.exported(fitted)
    assert (pipeline.exported(fitted) / "model.onnx").is_file()
    assert (pipeline.exported(fitted) / "deploy").is_dir()


def test_what_others_have_made_for_this_run_is_spared(pipeline, monkeypatch):
    fitted = pipeline.done(step())
    monkeypatch.setattr(module, "MOST_BYTES", 1.0)
    other = Pipeline(pipeline.data, folder=pipeline.folder)
    other.spare(fitted)
    other.done(step(seed=2))
    assert fitted.path.exists()


def test_what_makes_room_goes_whole(pipeline, monkeypatch):
    """A process that is killed meanwhile leaves no part of it under its name."""
    fitted, remove = pipeline.done(step()), shutil.rmtree

    def killed(path, **how):
        if not str(path).endswith(".gone"):
            remove(path, **how)

    monkeypatch.setattr(module, "MOST_BYTES", 1.0)
    with monkeypatch.context() as patch:
        patch.setattr(module.shutil, "rmtree", killed)
        Pipeline(pipeline.data, folder=pipeline.folder).done(step(seed=2))
    assert not fitted.path.exists()
    gone = fitted.path.with_suffix(".gone")
    assert gone.is_dir()
    Pipeline(pipeline.data, folder=pipeline.folder).done(step(seed=3))
    assert not gone.exists()
    assert not pipeline.done(step()).reused
