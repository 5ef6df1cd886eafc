"""How a model is held against another implementation of the same network."""

from collections.abc import Callable

import pytest
import torch
from torch import nn


def randomize_(model: nn.Module, generator: torch.Generator) -> None:
    """Draw what a fresh model leaves at 0 or 1, and what would then hide a mistake: norms, their statistics, biases."""

    def uniform_(tensor: torch.Tensor, low: float, high: float) -> None:
        tensor.copy_(torch.empty(tensor.shape).uniform_(low, high, generator=generator))

    with torch.no_grad():
        for name, tensor in model.state_dict().items():  # these share the model's storage
            if name.endswith(("running_var", "gamma")) or (name.endswith("weight") and tensor.dim() == 1):
                uniform_(tensor, 0.5, 1.5)
            elif name.endswith(("running_mean", "bias", "cls_token", "pos_embed")):
                uniform_(tensor, -0.2, 0.2)


def distance(model: nn.Module, reference: nn.Module, x: torch.Tensor) -> float:
    """Largest difference of logits over the standard deviation of the reference's."""
    with torch.no_grad():
        ours, theirs = model(x), reference(x)
    return float((ours - theirs).abs().max() / theirs.std())


@pytest.fixture
def assert_same_function() -> Callable[[nn.Module, nn.Module, tuple[int, int, int]], None]:
    """`model` takes the reference's weights key by key and computes its function in float64, to within 1e-5.

    The control is the same comparison with one filter changed by 10%: it must fail.
    """

    def check(model: nn.Module, reference: nn.Module, input_size: tuple[int, int, int]) -> None:
        generator = torch.Generator().manual_seed(0)
        randomize_(reference, generator)
        model.load_state_dict(reference.state_dict(), strict=True)
        model, reference = model.double().eval(), reference.double().eval()
        x = torch.randn(2, *input_size, generator=generator).double()
        assert distance(model, reference, x) < 1e-5
        with torch.no_grad():
            next(p for p in model.parameters() if p.dim() == 4)[0] *= 1.1
        assert distance(model, reference, x) > 1e-5

    return check
