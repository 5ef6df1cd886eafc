"""The share of the MACs that held-out images allow: the search, and what `prune` makes of it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from compress import prune
from compress.cli import app
from compress.pruning import depth
from compress.pruning.depth import KEEPS, SHARES, HeldOut, find_depth
from transfer.data.loader import LabelledPixels
from transfer.fitting.step import fit
from zoo.files.model_directory import load_model


@pytest.mark.parametrize("last", [*range(len(SHARES)), None])
def test_the_search_finds_the_last_share_that_holds(last):
    """In at most four cuts, wherever on the ladder that is; where none holds, the largest is tried and given."""
    tried = []

    def divergence(share):
        tried.append(share)
        return 0.01 if last is not None and share >= SHARES[last] else 1.0

    found = find_depth(divergence, images=9)
    assert found.share == (SHARES[0] if last is None else SHARES[last])
    assert found.holds == (last is not None)
    assert list(found.divergences) == tried
    assert len(tried) == len(set(tried)) <= 4
    assert f"{found.share:.0%} of the MACs" in str(found)


def test_divergence_is_that_of_the_probabilities():
    torch.manual_seed(0)
    pixels = np.random.default_rng(0).integers(0, 256, (7, 28, 28, 1), dtype=np.uint8)
    first, second = (load_of(seed) for seed in (0, 1))
    held = HeldOut(first.model, LabelledPixels(pixels, np.zeros(7, dtype=np.int64)), first.config)
    images = torch.from_numpy(first.config.preprocess.normalize(pixels))
    with torch.no_grad():
        p, q = (each.model(images).double().softmax(1) for each in (first, second))
    expected = (p * (p / q).log()).sum(1).mean()
    assert held.images == 7
    assert held.divergence_of(second.model) == pytest.approx(float(expected), rel=1e-4)
    assert held.divergence_of(first.model) == pytest.approx(0, abs=1e-9)


def load_of(seed):
    return fit("digits", model="lenet5", method="scratch", epochs=0, seed=seed)


@pytest.fixture(scope="module")
def dense(tmp_path_factory):
    out = tmp_path_factory.mktemp("depth") / "dense"
    fit("digits", model="lenet5_caffe", method="scratch", epochs=2, out=out)
    return out


def macs_share(step):
    return step.after.macs / step.before.macs


def test_where_no_share_is_named_the_answers_stay(dense, tmp_path):
    told = []
    step = prune(dense, data="digits", recover=0, out=tmp_path / "own", tell=told.append)
    note = step.record["depth"]
    assert note["share"] in SHARES
    assert note["divergences"][f"{note['share']:g}"] <= KEEPS
    assert note["share"] - 0.1 < macs_share(step) <= note["share"]
    assert step.record["diverged"]["nats"] == pytest.approx(note["divergences"][f"{note['share']:g}"], abs=1e-6)
    assert sum("held-out images differ by" in line for line in told) == 1
    named = prune(dense, data="digits", recover=0, macs=note["share"])
    for name, tensor in named.model.state_dict().items():
        assert torch.equal(tensor, load_model(tmp_path / "own").model.state_dict()[name]), name


def test_it_is_found_once_for_all_rounds(dense, monkeypatch):
    searches = []
    monkeypatch.setattr(
        "compress.pruning.search.find_depth", lambda *given: searches.append(given) or find_depth(*given)
    )
    step = prune(dense, data="digits", rounds=2, recover=2)
    assert len(searches) == 1
    assert macs_share(step) <= step.record["depth"]["share"]


def test_a_cut_that_is_lost_says_which_would_not_be(dense, tmp_path):
    given = "--macs 0.008 --floor 0 --round-to 1 --criterion random --recover 0".split()
    done = CliRunner().invoke(
        app, ["prune", str(dense), "--data", "digits", *given, "--out", str(tmp_path / "x")], env={"COLUMNS": "400"}
    )
    assert done.exit_code == 0, done.output
    assert "the cut was not brought back; by the same scores, untrained: with " in done.output
    diverged = load_model(tmp_path / "x").config.lineage[-1]["diverged"]
    nearer = diverged["nearer"]
    assert diverged["nats"] > 2 * KEEPS
    assert nearer["share"] > 0.008
    assert nearer["divergences"][f"{nearer['share']:g}"] < diverged["nats"]


def test_without_held_out_images_half_is_kept(dense):
    step = prune(dense, recover=0)
    assert step.after.macs == prune(dense, recover=0, macs=0.5).after.macs
    assert "depth" not in step.record


def test_many_images_are_sampled(monkeypatch):
    monkeypatch.setattr(depth, "MOST_IMAGES", 5)
    pixels = np.random.default_rng(0).integers(0, 256, (9, 28, 28, 1), dtype=np.uint8)
    fitted = load_of(0)
    assert HeldOut(fitted.model, LabelledPixels(pixels, np.zeros(9, dtype=np.int64)), fitted.config).images == 5
