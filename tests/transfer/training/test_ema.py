"""The moving average of weights, against one in float64 and NumPy."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from transfer.training.ema import Ema
from zoo.create import create_model
from zoo.models import efficientnet


@pytest.fixture
def model():
    torch.manual_seed(0)
    network = create_model("tf_efficientnet_lite0", **efficientnet.TINY["tf_efficientnet_lite0"])
    return network.to(memory_format=torch.channels_last)


def move_(model, step):
    """What a training step does to parameters, statistics and counters."""
    generator = torch.Generator().manual_seed(step)
    with torch.no_grad():
        for tensor in model.state_dict().values():
            if tensor.is_floating_point():
                tensor.add_(torch.randn(tensor.shape, generator=generator))
            else:
                tensor.add_(1)


@pytest.mark.parametrize("decay", [0.0, 0.3, 0.999])
def test_against_numpy(model, decay):
    ema = Ema(model, decay)
    expected = {name: tensor.double().numpy() for name, tensor in model.state_dict().items()}
    for n in range(12):
        move_(model, n)
        ema.update_(model)
        share = min(decay, (1 + n) / (10 + n))
        for name, tensor in model.state_dict().items():
            value = tensor.double().numpy()
            counter = not tensor.is_floating_point()
            expected[name] = value if counter else share * expected[name] + (1 - share) * value
    average = create_model("tf_efficientnet_lite0", **efficientnet.TINY["tf_efficientnet_lite0"])
    ema.copy_to_(average)
    for name, tensor in average.state_dict().items():
        np.testing.assert_allclose(tensor.numpy(), expected[name], rtol=1e-5, atol=1e-5, err_msg=name)
    counters = [t for t in average.state_dict().values() if not t.is_floating_point()]
    assert counters
    assert all(int(t) == 12 for t in counters)


def test_the_model_is_left_alone_and_shares_no_memory(model):
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    ema = Ema(model, 0.9)
    ema.update_(model)
    ema.update_(model)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    move_(model, 0)
    assert any(not torch.equal(ema.tensors[name], tensor) for name, tensor in model.state_dict().items())
    assert not any(tensor.requires_grad for tensor in ema.tensors.values())


def test_stopped_and_resumed_through_a_file_it_has_the_same_bits(model, tmp_path):
    from safetensors.torch import load_file, save_file

    ema = Ema(model, 0.99)
    for n in range(5):
        move_(model, n)
        ema.update_(model)
    save_file({name: tensor.contiguous() for name, tensor in ema.tensors.items()}, tmp_path / "ema.safetensors")
    resumed = Ema(model, 0.99)
    resumed.load_(load_file(tmp_path / "ema.safetensors"))
    for n in range(5, 9):
        move_(model, n)
        ema.update_(model)
        resumed.update_(model)
    assert ema.tensors.keys() == resumed.tensors.keys()
    assert all(torch.equal(tensor, resumed.tensors[name]) for name, tensor in ema.tensors.items())


def test_a_decay_of_one_is_refused(model):
    with pytest.raises(ValueError, match=r"decay=1\.0 must be in \[0, 1\)"):
        Ema(model, 1.0)
