"""Convolutions whose kernel is larger than their input."""

import math
from collections import Counter

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

import zoo
from transfer.training.cpu_operators import CpuOperators


class Convolutions(TorchDispatchMode):
    """The side of the map, of the kernel, and the padding of each convolution that torch is asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: Counter[tuple[int, int, int]] = Counter()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func is torch.ops.aten.convolution.default:
            self.seen[args[0].shape[2], args[1].shape[2], args[4][0]] += 1
        return func(*args, **(kwargs or {}))


def assert_same_function_and_gradients(layer: nn.Conv2d, shape: tuple[int, ...]) -> None:
    found = []
    for context in (torch.enable_grad(), CpuOperators()):
        inputs = torch.linspace(-1, 1, math.prod(shape), dtype=torch.float64).view(shape).requires_grad_()
        layer.zero_grad()
        with context:
            output = layer(inputs)
        output.square().sum().backward()
        found.append((output, inputs.grad, layer.weight.grad, layer.bias.grad))
    for plain, ours in zip(*found, strict=True):
        torch.testing.assert_close(ours, plain, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("groups", [1, 2, 6])
@pytest.mark.parametrize("padding", [2, (2, 1), "same"])
def test_outputs_and_gradients_are_those_of_a_plain_convolution(groups: int, padding: object) -> None:
    torch.manual_seed(0)
    layer = nn.Conv2d(6, 6, 5, padding=padding, groups=groups, stride=1, dtype=torch.float64)
    assert_same_function_and_gradients(layer, (2, 6, 3, 4))


def test_strides_dilations_and_words_for_arguments() -> None:
    inputs, weight = torch.randn(1, 2, 3, 3), torch.randn(2, 2, 5, 5)
    for arguments in (
        {"stride": 2, "padding": 3},
        {"dilation": (1, 1), "padding": (2, 4)},
        {"dilation": 2, "padding": 4},
    ):
        plain = nn.functional.conv2d(inputs, weight, **arguments)
        with CpuOperators():
            padded = nn.functional.conv2d(input=inputs, weight=weight, **arguments)
        torch.testing.assert_close(padded, plain)


def test_products_over_channels_are_those_of_a_plain_convolution() -> None:
    torch.manual_seed(0)
    layer = nn.Conv2d(5, 7, 1, dtype=torch.float64).to(memory_format=torch.channels_last)
    found = []
    for context in (torch.enable_grad(), CpuOperators(), Convolutions()):
        inputs = torch.linspace(-1, 1, 2 * 5 * 4 * 3, dtype=torch.float64).view(2, 5, 4, 3)
        inputs = inputs.contiguous(memory_format=torch.channels_last).requires_grad_()
        layer.zero_grad()
        with context:
            output = layer(inputs)
        output.square().sum().backward()
        assert output.is_contiguous(memory_format=torch.channels_last)
        found.append((output, inputs.grad, layer.weight.grad, layer.bias.grad))
    for plain, product, _ in zip(*found, strict=True):
        torch.testing.assert_close(product, plain, rtol=1e-12, atol=1e-12)


def test_what_changes_in_a_network() -> None:
    model = zoo.create_model("efficientnet_lite0", num_classes=3).eval().to(memory_format=torch.channels_last)
    images = torch.zeros(1, 3, 96, 96).contiguous(memory_format=torch.channels_last)
    with Convolutions() as plain:
        model(images)
    with Convolutions() as faster, CpuOperators():
        model(images)
    assert faster.seen - plain.seen == {(7, 5, 0): 3}  # the last stage's kernels of 5 x 5, padded by hand
    gone = plain.seen - faster.seen
    assert gone.pop((3, 5, 2)) == 3
    assert {(kernel, padding) for _, kernel, padding in gone} == {(1, 0)}
    assert max(side for side, *_ in gone) == 12
    assert {side for side, kernel, _ in faster.seen if kernel == 1} == {48, 24}


@pytest.mark.parametrize("stride", [2, (2, 3)])
def test_a_stride_of_single_pixels_takes_them_first(stride: object) -> None:
    """In float64, where oneDNN is not asked: the same function and gradients."""
    torch.manual_seed(0)
    layer = nn.Conv2d(3, 8, 1, stride=stride, dtype=torch.float64)
    assert_same_function_and_gradients(layer, (2, 3, 7, 8))


def test_few_channels_with_a_stride_have_a_gradient() -> None:
    """Channels last at 224 px: the process survives it."""
    layer = nn.Conv2d(3, 64, 1, stride=2, bias=False).to(memory_format=torch.channels_last)
    images = torch.randn(4, 3, 224, 224).to(memory_format=torch.channels_last)
    with CpuOperators():
        output = layer(images)
    output.sum().backward()
    wanted = images[:, :, ::2, ::2].sum((0, 2, 3)).expand(64, 3)
    torch.testing.assert_close(layer.weight.grad.flatten(1), wanted, rtol=1e-3, atol=0.1)
