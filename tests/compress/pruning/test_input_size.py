"""A budget met by the size of the images too: the search, the classifier's fit, and what `prune` makes of it."""

from __future__ import annotations

import math

import numpy as np
import onnx
import pytest
import torch
from PIL import Image
from torch import nn

from compress import distill, export, prune, quantize, sparsify
from compress.pruning.input_size import BY_SIZE, find_size, fit_classifier_, resized, side_for, takes
from transfer.data.loader import LabelledPixels
from transfer.evaluation.evaluate import evaluate
from transfer.fitting.step import fit
from zoo.cost import count_macs
from zoo.create import create_model
from zoo.errors import UsageError
from zoo.files.model_directory import load_model
from zoo.preprocess import Preprocess


@pytest.mark.parametrize("side", [32, 96, 224, 384])
@pytest.mark.parametrize("share", [0.9, 0.5, 0.3, 0.1])
def test_the_side_leaves_its_part_of_the_share(side, share):
    step = max(2, 2 * round(side / 56))
    for part in BY_SIZE:
        found = side_for(side, share, part)
        assert 0 < found <= side
        assert found == side or found % step == 0
        assert abs(found - side * math.sqrt(share**part)) <= step / 2


@pytest.mark.parametrize("best", range(-2, 10))
def test_the_search_ends_in_the_best_of_the_four(best):
    """Where the divergence falls to one side and rises from there, and images agree."""
    sides = sorted({side_for(224, 0.3, part) for part in BY_SIZE})
    noise = np.random.default_rng(0).normal(size=30)
    asked = []

    def nats(side):
        return abs(side - (sides[0] + best * (sides[-1] - sides[0]) / 8)) / 100

    def divergences(side):
        asked.append(side)
        return nats(side) + 2 + noise

    side, found = find_size(224, 0.3, divergences)
    assert side == min(sides, key=nats)
    assert found[side] == pytest.approx(nats(side) + 2 + noise.mean())
    assert sorted(found) == sorted(asked) == sorted(set(asked))


def test_images_that_do_not_agree_decide_nothing():
    usual, more, less, _ = (side_for(224, 0.3, part) for part in BY_SIZE)
    rng = np.random.default_rng(0)
    base = rng.random(20)
    found = {usual: base, more: base - 0.01 + rng.normal(size=20), less: base - 0.01 + 2 * rng.normal(size=20)}
    for side in (more, less):
        found[side] += base.mean() - 0.01 - found[side].mean()  # less by a hundredth, and by chance
    assert find_size(224, 0.3, found.__getitem__)[0] == usual


def test_a_size_that_is_not_taken_is_none():
    assert find_size(224, 0.5, lambda side: None) == (224, {})
    only = np.ones(4)
    assert find_size(224, 0.5, lambda side: only if side == 224 else None) == (224, {})


@pytest.mark.parametrize(("name", "other", "taken"), [("resnet20", 24, True), ("lenet5", 24, False)])
def test_what_a_network_takes(name, other, taken):
    network = create_model(name)
    channels = next(network.parameters()).shape[1]
    assert takes(network, (channels, 32 if name == "resnet20" else 28, 32 if name == "resnet20" else 28))
    assert takes(network, (channels, other, other)) == taken


@pytest.mark.parametrize("channels", [1, 3])
def test_pixels_are_resized_by_pillow(channels):
    pixels = np.random.default_rng(0).integers(0, 256, (2, 32, 32, channels), dtype=np.uint8)
    preprocess = Preprocess(size=(20, 20), mean=(0.5,) * channels, std=(0.5,) * channels, mode="crop", resize_to=24)
    found = resized(LabelledPixels(pixels, np.zeros(2, dtype=np.int64)), preprocess)
    for given, got in zip(pixels, found.pixels, strict=True):
        planes = [
            np.array(
                Image.fromarray(np.ascontiguousarray(given[..., c]))
                .resize((20, 32), Image.Resampling.BICUBIC)
                .resize((20, 20), Image.Resampling.BICUBIC)
            )
            for c in range(channels)
        ]
        assert np.array_equal(got, np.stack(planes, axis=-1))


class Pooled(nn.Module):
    """Pixels' means, a fixed layer and a classifier; two of them, averaged, where `both`."""

    def __init__(self, both: bool = False) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.fc, self.both = nn.Conv2d(3, 16, 3), nn.Linear(16, 5), both

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        found = self.fc(self.first(x).relu().mean((2, 3)))
        return found.softmax(1) if self.both else found


