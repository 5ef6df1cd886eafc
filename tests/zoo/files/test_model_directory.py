"""The model directory: the same bits in a fresh process, damage named, and nothing half-written wherever it fails."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from compress.pruning.structured import prune_channels
from zoo.cost import count_parameters
from zoo.create import create_model
from zoo.errors import Interrupted, SlimzooError, UsageError
from zoo.files.directory import check_free, new_directory, partial_of
from zoo.files.manifest import read_manifest, replace_files, verify_manifest
from zoo.files.model_directory import ModelConfig, load_model, read_config, save_model
from zoo.models.lenet import TINY
from zoo.preprocess import Preprocess

RUN = {"verb": "test", "arguments": {}}
GREY = Preprocess(size=(28, 28), mean=(0.5,), std=(0.5,))

LOAD_IN_A_FRESH_PROCESS = """
import sys
import numpy, torch
from zoo.files.model_directory import load_model
torch.set_num_threads(1)
directory, inputs, outputs = sys.argv[1:]
with torch.no_grad():
    numpy.save(outputs, load_model(directory).model(torch.from_numpy(numpy.load(inputs))).numpy())
"""


def save(directory, model, architecture, model_args, preprocess):
    config = ModelConfig(architecture=architecture, model_args=model_args, classes=None, preprocess=preprocess)
    with new_directory(directory, run=RUN) as work:
        save_model(work, model, config)


@pytest.fixture
def lenet(tmp_path):
    model = create_model("lenet5", **TINY["lenet5"]).eval()
    save(tmp_path / "lenet", model, "lenet5", TINY["lenet5"], GREY)
    return tmp_path / "lenet"


def assert_same_bits_in_a_fresh_process(tmp_path, name, model_args, size):
    torch.manual_seed(0)
    model = create_model(name, **model_args).eval()
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.uniform_(-0.1, 0.1)
            module.running_var.uniform_(0.5, 1.5)
    pruned = prune_channels(model, (3, size, size), macs=0.5).model
    assert count_parameters(pruned) < 0.9 * count_parameters(model)
    save(tmp_path / "pruned", pruned, name, model_args, Preprocess(size=(size, size)))

    images = torch.randn(2, 3, size, size)
    with torch.no_grad():
        expected = pruned(images).numpy()
    np.save(tmp_path / "inputs.npy", images.numpy())
    command = [sys.executable, "-c", LOAD_IN_A_FRESH_PROCESS]
    subprocess.run([*command, *(tmp_path / n for n in ("pruned", "inputs.npy", "outputs.npy"))], check=True)
    assert np.load(tmp_path / "outputs.npy").tobytes() == expected.tobytes()
    assert expected.std() > 0


def test_pruned_resnet18_has_the_same_bits_in_a_fresh_process(tmp_path):
    assert_same_bits_in_a_fresh_process(tmp_path, "resnet18", {"num_classes": 10}, 64)


@pytest.mark.slow
def test_pruned_densenet121_of_timm_has_the_same_bits_in_a_fresh_process(tmp_path):
    assert_same_bits_in_a_fresh_process(tmp_path, "timm:densenet121", {"num_classes": 10}, 64)


def test_config_survives(tmp_path):
    config = ModelConfig(
        architecture="lenet5",
        model_args=TINY["lenet5"],
        classes=("zero", "Ünö", *"23456789"),
        preprocess=GREY,
        lineage=[{"verb": "fit", "metrics": {"after": {"params": 1}}}],
    )
    with new_directory(tmp_path / "m", run=RUN) as work:
        written = save_model(work, create_model("lenet5", **TINY["lenet5"]), config)
    assert read_config(tmp_path / "m") == written == config
    document = json.loads((tmp_path / "m" / "config.json").read_text(encoding="utf-8"))
    assert list(document)[:5] == ["architecture", "num_classes", "label_names", "model_args", "pretrained_cfg"]
    assert document["num_classes"] == 10
    assert document["pretrained_cfg"]["input_size"] == [1, 28, 28]


def test_manifest_is_what_sha256sum_checks(lenet):
    checked = subprocess.run(["sha256sum", "--check", "MANIFEST.sha256"], cwd=lenet, capture_output=True, text=True)
    assert checked.returncode == 0, checked.stderr
    assert set(checked.stdout.split()) >= {"config.json:", "model.safetensors:", "OK"}


def test_files_are_readable_by_whom_the_umask_allows(lenet):
    umask = os.umask(0)
    os.umask(umask)
    assert {p.stat().st_mode & 0o777 for p in lenet.iterdir()} == {0o666 & ~umask}


@pytest.mark.parametrize("name", ["model.safetensors", "config.json"])
def test_one_damaged_byte_is_caught_and_the_file_named(lenet, name):
    content = bytearray((lenet / name).read_bytes())
    content[len(content) // 2] ^= 1
    (lenet / name).write_bytes(content)
    with pytest.raises(SlimzooError, match=rf"{name} is not what MANIFEST\.sha256 says"):
        load_model(lenet)


def test_missing_file_is_named(lenet):
    (lenet / "model.safetensors").unlink()
    with pytest.raises(SlimzooError, match=r"model\.safetensors is listed in MANIFEST\.sha256 and missing"):
        load_model(lenet)


def rewrite_config(directory, change):
    document = json.loads((directory / "config.json").read_text())
    change(document)
    replace_files(directory, {"config.json": json.dumps(document).encode()})


def test_newer_format_is_refused(lenet):
    rewrite_config(lenet, lambda document: document["slimzoo"].update(format=2))
    with pytest.raises(SlimzooError, match="is of format 2, this version reads up to 1; upgrade slimzoo"):
        load_model(lenet)


def test_unknown_surgery_is_refused(lenet):
    rewrite_config(lenet, lambda document: document["slimzoo"]["surgery"].append({"op": "transplant"}))
    with pytest.raises(ValueError, match="'transplant' is unknown to this version"):
        load_model(lenet)


def test_directory_of_another_library_is_refused(lenet):
    rewrite_config(lenet, lambda document: document.pop("slimzoo"))
    with pytest.raises(SlimzooError, match="not a model that slimzoo wrote"):
        load_model(lenet)


def test_int8_directory_is_not_loaded_as_a_network(lenet):
    rewrite_config(lenet, lambda document: document["slimzoo"].update(primary="model.onnx"))
    with pytest.raises(UsageError, match="holds only the int8 ONNX model"):
        load_model(lenet)


# a directory appears whole or not at all


class Crash(Exception):
    pass


def test_directory_appears_at_the_end_only(tmp_path):
    out = tmp_path / "out"
    with new_directory(out, run=RUN) as work:
        (work / "a").mkdir()
        (work / "a" / "b.txt").write_text("b")
        assert not out.exists()
        assert json.loads((work / "run.json").read_text())["verb"] == "test"
    assert sorted(p.relative_to(out).as_posix() for p in out.rglob("*")) == ["MANIFEST.sha256", "a", "a/b.txt"]
    assert read_manifest(out) == {"a/b.txt": {hashlib.sha256(b"b").hexdigest()}}
    assert list(tmp_path.iterdir()) == [out]


@pytest.mark.parametrize(
    ("error", "kind", "message"),
    [
        (Crash("boom"), Crash, "boom"),
        (KeyboardInterrupt(), Interrupted, "interrupted; nothing was written"),
        (OSError(errno.ENOSPC, "no space"), SlimzooError, "disk of .*out is full: free some space"),
        (OSError(errno.EFBIG, "too large"), SlimzooError, "disk of .*out is full"),
    ],
)
def test_crash_inside_leaves_nothing(tmp_path, error, kind, message):
    def work_and_fail():
        with new_directory(tmp_path / "out", run=RUN) as work:
            (work / "model.safetensors").write_text("half")
            raise error

    with pytest.raises(kind, match=message):
        work_and_fail()
    assert list(tmp_path.iterdir()) == []


def interrupted_with_a_checkpoint(out, **how):
    with new_directory(out, run=RUN, **how) as work:
        (work / "checkpoints" / "step-1").mkdir(parents=True)
        (work / "checkpoints" / "step-1" / "state.json").write_text("{}")
        raise KeyboardInterrupt


def test_crash_with_a_checkpoint_leaves_it_to_resume(tmp_path):
    out = tmp_path / "out"
    with pytest.raises(Interrupted, match=r"continue with `slimzoo resume .*out`"):
        interrupted_with_a_checkpoint(out)
    assert not out.exists()
    with pytest.raises(UsageError, match="holds an interrupted run; continue it with `slimzoo resume"):
        check_free(out)
    with new_directory(out, run=RUN, resume=True) as work:
        assert (work / "checkpoints" / "step-1" / "state.json").exists()
        (work / "result").write_text("done")
    assert sorted(p.name for p in out.iterdir()) == ["MANIFEST.sha256", "result"]
    assert not partial_of(out).exists()


def test_a_directory_in_which_another_process_is_at_work_is_left_alone(tmp_path):
    """Until that has ended, in whatever way."""
    code = (
        "import sys, time; from pathlib import Path; from zoo.files.directory import new_directory\n"
        "with new_directory(Path(sys.argv[1]), run={}) as work:\n"
        "    (work / 'checkpoints' / 'step-1').mkdir(parents=True)\n"
        "    (work / 'checkpoints' / 'step-1' / 'state.json').write_text('{}')\n"
        "    print('ready', flush=True); time.sleep(60)"
    )
    out = tmp_path / "out"
    with subprocess.Popen([sys.executable, "-c", code, out], stdout=subprocess.PIPE, encoding="utf-8") as other:
        assert other.stdout.readline() == "ready\n"
        for how in ({}, {"resume": True}, {"overwrite": True}):
            with pytest.raises(UsageError, match=f"process {other.pid} is at work in .*out.partial"):
                check_free(out, **how)
        other.kill()
    with new_directory(out, run=RUN, resume=True) as work:
        (work / "result").write_text("done")
    assert (out / "result").is_file()


def test_overwriting_run_can_be_resumed(tmp_path):
    out = tmp_path / "out"
    with new_directory(out, run=RUN) as work:
        (work / "result").write_text("old")
    with pytest.raises(Interrupted):
        interrupted_with_a_checkpoint(out, overwrite=True)
    assert (out / "result").read_text() == "old"
    with new_directory(out, run=RUN, resume=True) as work:
        (work / "result").write_text("new")
    assert (out / "result").read_text() == "new"
    assert list(tmp_path.iterdir()) == [out]


def test_crash_while_overwriting_keeps_the_old(tmp_path, monkeypatch):
    out = tmp_path / "out"
    with new_directory(out, run=RUN) as work:
        (work / "result").write_text("old")
    rename = os.rename

    def refuse_the_new(source, target):
        if Path(source) == partial_of(out):
            raise Crash
        rename(source, target)

    monkeypatch.setattr(os, "rename", refuse_the_new)

    def replace_it():
        with new_directory(out, run=RUN, overwrite=True) as work:
            (work / "result").write_text("new")

    with pytest.raises(Crash):
        replace_it()
    verify_manifest(out)
    assert (out / "result").read_text() == "old"
    assert list(tmp_path.iterdir()) == [out]


def test_overwriting_replaces_what_slimzoo_made(lenet):
    save(lenet.with_name("other"), load_model(lenet).model, "lenet5", TINY["lenet5"], GREY)
    with pytest.raises(
        UsageError, match="exists and is not empty; name another out, or replace it with overwrite=True"
    ):
        check_free(lenet)
    with new_directory(lenet, run=RUN, overwrite=True) as work:
        (work / "new.txt").write_text("new")
    assert sorted(p.name for p in lenet.iterdir()) == ["MANIFEST.sha256", "new.txt"]
    assert sorted(p.name for p in lenet.parent.iterdir()) == ["lenet", "other"]


def test_overwriting_refuses_what_is_not_ours(lenet):
    home = lenet.parent  # a model directory inside, and something else beside it
    check_free(home, overwrite=True)  # nothing but our directories: ours
    (home / "thesis.txt").write_text("years of work")
    with pytest.raises(UsageError, match="was not made by slimzoo and is left alone"):
        check_free(home, overwrite=True)
    (home / "file").write_text("")
    with pytest.raises(UsageError, match="is a file"):
        check_free(home / "file", overwrite=True)


def test_neighbours_of_the_same_name_are_left_alone(lenet):
    photos = lenet.with_name("lenet.old")
    photos.mkdir()
    (photos / "cat.jpg").write_text("miaow")
    with new_directory(lenet, run=RUN, overwrite=True) as work:
        (work / "new.txt").write_text("new")
    assert (photos / "cat.jpg").read_text() == "miaow"
    mine = lenet.with_name("model.partial")
    mine.mkdir()
    (mine / "notes.txt").write_text("mine")
    with pytest.raises(UsageError, match=r"model\.partial was not made by slimzoo and is in the way"):
        check_free(lenet.with_name("model"), overwrite=True)
    assert (mine / "notes.txt").read_text() == "mine"


# replacing files of a finished directory: three renames, and a crash before, between and after them


def new_files(directory):
    document = json.loads((directory / "config.json").read_text())
    document["slimzoo"]["lineage"].append({"verb": "export"})
    return {"model.onnx": b"graph", "config.json": json.dumps(document).encode()}


@pytest.mark.parametrize("renames", range(4))
def test_directory_loads_after_a_failure_at_any_rename(lenet, monkeypatch, renames):
    files, before = new_files(lenet), sorted(p.name for p in lenet.iterdir())
    replace, calls = os.replace, []

    def fail_later(source, target):
        if len(calls) == renames:
            raise Crash
        calls.append(target)
        replace(source, target)

    monkeypatch.setattr(os, "replace", fail_later)
    with pytest.raises(Crash):
        replace_files(lenet, files)
    monkeypatch.undo()
    assert_loads_and_can_be_replaced(lenet, files, before)


DIE_AT_A_RENAME = """
import os, pathlib, sys
from zoo.files.manifest import replace_files
directory, source, allowed = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2]), int(sys.argv[3])
replace, calls = os.replace, []
def die_later(a, b):
    if len(calls) == allowed:
        os._exit(9)  # as a power cut: no handler runs
    calls.append(b)
    replace(a, b)
