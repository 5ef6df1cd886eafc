import pytest
import timm
import torch
from torch import nn

import zoo
from zoo.models.layers import Conv2dSame, DropPath
from zoo.models.registry import model_entry

PARAMETERS = {
    "efficientnet_b0": 5_288_548,  # Tan & Le 2019, Table 2: 5.3M
    "efficientnet_lite0": 4_652_008,  # tensorflow/tpu, models/official/efficientnet/lite: 4.7M
    "efficientnet_lite1": 5_416_680,  # 5.4M
    "efficientnet_lite2": 6_092_072,  # 6.1M
    "efficientnet_lite3": 8_197_096,  # 8.2M
    "efficientnet_lite4": 13_006_568,  # 13.0M
}
FAST = ("efficientnet_b0", "tf_efficientnet_lite0")  # a name of each kind of block and of padding
PARAMETERS |= {f"tf_{name}": count for name, count in PARAMETERS.items() if "lite" in name}


@pytest.mark.parametrize("name", PARAMETERS)
def test_published_parameter_counts_and_image_sizes(name):
    with torch.device("meta"):
        assert zoo.count_parameters(zoo.create_model(name)) == PARAMETERS[name]
    assert model_entry(name).input_size == timm.get_pretrained_cfg(name).input_size


@pytest.mark.parametrize(
    "name", [*FAST, *(pytest.param(name, marks=pytest.mark.slow) for name in PARAMETERS if name not in FAST)]
)
def test_same_function_as_timm(name, assert_same_function):
    # an even and an odd side: there SAME padding differs
    assert_same_function(zoo.create_model(name), timm.create_model(name), (3, 39, 34))


def test_activations_are_timms_and_work_in_place():
    for name in ("efficientnet_b0", "efficientnet_lite0"):
        with torch.device("meta"):
            models = zoo.create_model(name), timm.create_model(name)
        kinds = [[m for m in model.modules() if isinstance(m, nn.SiLU | nn.ReLU6 | nn.Sigmoid)] for model in models]
        assert [type(m) for m in kinds[0]] == [type(m) for m in kinds[1]]
        assert all(m.inplace for m in kinds[0] if not isinstance(m, nn.Sigmoid))


def test_fresh_weights_are_drawn_as_timms():
    ours, theirs = (m.create_model("efficientnet_b0", num_classes=10).state_dict() for m in (zoo, timm))
    for name, tensor in ours.items():
        if tensor.dim() > 1 and tensor.numel() > 2000:
            assert tensor.std() == pytest.approx(float(theirs[name].std()), rel=0.1), name
    assert theirs["classifier.weight"].abs().max() == pytest.approx(
        float(ours["classifier.weight"].abs().max()), rel=0.01
    )
    assert not any(ours[name].any() for name in ("classifier.bias", "blocks.1.0.se.conv_reduce.bias"))


def test_the_gate_stays_when_activations_are_replaced():
    model = zoo.create_model("efficientnet_b0", activation="relu", depth=0.3, width=0.3)
    assert not any(isinstance(m, nn.SiLU) for m in model.modules())
    assert isinstance(model.blocks[1][0].se.gate, nn.Sigmoid)


def test_the_two_variants_are_not_the_same_function():
    plain, tf = zoo.create_model("efficientnet_lite0").eval(), zoo.create_model("tf_efficientnet_lite0").eval()
    tf.load_state_dict(plain.state_dict(), strict=True)
    x = torch.randn(1, 3, 64, 64)
    assert (plain(x) - tf(x)).abs().max() > 1e-3 * plain(x).std()


def test_timms_drop_path_rates():
    with torch.device("meta"):
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
