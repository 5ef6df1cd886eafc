"""`prune --blocks`: which blocks go, how the rest makes up for them, and what becomes of the model afterwards."""

from __future__ import annotations

import json
import re
import shutil

import numpy as np
import pytest
import torch

from compress import distill, export, prune, quantize, resume
from compress.pruning import cutter, latency
from compress.pruning.blocks import least_missed
from compress.pruning.depth import HeldOut
from transfer.data.loader import LabelledPixels
from transfer.evaluation.evaluate import evaluate
from transfer.fitting.step import fit
from zoo.blocks import residual_blocks, without
from zoo.cost import count_macs
from zoo.files.model_directory import load_model, read_config


@pytest.fixture(scope="module")
def dense(tmp_path_factory, photos):
    out = tmp_path_factory.mktemp("blocks") / "dense"
    fit(photos, model="resnet20", method="scratch", epochs=1, size=32, out=out)
    return out


@pytest.fixture(scope="module")
def cut(dense, photos):
    out = dense.with_name("cut")
    return prune(dense, data=photos, macs=0.4, blocks=3, recover=1, out=out)


def test_blocks_go_without_which_answers_change_least(dense, photos):
    """By a naive loop over copies of the network."""
    loaded = load_model(dense)
    model, size = loaded.model, loaded.config.input_size
    held_images = np.load(photos)
    part = LabelledPixels(held_images["images"][:40].copy(), held_images["labels"][:40])
    part = LabelledPixels(np.stack([loaded.config.preprocess.resize(image) for image in part.pixels]), part.labels)
    inputs = torch.from_numpy(loaded.config.preprocess.normalize(part.pixels))
    with torch.no_grad():
        answers = model(inputs).log_softmax(1)
        nats = {}
        for name in residual_blocks(model, size):
            others = without(model, [name])(inputs).log_softmax(1)
            nats[name] = float((answers.exp() * (answers - others)).sum(1).mean())
    found = least_missed(model, size, 3, HeldOut(model, part, loaded.config))
    assert found.divergences == pytest.approx(nats, rel=1e-3, abs=1e-6)
    assert set(found.left_out) == set(sorted(nats, key=nats.get)[:3])


def test_a_cut_model_has_fewer_blocks_and_the_share_of_the_whole(cut, dense):
    whole, small = load_model(dense), load_model(cut.out)
    note = cut.record["blocks"]
    assert len(note["left_out"]) == 3
    assert note["said"].startswith("left out are 3 of 7 residual blocks, ")
    before, after = (count_macs(each.model, each.config.input_size) for each in (whole, small))
    assert 0.3 * before < after <= 0.4 * before
    left = set(residual_blocks(whole.model, whole.config.input_size)) - set(note["left_out"])
    assert set(residual_blocks(small.model, small.config.input_size)) == left
    gone = [each["module"] for each in json.loads((cut.out / "config.json").read_text())["slimzoo"]["surgery"][:3]]
    assert gone == note["left_out"]


def test_every_step_takes_it(cut, photos, tmp_path):
    top1 = evaluate(cut.out, photos, all=True).evaluation.top1
    again = prune(cut.out, data=photos, macs=0.7, blocks=1, recover=0, out=tmp_path / "again")
    assert len(read_config(again.out).surgery) > 0
    assert len(again.record["blocks"]["divergences"]) == 4
    quantize(cut.out, data=photos, out=tmp_path / "int8")
    distill(cut.out, teacher=cut.out, data=photos, epochs=1, out=tmp_path / "taught")
    shutil.copytree(cut.out, tmp_path / "exported")
    export(tmp_path / "exported")
    export(tmp_path / "exported", coded=True)
    for form in ("model.onnx", "model.slim"):
        found = evaluate(tmp_path / "exported" / form, photos, all=True).evaluation
        assert found.top1 == top1


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--blocks", "8"], r"--blocks 8: the network has 7 that can be left out; wanted at most that"),
        (["--blocks", "-1"], "--blocks"),
        (["--blocks", "1", "--rounds", "2"], "--blocks 1 is for one cut: leave it out with several rounds"),
    ],
)
def test_bad_input(slimzoo, dense, photos, tmp_path, options, said):
    done = slimzoo("prune", dense, "--data", photos, *options, "--out", tmp_path / "x")
    assert done.code == 2, done.err
    assert re.search(said, done.err), done.err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("options", [{"allocation": "sensitivity", "macs": 0.4}, {"macs": 0.9}, {}])
