import pytest
import timm
import torch
from torch import nn

import zoo
from zoo.layers import Conv2dSame, DropPath


@pytest.mark.parametrize("name", ["efficientnet_lite0", "tf_efficientnet_lite0"])
def test_same_function_as_timm(name, assert_same_function):
    model = zoo.create_model(name)
    assert zoo.count_parameters(model) == 4_652_008
    # an even and an odd side: there SAME padding differs
    assert_same_function(model, timm.create_model(name), (3, 71, 64))


def test_the_two_variants_are_not_the_same_function():
    plain, tf = zoo.create_model("efficientnet_lite0").eval(), zoo.create_model("tf_efficientnet_lite0").eval()
    tf.load_state_dict(plain.state_dict(), strict=True)
    x = torch.randn(1, 3, 64, 64)
    assert (plain(x) - tf(x)).abs().max() > 1e-3 * plain(x).std()


def test_timms_drop_path_rates():
    ours = zoo.create_model("efficientnet_lite0", drop_path=0.2)
    theirs = timm.create_model("efficientnet_lite0", drop_path_rate=0.2)
    rates = [m.p for m in ours.modules() if isinstance(m, DropPath)]
    assert rates == pytest.approx([getattr(b.drop_path, "drop_prob", 0.0) for stage in theirs.blocks for b in stage])


def test_drop_path_keeps_the_mean_and_drops_whole_samples():
    x = torch.ones(4000, 2, 3)
    out = DropPath(0.25).train()(x)
    assert set(out.unique().tolist()) == {0.0, torch.tensor(1 / 0.75).item()}
    assert (out == out[:, :1, :1]).all()
    assert out.mean() == pytest.approx(1.0, abs=0.05)
    assert DropPath(0.25).eval()(x) is x
    with pytest.raises(ValueError, match=r"drop_path=1 must be in \[0, 1\)"):
        DropPath(1)


@pytest.mark.parametrize("kernel", [3, 5])
@pytest.mark.parametrize("size", [(7, 8), (8, 9), (1, 2)])
def test_same_padding_covers_every_pixel_and_puts_the_odd_one_last(kernel, size):
    conv = Conv2dSame(1, 1, kernel, 2, bias=False)
    nn.init.ones_(conv.weight)
    out = conv(torch.ones(1, 1, *size))[0, 0]
    assert out.shape == (-(-size[0] // 2), -(-size[1] // 2))
    before = [max((-(-n // 2) - 1) * 2 + kernel - n, 0) // 2 for n in size]
    for i in range(out.shape[0]):
        for j in range(out.shape[1]):
            rows = sum(0 <= 2 * i - before[0] + k < size[0] for k in range(kernel))
            columns = sum(0 <= 2 * j - before[1] + k < size[1] for k in range(kernel))
            assert out[i, j] == rows * columns
