"""Data that fits of a few seconds learn, and the comparison that every model's cut has to pass."""

import copy
import signal
import subprocess
import sys
from collections.abc import Callable
from functools import partial

import numpy as np
import pytest
import torch
from shaken_models import thinned
from torch import nn

from compress.dependency.cut import cut_
from compress.dependency.groups import find_groups
from compress.dependency.mask import mask_
from compress.pruning.budget import Cost
from zoo.cost import count_macs
from zoo.models import registry
from zoo.models.resnet import BasicBlock, ResNet


@pytest.fixture(scope="module")
def resnet8():
    """The name of a small ResNet, for as long as a module's tests run."""
    build = partial(ResNet, BasicBlock, stages=(1, 1, 1), width=8, small_images=True)
    registry.register_model("resnet8", build, input_size=(3, 32, 32))
    yield "resnet8"
    del registry._ENTRIES["resnet8"]


@pytest.fixture(scope="session")
def three(tmp_path_factory):
    """60 images of 3 colours, with noise."""
    rng = np.random.default_rng(0)
    labels = np.arange(60) % 3
    images = rng.integers(0, 160, (60, 32, 32, 3))
    images[np.arange(60), :, :, labels] += 95
    file = tmp_path_factory.mktemp("data") / "three.npz"
    np.savez(file, images=images.astype(np.uint8), labels=labels)
    return file


@pytest.fixture
def assert_cut_is_mask() -> Callable[..., nn.Module]:
    """Cut a share of every group: the cut model is the masked one in float64, and one wrong index is seen.

    Also: the MACs counted beforehand are the cut model's. Returns the cut model, in float32.
    """

    def outputs(model: nn.Module, images: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            return model(images)

    def check(model: nn.Module, size: tuple[int, ...], *, normalized: bool = False, share: float = 0.6) -> nn.Module:
        grouping = find_groups(model, torch.empty(1, *size, device="meta"), normalized=normalized)
        keeps = thinned(grouping, share)
        assert grouping.groups, grouping.whole
        cut, masked, control = (copy.deepcopy(model).double() for _ in range(3))
        cut_(cut, grouping, keeps)
        assert Cost.macs(grouping).after(keeps) == count_macs(cut, size)
        mask_(masked, grouping.groups, keeps)
        images = torch.randn(2, *size, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
        expected, got = outputs(masked, images), outputs(cut, images)
        assert (got - expected).abs().max() <= 1e-5 * expected.std()
        wrong = [keep.copy() for keep in keeps]
        at = next(i for i, g in enumerate(grouping.groups) if len(keeps[i]) < g.width)
        wrong[at][0] = min(set(range(grouping.groups[at].width)) - set(keeps[at].tolist()))
        mask_(control, grouping.groups, [np.sort(keep) for keep in wrong])
        assert (got - outputs(control, images)).abs().max() > 1e-5 * expected.std(), "the comparison cannot fail"
        return cut.float()

    return check


@pytest.fixture(scope="session")
def killed_in_recovery():
    """Run `slimzoo WORDS...` in a process of its own that is killed where its recovery begins."""

    def run(*words):
        code = (
            "import os, signal, compress.pruning.step as s\n"
            "def stop(*a, **k): os.kill(os.getpid(), signal.SIGKILL)\n"
            "s.recover = stop\n"
            "from compress.cli import app; app()"
        )
        done = subprocess.run([sys.executable, "-c", code, *map(str, words)], capture_output=True, text=True)
        assert done.returncode == -signal.SIGKILL, done.stderr

    return run
