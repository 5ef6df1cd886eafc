"""The search keeps what brings the answers nearer, and says what it tried."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from compress import quantize
from compress.graph.network import export_network
from compress.quantization.calibrate import Images
from compress.quantization.cpu import U8U8, best_scheme
from compress.quantization.fidelity import logits_of
from compress.quantization.nearest import CORRECTED, EQUALIZED, ROUNDED, nearest
from compress.quantization.settings import RANGES
from transfer.data.dataset import open_data
from transfer.data.parts import read_pixels
from transfer.evaluation.divergence import divergence
from transfer.fitting.step import fit
from zoo.create import create_model

SIZE = (3, 32, 32)


@pytest.fixture(scope="module")
def images():
    rng = np.random.default_rng(0)
    return [[rng.normal(size=(48, *SIZE)).astype(np.float32)] for _ in range(2)]


@pytest.fixture(scope="module")
def far_apart():
    return of(spread=1.5)


def of(*, spread):
    """A MobileNetV2 with ReLU, whose hidden channels are scaled up to that far apart and back."""
    torch.manual_seed(0)
    model = create_model("mobilenet_v2", activation="relu", num_classes=3, width=0.25).eval()
    with torch.no_grad():
        for block in list(model.features)[2:18]:
            norm, depthwise = block.conv[0][1], block.conv[1][0]
            factors = torch.logspace(-1, 1, len(norm.weight))[torch.randperm(len(norm.weight))] ** spread
            norm.weight.mul_(factors)
            norm.bias.mul_(factors)
            depthwise.weight.div_(factors[:, None, None, None])
        model.classifier[-1].weight.mul_(20)
    return export_network(model, SIZE)


def test_what_it_gives_is_the_least_of_what_it_tried(images):
    network = of(spread=0.0)
    found = nearest(network, *images)
    assert list(found.tried)[:3] == list(RANGES)
    got = divergence(logits_of(network, images[1]), logits_of(found.quantized.network, images[1]))
    assert got <= min(found.tried.values()) / 0.95 + 1e-12
    assert set(found.taken) <= {EQUALIZED, CORRECTED}


def test_channels_far_apart_are_equalized(images, far_apart):
    """One scale for all activations of a tensor: without equalization most channels have few steps left."""
    found = nearest(far_apart, *images, ranges=("minmax",))
    assert EQUALIZED in found.taken
    assert found.tried[EQUALIZED] < 0.5 * found.tried["minmax"]
    assert found.quantized.ranges == "minmax"


def test_only_the_changes_asked_for_are_tried(images, far_apart):
    alone = nearest(far_apart, *images, ranges=("minmax",), changes=(EQUALIZED,))
    assert list(alone.tried) == ["minmax", EQUALIZED]
    assert alone.taken == (EQUALIZED,)
    assert list(nearest(far_apart, *images, ranges=("minmax",), changes=()).tried) == ["minmax"]


@pytest.mark.parametrize(("enough", "learned"), [(10.0, False), (0.0, True)])
def test_the_rounding_is_learned_where_corrected_biases_do_not_suffice(images, monkeypatch, enough, learned):
    """In four bits rounded weights are to blame; whether that is worth the time is decided after biases."""
    monkeypatch.setattr("compress.quantization.nearest.WORTH_LEARNING", enough)
    scheme = replace(best_scheme(), bits=4)
    found = nearest(of(spread=0.0), *images, ranges=("minmax",), scheme=scheme)
    assert (ROUNDED in found.tried) == learned
    assert list(found.tried)[-1] == CORRECTED or learned


def test_settled_changes_are_made_whatever_they_bring(images):
    """As for the model whose judge has found them best."""
    network, how = of(spread=0.0), {"ranges": ("minmax",), "changes": (EQUALIZED,), "scheme": U8U8}  # exact everywhere
    assert EQUALIZED not in nearest(network, *images, **how).taken
    made = nearest(network, *images, settled=True, **how)
    assert made.taken == (EQUALIZED,)


def test_few_images_calibrate_and_others_compare(photos, tmp_path):
    """All to train on calibrate; how far int8 is, is said of those to validate by, as of the judge's int8."""
    fitted = fit(photos, model="lenet5_caffe", method="scratch", epochs=2, size=28)
    step = quantize(fitted, data=photos)
    val = read_pixels(open_data(photos), fitted.config.preprocess, None).val
    judge = fitted.judge or fitted.model
    network = export_network(judge, fitted.config.input_size)
    held = Images(val.pixels, fitted.config.preprocess)
    train = read_pixels(open_data(photos), fitted.config.preprocess, None).train
    again = nearest(network, Images(train.pixels, fitted.config.preprocess), held)
    assert step.divergence == pytest.approx(again.divergence, rel=1e-3)
    assert step.record["divergence"].keys() == again.tried.keys()
