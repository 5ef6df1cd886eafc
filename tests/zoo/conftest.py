"""How a model is held against another implementation of the same network."""

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import nn


def randomize_(model: nn.Module, generator: torch.Generator) -> None:
    """Draw everything: what a fresh model leaves at 0 or 1 would hide a mistake, what is too small lets the image fade.

    Norms' scales, variances and LayerScale in 0.5 to 1.5, biases and means in -0.2 to 0.2, weights by He's rule.
    """

    def uniform_(tensor: torch.Tensor, low: float, high: float) -> None:
        tensor.copy_(torch.empty(tensor.shape).uniform_(low, high, generator=generator))

    with torch.no_grad():
        for name, tensor in model.state_dict().items():  # these share the model's storage
            if name.endswith(("running_var", "gamma")) or (name.endswith("weight") and tensor.dim() == 1):
                uniform_(tensor, 0.5, 1.5)
            elif name.endswith(("running_mean", "bias", "cls_token", "pos_embed")):
                uniform_(tensor, -0.2, 0.2)
            elif tensor.dim() > 1:
                std = (2 / tensor[0].numel()) ** 0.5
                tensor.copy_(torch.empty(tensor.shape).normal_(0, std, generator=generator))


def distance(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    """Largest difference over the standard deviation of the reference's."""
    return float((ours - theirs).detach().abs().max() / theirs.detach().std())


def all_logits(output: object) -> list[torch.Tensor]:
    """The logits of a model in training: GoogLeNet's are a tuple, with those of its auxiliary heads."""
    return [output] if isinstance(output, torch.Tensor) else [logits for logits in output if logits is not None]


def step_(model: nn.Module, x: torch.Tensor) -> list[torch.Tensor]:
    """One gradient step in train mode, dropout off; returns the logits and leaves the gradients."""
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    logits = all_logits(model.train()(x))
    labels = torch.arange(len(x)) % logits[0].shape[1]
    sum(F.cross_entropy(each, labels) for each in logits).backward()
    torch.optim.SGD(model.parameters(), lr=0.1).step()
    return logits


@pytest.fixture
def assert_same_function() -> Callable[[nn.Module, nn.Module, tuple[int, int, int]], None]:
    """`model` takes the reference's weights key by key and computes its function in float64, to within 1e-5.

    In eval mode, and in train mode through one gradient step: logits, gradients, new weights, new statistics. The
    control is the first comparison with one filter changed by 10%: it must fail.
    """

    def check(model: nn.Module, reference: nn.Module, input_size: tuple[int, int, int]) -> None:
        generator = torch.Generator().manual_seed(0)
        randomize_(reference, generator)
        model.load_state_dict(reference.state_dict(), strict=True)
        model, reference = model.double().eval(), reference.double().eval()
        x = torch.randn(2, *input_size, generator=generator).double()
        with torch.no_grad():
            expected = reference(x)
            assert distance(model(x), expected) < 1e-5
            first = next(p for p in model.parameters() if p.dim() == 4)
            first[0] *= 1.1
            assert distance(model(x), expected) > 1e-5
            first[0] /= 1.1
        for ours, theirs in zip(step_(model, x), step_(reference, x), strict=True):
            assert distance(ours, theirs) < 1e-5
        assert_same_step(model, reference)

    return check


def assert_same_step(model: nn.Module, reference: nn.Module) -> None:
    gradients = dict(model.named_parameters())
    for name, theirs in reference.named_parameters():
        assert (theirs.grad is None) == (gradients[name].grad is None), name
        if theirs.grad is not None:
            torch.testing.assert_close(
                gradients[name].grad,
                theirs.grad,
                rtol=1e-5,
                atol=1e-9 + 1e-5 * float(theirs.grad.abs().max()),
                msg=lambda text, name=name: f"gradient of {name}: {text}",
            )
    state = model.state_dict()
    for name, theirs in reference.state_dict().items():
        torch.testing.assert_close(state[name], theirs, rtol=1e-5, atol=1e-7)
