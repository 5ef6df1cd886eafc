"""Convolutions whose kernel is larger than their input."""

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

import zoo
from transfer.training.small_maps import PaddedSmallMaps


class Convolutions(TorchDispatchMode):
    """The input's shape and the padding of each convolution that torch is asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[tuple[int, ...], tuple[int, ...]]] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func is torch.ops.aten.convolution.default:
            self.seen.append((tuple(args[0].shape[2:]), tuple(args[4])))
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("groups", [1, 2, 6])
@pytest.mark.parametrize("padding", [2, (2, 1), "same"])
def test_outputs_and_gradients_are_those_of_a_plain_convolution(groups: int, padding: object) -> None:
    torch.manual_seed(0)
    layer = nn.Conv2d(6, 6, 5, padding=padding, groups=groups, stride=1, dtype=torch.float64)
    found = []
    for context in (torch.enable_grad(), PaddedSmallMaps()):
        inputs = torch.linspace(-1, 1, 2 * 6 * 3 * 4, dtype=torch.float64).view(2, 6, 3, 4).requires_grad_()
        layer.zero_grad()
        with context:
            output = layer(inputs)
        output.square().sum().backward()
        found.append((output, inputs.grad, layer.weight.grad, layer.bias.grad))
    for plain, padded in zip(*found, strict=True):
        torch.testing.assert_close(padded, plain, rtol=1e-12, atol=1e-12)


def test_strides_dilations_and_words_for_arguments() -> None:
    inputs, weight = torch.randn(1, 2, 3, 3), torch.randn(2, 2, 5, 5)
    for arguments in (
        {"stride": 2, "padding": 3},
        {"dilation": (1, 1), "padding": (2, 4)},
        {"dilation": 2, "padding": 4},
    ):
        plain = nn.functional.conv2d(inputs, weight, **arguments)
        with PaddedSmallMaps():
            padded = nn.functional.conv2d(input=inputs, weight=weight, **arguments)
        torch.testing.assert_close(padded, plain)


def test_only_maps_smaller_than_the_kernel_are_padded() -> None:
    model = zoo.create_model("efficientnet_lite0", num_classes=3).eval()
    with Convolutions() as plain:
        model(torch.zeros(1, 3, 96, 96))
    with Convolutions() as padded, PaddedSmallMaps():
        model(torch.zeros(1, 3, 96, 96))
    changed = [(a, b) for a, b in zip(plain.seen, padded.seen, strict=True) if a != b]
    assert changed == [(((3, 3), (2, 2)), ((7, 7), (0, 0)))] * 3  # the last stage's kernels of 5 x 5