def test_the_classifier_is_a_ridge_regression_to_the_whole_ones_answers():
    rng = np.random.default_rng(0)
    whole = torch.from_numpy(rng.normal(size=(40, 3, 12, 12)).astype(np.float32))
    small = whole[:, :, ::2, ::2].contiguous()
    uncut, smaller = Pooled().eval(), Pooled().eval()
    with torch.no_grad():
        wanted = uncut(whole).double().numpy()
        seen = smaller.first(small).relu().mean((2, 3)).double().numpy()
    start = smaller.fc.weight.detach().double().numpy().copy()
    fit_classifier_(smaller, small, torch.from_numpy(wanted).float())
    centred, goal = seen - seen.mean(0), wanted - wanted.mean(0)
    gram = centred.T @ centred
    ridge = gram + 0.01 * np.trace(gram) / 16 * np.eye(16)
    weight = start + np.linalg.solve(ridge, centred.T @ (goal - centred @ start.T)).T
    assert np.allclose(smaller.fc.weight.detach().numpy(), weight, rtol=1e-3, atol=1e-4)
    bias = wanted.mean(0) - weight @ seen.mean(0)
    assert np.allclose(smaller.fc.bias.detach().numpy(), bias, rtol=1e-3, atol=1e-3)


def test_a_layer_whose_outputs_are_not_the_answers_stays():
    network = Pooled(both=True).eval()
    before = network.fc.weight.clone()
    fit_classifier_(network, torch.randn(4, 3, 6, 6), torch.randn(4, 5))
    assert torch.equal(network.fc.weight, before)


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """40 noisy images of two kinds, as a folder."""
    root, rng = tmp_path_factory.mktemp("photos"), np.random.default_rng(0)
    for number in range(40):
        image = rng.integers(0, 200, (48, 48, 3))
        if number % 2:
            image[12:36, 12:36] += 50
        path = root / f"class-{number % 2}" / f"{number}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(image.astype(np.uint8)).save(path)
    return root


@pytest.fixture(scope="module")
def fitted(photos, tmp_path_factory):
    out = tmp_path_factory.mktemp("fitted") / "m"
    return fit(photos, model="resnet20", method="scratch", size=32, batch=8, epochs=4, seed=1, out=out).out


@pytest.fixture(scope="module")
def halved(fitted, photos, tmp_path_factory):
    told = []
    out = tmp_path_factory.mktemp("halved") / "m"
    step = prune(fitted, data=photos, macs=0.5, recover=1, out=out, tell=told.append)
    return step, told


def test_size_and_channels_meet_the_budget(halved, fitted, photos):
    step, told = halved
    note = step.record["input"]
    before, after = load_model(fitted), load_model(step.out, judge=True)
    assert note["before"] == 32
    assert len(note["divergences"]) >= 2
    assert note["side"] == after.config.preprocess.size[0] == after.config.preprocess.size[1]
    assert str(note["side"]) in note["divergences"]
    macs = [count_macs(each.model, each.config.input_size) for each in (before, after)]
    assert macs[1] <= 0.5 * macs[0]
    assert [step.record["metrics"][when]["macs"] for when in ("before", "after")] == macs
    uncut = count_macs(before.model, after.config.input_size)
    assert note["by_size"] == pytest.approx(uncut / macs[0], abs=1e-4)
    assert note["by_channels"] == pytest.approx(0.5 * macs[0] / uncut, abs=1e-4)
    assert any("held-out images differ" in line for line in told)
    assert step.record["metrics"]["after"]["val"]["n"] == step.record["metrics"]["before"]["val"]["n"]


def test_its_images_are_known_at_the_new_size(halved, photos, tmp_path):
    """In another encoding, by their pixels alone."""
    for path in photos.glob("*/*.png"):
        copied = (tmp_path / path.relative_to(photos)).with_suffix(".bmp")
        copied.parent.mkdir(exist_ok=True)
        Image.open(path).save(copied)
    included = evaluate(halved[0].out, tmp_path, all=True).included
    assert (included.trained, included.chose) == (40, 0)


