"""Checkpoints: what is in them, that damage is noticed, which ones are kept, and that a failed one harms nothing."""

from __future__ import annotations

import json
import os
from hashlib import sha256
from itertools import count

import numpy as np
import pytest
import torch

from transfer.training.checkpoint import Checkpoint, newest_checkpoint, save_checkpoint
from transfer.training.ema import Ema
from transfer.training.optim import build_optimizer
from transfer.training.recipe import Recipe
from transfer.training.run_state import Epoch, RunState, Sums
from transfer.training.step import Stepper
from zoo.create import create_model
from zoo.errors import SlimzooError
from zoo.files.directory import has_checkpoint
from zoo.models import resnet


def checkpoint(step, *, boundary=True, halvings=0):
    state = {"step": step, "boundary": boundary, "halvings": halvings}
    return Checkpoint(state, {"model": {"weight": torch.full((3, 4), float(step))}, "optimizer": {}})


def names(directory):
    return sorted(path.name for path in directory.iterdir())


def run_state(seed, **fields):
    torch.manual_seed(seed)
    model = create_model("resnet20", **resnet.TINY["resnet20"]).to(memory_format=torch.channels_last)
    recipe = Recipe(**fields)
    optimizer = build_optimizer(model, recipe)
    return RunState(model, optimizer, Stepper(model, optimizer, recipe), Ema(model, 0.9))


@pytest.mark.parametrize("optimizer", ["sgd", "adagrad", "rmsprop", "adam", "adamw"])
def test_checkpoint_brings_everything_back(tmp_path, optimizer):
    state = run_state(0, optimizer=optimizer)
    for _ in range(3):
        for parameter in state.model.parameters():
            parameter.grad = torch.randn_like(parameter)
        state.optimizer.step()
        state.ema.update_(state.model)
    state.step, state.halvings, state.stepper.micro_batch = 7, 1, 4
    state.sums, state.history = Sums(loss=0.1 + 0.2, norm=3.5), [Epoch(1, 1 / 3, 0.5, 1.25, 1e-3, 0.01, 2.5)]
    state.best = {name: tensor.clone() for name, tensor in state.model.state_dict().items()}
    kept = state.capture({"recipe": {}}, boundary=True)
    save_checkpoint(tmp_path, kept)
    found = newest_checkpoint(tmp_path)
    assert found.state == kept.state
    other = run_state(1, optimizer=optimizer)
    for parameter in other.model.parameters():
        parameter.grad = torch.randn_like(parameter)
    other.optimizer.step()
    other.restore_(found)
    again = other.capture({"recipe": {}}, boundary=True)
    assert again.state == kept.state
    assert {file: set(tensors) for file, tensors in again.tensors.items()} == {
        file: set(tensors) for file, tensors in kept.tensors.items()
    }
    for file, tensors in kept.tensors.items():
        for name, tensor in tensors.items():
            assert torch.equal(again.tensors[file][name], tensor), f"{file}: {name}"
    # and the next step is the same one
    for each in (state, other):
        torch.manual_seed(2)
        for parameter in each.model.parameters():
            parameter.grad = torch.randn(parameter.shape)
        each.optimizer.param_groups[0]["lr"] = 0.1
        each.optimizer.step()
    for one, two in zip(state.model.parameters(), other.model.parameters(), strict=True):
        assert torch.equal(one, two)
    assert not torch.equal(next(state.model.parameters()).cpu(), kept.tensors["model"]["conv1.weight"])


def test_files_are_safetensors_json_and_a_manifest_that_sha256sum_reads(tmp_path):
    place = save_checkpoint(tmp_path, run_state(0).capture({}, boundary=True))
    assert place.name == "step-0000000"
    assert names(place) == [
        "MANIFEST.sha256",
        "ema.safetensors",
        "model.safetensors",
        "optimizer.safetensors",
        "state.json",
    ]
    for line in (place / "MANIFEST.sha256").read_text().splitlines():
        digest, name = line.split("  ")
        assert sha256((place / name).read_bytes()).hexdigest() == digest


def test_a_directory_without_checkpoints_has_none(tmp_path):
    assert newest_checkpoint(tmp_path) is None
    assert newest_checkpoint(tmp_path / "absent") is None


def test_the_newest_two_are_kept_and_the_newest_boundary(tmp_path):
    directory = tmp_path / "checkpoints"
    kept = []
    for step, boundary in ((10, True), (20, True), (23, False), (26, False), (27, False), (30, True), (40, True)):
        save_checkpoint(directory, checkpoint(step, boundary=boundary))
        kept.append([int(name[5:]) for name in names(directory)])
        assert newest_checkpoint(directory).state["step"] == step
    assert kept == [[10], [10, 20], [20, 23], [20, 23, 26], [20, 26, 27], [27, 30], [30, 40]]
    assert newest_checkpoint(directory, boundary=True).state["step"] == 40
    assert has_checkpoint(tmp_path)


def test_what_came_after_a_halving_is_newer(tmp_path):
    for each in (checkpoint(10), checkpoint(20), checkpoint(26, boundary=False), checkpoint(20, halvings=1)):
        save_checkpoint(tmp_path, each)
    assert newest_checkpoint(tmp_path).state == {"step": 20, "boundary": True, "halvings": 1}
    save_checkpoint(tmp_path, checkpoint(30, halvings=1))
    assert names(tmp_path) == ["step-0000020.1", "step-0000030.1"]