def test_blocks_go_with_every_way_to_choose_channels(dense, photos, options):
    """Also where they leave less than the share that was asked for, and where none was."""
    found = prune(dense, data=photos, blocks=5, recover=0, **options)
    loaded = load_model(dense)
    left = found.after.macs / count_macs(loaded.model, loaded.config.input_size)
    assert left <= options.get("macs", 0.9)
    json.dumps(found.record, allow_nan=False)


def test_a_share_is_of_the_whole_network(dense, photos):
    """ResNet-20 without any of its seven blocks has a fifth of its MACs, and 7% is reached with a third of that."""
    loaded = load_model(dense)
    found = prune(dense, data=photos, blocks=7, macs=0.07, size=32, recover=0)
    assert 0.03 < found.after.macs / count_macs(loaded.model, loaded.config.input_size) <= 0.07


def test_without_images_they_cannot_be_chosen(slimzoo, dense, tmp_path):
    done = slimzoo("prune", dense, "--blocks", "1", "--recover", "0", "--out", tmp_path / "x")
    assert done.code == 2
    assert "--blocks 1 are chosen by images: name the model's with --data" in done.err


@pytest.fixture
def machine(monkeypatch, tmp_path):
    """Takes a millisecond for a million MACs."""

    def measured_ms(models, input_size, **options):
        return np.array([count_macs(model, input_size) / 1e6 for model in models])

    for module in (latency, cutter):
        monkeypatch.setattr(module, "measured_ms", measured_ms)
    monkeypatch.setenv("SLIMZOO_CACHE", str(tmp_path))


def test_to_a_latency(dense, photos, machine):
    """Of which the blocks that go meet a part, and channels the rest."""
    loaded = load_model(dense)
    whole_ms = count_macs(loaded.model, loaded.config.input_size) / 1e6
    found = prune(dense, data=photos, latency=0.3 * whole_ms, blocks=3, recover=0)
    assert 0.2 * whole_ms < found.after.macs / 1e6 <= 0.3 * whole_ms
    assert len(found.record["blocks"]["left_out"]) == 3
    assert found.record["latency"]["before_ms"] == pytest.approx(whole_ms)
    assert found.record["latency"]["measured_ms"] == pytest.approx(found.after.macs / 1e6)


def test_a_latency_that_the_blocks_alone_meet_keeps_every_channel(dense, photos, machine):
    loaded = load_model(dense)
    whole = count_macs(loaded.model, loaded.config.input_size)
    found = prune(dense, data=photos, latency=0.9 * whole / 1e6, blocks=3, recover=0)
    left = without(loaded.model, found.record["blocks"]["left_out"])
    assert found.after.macs == count_macs(left, loaded.config.input_size) < 0.9 * whole


def test_explain_is_of_the_shorter_network(slimzoo, dense, photos, machine):
    cut = ["--macs", "0.4", "--blocks", "3", "--size", "32"]
    done = slimzoo("prune", dense, "--data", photos, *cut, "--explain", "--json")
    assert done.code == 0, done.err
    found, loaded = json.loads(done.out), load_model(dense)
    assert found["macs_after"] <= 0.4 * count_macs(loaded.model, loaded.config.input_size)
    assert found["ms_after"] == pytest.approx(found["macs_after"] / 1e6, rel=0.1)


def test_killed_and_resumed_it_is_the_same(killed_in_recovery, cut, dense, photos, tmp_path):
    """In its recovery, which goes on without the blocks that were chosen."""
    out = tmp_path / "again"
    words = ["prune", dense, "--data", photos, "--macs", "0.4", "--blocks", "3", "--recover", "1", "--out", out]
    killed_in_recovery(*words)
    resume(out)
    first, second = (load_model(each).model.state_dict() for each in (cut.out, out))
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)
