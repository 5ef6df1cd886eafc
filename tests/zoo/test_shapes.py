"""Shapes computed by hand are torch's own, of real tensors."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from zoo.shapes import ELEMENTWISE, run_on_shapes


class OnShapes(TorchDispatchMode):
    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        return run_on_shapes(func, args, kwargs or {})


CONVOLUTIONS = [
    (2, {"kernel_size": 3}),
    (2, {"kernel_size": (3, 5), "stride": (2, 1), "padding": (1, 2)}),
    (2, {"kernel_size": 3, "stride": 2, "padding": 1, "dilation": 2, "groups": 4}),
    (2, {"kernel_size": 5, "padding": "same", "dilation": 2}),
    (1, {"kernel_size": 4, "stride": 3}),
    (2, {"kernel_size": 8, "groups": 8, "bias": False}),
]


@pytest.mark.parametrize(("dims", "options"), CONVOLUTIONS)
def test_convolutions(dims, options):
    layer = (nn.Conv1d, nn.Conv2d)[dims - 1](8, 16, **options)
    x = torch.randn(3, 8, *(13, 10)[:dims])
    with torch.no_grad(), OnShapes():
        got = layer.to("meta")(x.to("meta"))
    layer = (nn.Conv1d, nn.Conv2d)[dims - 1](8, 16, **options)
    assert got.shape == layer(x).shape


def test_what_does_not_fit_is_refused():
    x = torch.empty(1, 8, 4, 4, device="meta")
    for weight, groups in ((torch.empty(4, 7, 3, 3), 1), (torch.empty(4, 8, 5, 5), 1), (torch.empty(5, 4, 3, 3), 2)):
        with torch.no_grad(), OnShapes(), pytest.raises(RuntimeError):
            F.conv2d(x, weight.to("meta"), groups=groups)


def test_elementwise_and_norms():
    x = torch.randn(2, 4, 3, 3)
    for op in ELEMENTWISE:
        real = op(x)
        with torch.no_grad(), OnShapes():
            got = op(x.to("meta"))
        assert (got.shape, got.dtype, got.stride()) == (real.shape, real.dtype, real.stride())
    norm = nn.BatchNorm2d(4, device="meta")
    with torch.no_grad(), OnShapes():
        assert norm.eval()(x.to("meta")).shape == x.shape
        assert norm.train()(x.to("meta")).shape == x.shape