def test_one_that_is_still_being_written_does_not_count(tmp_path):
    (tmp_path / "checkpoints" / "writing").mkdir(parents=True)
    (tmp_path / "checkpoints" / "writing" / "state.json").write_text("{}")
    assert not has_checkpoint(tmp_path)
    assert newest_checkpoint(tmp_path / "checkpoints") is None


@pytest.mark.parametrize("file", ["model.safetensors", "optimizer.safetensors", "state.json", "MANIFEST.sha256"])
@pytest.mark.parametrize("damage", ["flip", "cut", "missing", "empty", "more"])
def test_any_damage_is_noticed_and_the_one_before_is_taken(tmp_path, file, damage):
    save_checkpoint(tmp_path, checkpoint(10))
    place = save_checkpoint(tmp_path, checkpoint(20))
    path, rng = place / file, np.random.default_rng(0)
    content = path.read_bytes()
    for position in rng.integers(0, len(content), 12) if damage in ("flip", "cut") else [0]:
        if damage == "flip":
            flipped = bytearray(content)
            flipped[position] ^= 1 << int(rng.integers(8))
            path.write_bytes(flipped)
        elif damage == "missing":
            path.unlink()
        elif damage == "more":
            (place / f"{file}.more").write_bytes(b"")
        else:
            path.write_bytes(content[:position] if damage == "cut" else b"")
        with pytest.warns(UserWarning, match="damaged checkpoint was passed over for step-0000010"):
            found = newest_checkpoint(tmp_path)
        assert found.state["step"] == 10
        assert torch.equal(found.tensors["model"]["weight"], torch.full((3, 4), 10.0))


def test_nothing_readable_is_said(tmp_path):
    place = save_checkpoint(tmp_path, checkpoint(10))
    (place / "model.safetensors").write_bytes(b"")
    with pytest.raises(SlimzooError, match=r"no checkpoint in .* can be read .*model\.safetensors.*overwrite=True"):
        newest_checkpoint(tmp_path)


def test_a_damaged_one_is_replaced_when_its_step_comes_again(tmp_path):
    save_checkpoint(tmp_path, checkpoint(10))
    (save_checkpoint(tmp_path, checkpoint(20)) / "state.json").write_text("{}")
    save_checkpoint(tmp_path, checkpoint(20))
    assert newest_checkpoint(tmp_path).state["step"] == 20


def test_failed_checkpoint_keeps_the_one_before(tmp_path, monkeypatch):
    save_checkpoint(tmp_path, checkpoint(9))
    writes = count()

    def full_disk(path, content):
        if next(writes):
            raise OSError(28, "No space left on device", str(path))
        path.write_bytes(b"half")

    monkeypatch.setattr("transfer.training.checkpoint.write_flushed", full_disk)
    with pytest.raises(OSError, match=r"No space left on device: '.*writing/optimizer\.safetensors'"):
        save_checkpoint(tmp_path, checkpoint(10))
    assert names(tmp_path) == ["step-0000009"]
    assert newest_checkpoint(tmp_path).state["step"] == 9


def test_the_disk_is_told_to_hold_each_file_before_the_name_appears(tmp_path, monkeypatch):
    """Of the calls: every file flushed, then the directory, then the rename, then the directory around it."""
    said, paths = [], {}

    def watch(name):
        call = getattr(os, name)

        def watched(*arguments, **options):
            answer = call(*arguments, **options)
            if name == "open":
                paths[answer] = str(arguments[0])
            elif name == "fsync":
                said.append((name, paths[arguments[0]].removeprefix(f"{tmp_path}/")))
            else:
                said.append((name, arguments[1].name))
            return answer

        monkeypatch.setattr(os, name, watched)

    for name in ("open", "fsync", "rename"):
        watch(name)
    save_checkpoint(tmp_path / "checkpoints", checkpoint(10))
    monkeypatch.undo()
    inside = ["model.safetensors", "optimizer.safetensors", "state.json", "MANIFEST.sha256"]
    assert said == [
        *[("fsync", f"checkpoints/writing/{name}") for name in inside],
        ("fsync", "checkpoints/writing"),
        ("rename", "step-0000010"),
        ("fsync", "checkpoints"),
    ]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_what_is_not_finite_is_named(value):
    whole = checkpoint(1)
    assert whole.non_finite() == []
    whole.tensors["optimizer"]["0.exp_avg"] = torch.zeros(2, 3, dtype=torch.float32)
    whole.tensors["optimizer"]["0.step"] = torch.tensor(3)
    whole.tensors["optimizer"]["empty"] = torch.zeros(0)
    assert whole.non_finite() == []
    whole.tensors["optimizer"]["0.exp_avg"][1, 2] = value
    assert whole.non_finite() == ["optimizer: 0.exp_avg"]


def test_state_is_plain_json(tmp_path):
    place = save_checkpoint(tmp_path, run_state(0).capture({"recipe": Recipe().to_dict()}, boundary=False))
    state = json.loads((place / "state.json").read_text())
    assert (state["step"], state["boundary"], state["micro_batch"]) == (0, False, 32)