os.replace = die_later
replace_files(directory, {p.name: p.read_bytes() for p in sorted(source.iterdir(), reverse=True)})
"""


@pytest.mark.parametrize("renames", range(4))
def test_directory_loads_after_dying_at_any_rename(lenet, tmp_path, renames):
    files = new_files(lenet)
    (tmp_path / "files").mkdir()
    for name, content in files.items():
        (tmp_path / "files" / name).write_bytes(content)
    command = [sys.executable, "-c", DIE_AT_A_RENAME, lenet, tmp_path / "files", str(renames)]
    assert subprocess.run(command).returncode == 9
    assert_loads_and_can_be_replaced(lenet, files, None)


def assert_loads_and_can_be_replaced(directory, files, before):
    load_model(directory)  # checks the manifest
    if before is not None:  # nothing left lying about but what was asked for
        assert {p.name for p in directory.iterdir()} <= {*before, "model.onnx"}
    replace_files(directory, files)
    assert [step["verb"] for step in load_model(directory).config.lineage] == ["export"]
    assert all(len(digests) == 1 for digests in read_manifest(directory).values())
    (directory / "model.onnx").write_bytes(b"grape")
    with pytest.raises(SlimzooError, match=r"model\.onnx is not what"):
        load_model(directory)


@pytest.mark.parametrize(("number", "said"), [(float("nan"), "are NaN"), (float("inf"), "are infinite")])
@pytest.mark.parametrize("name", ["fc.weight", "bn1.running_var"])
def test_weights_that_are_no_numbers_are_named(tmp_path, name, number, said):
    """Before anything is run: a directory that is whole by its manifest."""
    model = create_model("resnet20", width=4, stages=(1, 1, 1), num_classes=2)
    model.state_dict()[name].view(-1)[1] = number
    config = ModelConfig(
        architecture="resnet20",
        model_args={"width": 4, "stages": [1, 1, 1], "num_classes": 2},
        classes=("a", "b"),
        preprocess=Preprocess(size=(32, 32)),
    )
    with new_directory(tmp_path / "DIR", run={}) as work:
        save_model(work, model, config)
    with pytest.raises(UsageError, match=rf"DIR.*: 1 of the [\d,]+ values of '{name}' {said}"):
        load_model(tmp_path / "DIR")
