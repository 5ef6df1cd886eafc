import math

import pytest
import torch
from torch import nn

import zoo
from zoo.errors import UsageError
from zoo.models.init import INITS, he_normal_, initialize_


@pytest.fixture
def layers():
    torch.manual_seed(0)
    return nn.ModuleDict(
        {
            "linear": nn.Linear(300, 200),
            "conv": nn.Conv2d(40, 60, 5),
            "grouped": nn.Conv2d(400, 400, 3, groups=4),
            "transposed": nn.ConvTranspose2d(60, 40, 5),
            "depthwise": nn.ConvTranspose2d(4000, 4000, 3, groups=4000),
            "recurrent": nn.LSTM(100, 200),
        }
    )


# fan_in, fan_out: what one output is summed over, what one input goes to
FANS = {
    "linear": (300, 200),
    "conv": (1000, 1500),
    "grouped": (900, 900),
    "transposed": (1500, 1000),
    "depthwise": (9, 9),
    "recurrent": (100, 200),
}
WEIGHT = {"recurrent": "weight_ih_l0"}  # four gates on top of each other
VARIANCE = {
    "xavier_uniform": lambda fan_in, fan_out: 2 / (fan_in + fan_out),
    "xavier_normal": lambda fan_in, fan_out: 2 / (fan_in + fan_out),
    "he_normal": lambda fan_in, fan_out: 2 / fan_in,
    "truncated_normal": lambda fan_in, fan_out: 0.02**2,
}


@pytest.mark.parametrize("name", VARIANCE)
@pytest.mark.parametrize("layer", FANS)
def test_variance_and_shape_of_the_draw(layers, name, layer):
    initialize_(layers, name)
    weight = getattr(layers[layer], WEIGHT.get(layer, "weight")).detach()
    assert weight.var().item() == pytest.approx(VARIANCE[name](*FANS[layer]), rel=0.03)
    assert weight.mean().abs() < 0.02 * weight.std()
    assert not any(p.any() for name, p in layers[layer].named_parameters() if name.startswith("bias"))
    kurtosis = (weight / weight.std()).pow(4).mean().item()  # 1.8 for a uniform draw, 3 for a normal one
    assert kurtosis == pytest.approx(1.8 if name == "xavier_uniform" else 3.0, abs=0.15)


@pytest.mark.parametrize("name", ["xavier_uniform", "xavier_normal"])
def test_xavier_is_torchs(layers, name):
    torch.manual_seed(1)
    initialize_(layers, name)
    torch.manual_seed(1)
    expected = nn.Linear(300, 200, device="meta").to_empty(device="cpu").weight
    getattr(nn.init, name + "_")(expected)
    torch.testing.assert_close(layers["linear"].weight, expected)


def test_he_by_what_goes_out(layers):
    he_normal_(layers, kinds=(nn.Conv2d,), fan="out")
    assert layers["conv"].weight.std().item() == pytest.approx(math.sqrt(2 / 1500), rel=0.02)
    assert layers["linear"].bias.count_nonzero() > 0, "a Linear was not asked for"


def test_with_every_weight_the_same_a_hidden_layer_has_one_feature_for_ever():
    model = zoo.create_model("lenet5", init="constant")
    x, labels = torch.rand(8, 1, 28, 28, generator=torch.Generator().manual_seed(0)), torch.arange(8)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for _ in range(3):
        nn.functional.cross_entropy(model(x), labels).backward()
        optimizer.step()
    rows = model.conv1.weight.flatten(1)
    assert (rows == rows[0]).all()
    assert not torch.equal(rows[0], torch.full_like(rows[0], 0.01)), "it did learn"
    assert zoo.create_model("lenet5").conv1.weight.unique().numel() == 150


def test_an_unknown_init():
    with pytest.raises(UsageError, match="unknown init 'he_norm': did you mean 'he_normal'"):
        zoo.create_model("lenet5", init="he_norm")
    assert set(INITS) == {*VARIANCE, "constant"}
