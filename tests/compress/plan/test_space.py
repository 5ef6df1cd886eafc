"""What the sampler may draw, of what is known of the fitted model."""

from __future__ import annotations

from dataclasses import replace

import pytest
from optuna.trial import FixedTrial

from compress.plan.space import space_of
from compress.plan.trial import Candidate
from zoo.create import create_model
from zoo.files.model_directory import LoadedModel, ModelConfig
from zoo.preprocess import Preprocess

NETWORKS = [{"share": share, "blocks": blocks} for share, blocks in ((1.0, 0), (0.4, 0), (0.5, 4), (0.06, 4), (0.2, 9))]


def fitted(name, preprocess, *trained_on):
    """A model whose fits, one after the other, had so many images to train on."""
    lineage = [{"verb": "fit", "data": {"sizes": {"train": images, "val": 10}}} for images in trained_on]
    config = ModelConfig(architecture=name, model_args={}, classes=None, preprocess=preprocess, lineage=lineage)
    return LoadedModel(create_model(name, num_classes=4).eval(), config)


@pytest.mark.parametrize(
    ("images", "sides", "criteria"),
    [
        ([120], [1.0, 0.8, 0.5], {None, "taylor", "l2"}),
        ([60_000], [0.8, 0.5], {None, "obs", "l2"}),
        ([60_000, 120], [1.0, 0.8, 0.5], {None, "taylor", "l2"}),  # fitted again, to others
        ([120, 60_000], [0.8, 0.5], {None, "obs", "l2"}),
    ],
)
def test_what_is_not_prunes_own_choice_is_offered(images, sides, criteria):
    """By itself it takes OBS and tries sizes with up to 1,000 images, and Taylor's criterion at its own size above."""
    space = space_of(NETWORKS, fitted("resnet20", Preprocess(size=(32, 32)), *images))
    assert set(space.criteria) == criteria
    assert space.sides[0] is None
    assert [round((side / 32) ** 2, 1) for side in space.sides[1:]] == sides  # shares of the MACs
    assert (tuple(space.blocks), space.side) == ((0, 4, 9), 32)
    assert space.left == {0: 1.0, 4: 0.5, 9: 0.2}


@pytest.mark.parametrize(
    ("name", "preprocess"),
    [
        ("lenet5_caffe", Preprocess(size=(28, 28), mean=(0.5,), std=(0.5,))),  # its classifier takes one size alone
        ("resnet20", Preprocess.prepared((3, 32, 32))),  # nobody can resize what is no picture
    ],
)
def test_a_size_that_the_network_does_not_take_is_not_offered(name, preprocess):
    assert tuple(space_of(NETWORKS, fitted(name, preprocess, 120)).sides) == (None,)


def test_what_leaves_next_to_nothing_is_not_offered():
    """Such as a transformer without its blocks, of which the first layer stays."""
    networks = [{"share": share, "blocks": blocks} for share, blocks in ((1.0, 0), (0.3, 6), (0.007, 12))]
    space = space_of(networks, fitted("resnet20", Preprocess(size=(32, 32)), 120))
    assert tuple(space.blocks) == (0, 6)
    drawn = {
        "share": 0.5,
        "int8": False,
        "longer": False,
        "blocks": 6,
        "side": 12,
        "criterion": None,
        "allocation": None,
    }
    trial = FixedTrial(drawn)
    offered = replace(space, sides=(None, 12))
    assert offered.drawn(trial) == Candidate(0.28, blocks=6)  # an eighth of 0.3 would be below the least share


def test_a_model_of_unknown_origin():
    space = space_of([], fitted("resnet20", Preprocess(size=(32, 32))))
    assert tuple(space.blocks) == (0,)
    assert space.left == {}