def test_a_given_size_is_taken(fitted, photos):
    whole, smaller = (prune(fitted, data=photos, macs=0.4, size=size, recover=0) for size in (32, 24))
    assert "input" not in whole.record
    assert whole.config.preprocess == load_model(fitted).config.preprocess
    assert smaller.config.preprocess.size == (24, 24)
    assert smaller.record["input"]["side"] == 24
    assert count_macs(smaller.model, (3, 24, 24)) <= 0.4 * count_macs(load_model(fitted).model, (3, 32, 32))
    assert count_macs(whole.model, (3, 32, 32)) <= 0.4 * count_macs(load_model(fitted).model, (3, 32, 32))


def test_without_images_the_size_is_as_asked(fitted):
    step = prune(fitted, macs=0.4, size=24, recover=0)
    assert step.config.preprocess.size == (24, 24)
    assert "input" not in prune(fitted, macs=0.4, recover=0).record


def test_what_follows_takes_the_smaller_images(halved, photos, tmp_path):
    step, _ = halved
    side = step.config.preprocess.size[0]
    export(step.out)
    file = onnx.load(step.out / "model.onnx")
    assert {p.key: p.value for p in file.metadata_props}["imgsz"] == str([side, side])
    first, second = (evaluate(source, photos, all=True) for source in (step.out, step.out / "model.onnx"))
    assert first.pixels.pixels.shape == second.pixels.pixels.shape == (40, side, side, 3)
    assert np.allclose(first.evaluation.logits, second.evaluation.logits, atol=1e-3)
    int8 = quantize(step.out, data=photos, max_drop=100, out=tmp_path / "int8")
    assert int8.config.preprocess.size == (side, side)
    assert prune(step.out, data=photos, macs=0.8, recover=0).config.preprocess.size[0] <= side
    taught = distill(step.out, teacher=halved[0].record["arguments"]["directory"], data=photos, epochs=1)
    assert taught.config.preprocess.size == (side, side)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"size": 64}, r"--size 64|size=64.*larger than the network's own 32 px"),
        ({"size": 24, "latency": 5.0}, "for one cut to a share of the MACs"),
        ({"size": 24, "macs": 0.5, "rounds": 2}, "for one cut to a share of the MACs"),
        ({"size": 0}, "size"),
    ],
)
def test_a_size_that_cannot_be_is_refused(fitted, photos, given, said):
    with pytest.raises(UsageError, match=said):
        prune(fitted, data=photos, **{"recover": 0, **given} if "rounds" not in given else given)


def test_a_size_that_leaves_less_than_was_asked_for_is_all(fitted, photos):
    """No channel is cut, whatever the criterion."""
    told = []
    step = prune(fitted, data=photos, macs=0.6, size=24, recover=0, tell=told.append)
    before, after = (step.record["metrics"][when] for when in ("before", "after"))
    assert after["macs"] / before["macs"] == pytest.approx((24 / 32) ** 2, rel=0.01)
    assert after["params"] == before["params"]
    assert step.record["input"]["by_channels"] == 1
    assert any("leave 56% of the MACs, and no channel is cut" in line for line in told)
    assert "nearer" not in step.record["diverged"]


def test_a_sparse_network_keeps_its_pattern_for_smaller_images(fitted, photos, tmp_path):
    """Since no channel goes; a cut would break it."""
    sparse = sparsify(fitted, data=photos, pattern="2:4", epochs=1, out=tmp_path / "sparse")
    with pytest.raises(UsageError, match="breaks its runs of 4"):
        prune(sparse.out, data=photos, macs=0.3, recover=0)
    step = prune(sparse.out, data=photos, macs=0.6, size=24, recover=0)
    assert step.config.preprocess.size == (24, 24)


def test_a_network_of_one_size_is_refused(tmp_path):
    fitted = fit("digits", model="lenet5", method="scratch", epochs=0, size=28)
    with pytest.raises(UsageError, match="takes images of 28 px alone"):
        prune(fitted, macs=0.3, size=24, recover=0)


def test_interrupted_and_resumed_it_is_the_same(killed_in_recovery, halved, fitted, photos, tmp_path):
    """Killed in its recovery, which goes on with the size that was found."""
    step, _ = halved
    out = tmp_path / "again"
    words = ["prune", fitted, "--data", photos, "--macs", "0.5", "--recover", "1", "--out", out]
    killed_in_recovery(*words)
    from compress import resume

    resume(out)
    first, second = (load_model(each).model.state_dict() for each in (step.out, out))
    assert all(torch.equal(first[name], second[name]) for name in first)
