import pytest
import timm
import torch
import torch.nn.functional as F
from torch import nn

import zoo
from zoo.models.layers import DropPath


@pytest.mark.parametrize(
    ("name", "parameters"),
    [("convnext_tiny", 28_589_128), ("convnext_small", 50_223_688)],  # Liu et al. 2022, Table 1: 29M and 50M
)
def test_published_parameter_counts(name, parameters):
    with torch.device("meta"):
        assert zoo.count_parameters(zoo.create_model(name)) == parameters


def test_same_function_as_timm_at_other_depths_and_widths(assert_same_function):
    sizes = (2, 1, 2, 1), (16, 24, 32, 48)
    model = zoo.create_model("convnext_tiny", depths=sizes[0], widths=sizes[1])
    reference = timm.create_model("convnext_tiny", depths=sizes[0], dims=sizes[1])
    assert_same_function(model, reference, (3, 71, 66))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["convnext_tiny", "convnext_small"])
def test_same_function_as_timm(name, assert_same_function):
    assert_same_function(zoo.create_model(name), timm.create_model(name), (3, 71, 66))


def test_fresh_weights_and_epsilons_are_timms():
    ours = zoo.create_model("convnext_tiny", depths=(1, 1, 1, 1))
    theirs = timm.create_model("convnext_tiny", depths=(1, 1, 1, 1))
    expected = theirs.state_dict()
    for name, tensor in ours.state_dict().items():
        assert tensor.std() == pytest.approx(float(expected[name].std()), rel=0.1), name
        assert tensor.mean() == pytest.approx(float(expected[name].mean()), abs=0.005), name
    epsilons = [[m.eps for m in model.modules() if isinstance(m, nn.LayerNorm)] for model in (ours, theirs)]
    assert epsilons[0] == epsilons[1] == [1e-6] * 9


def test_timms_drop_path_rates():
    with torch.device("meta"):
        ours = zoo.create_model("convnext_tiny", drop_path=0.1)
        theirs = timm.create_model("convnext_tiny", drop_path_rate=0.1)
    rates = [m.p for m in ours.modules() if isinstance(m, DropPath)]
    wanted = [getattr(block.drop_path, "drop_prob", 0.0) for stage in theirs.stages for block in stage.blocks]
    assert rates == pytest.approx(wanted)


def test_a_block_is_its_formula_one_pixel_at_a_time():
    torch.manual_seed(0)
    block = zoo.create_model("convnext_tiny", depths=(1,), widths=(4,), layer_scale=0.5).stages[0].blocks[0].double()
    x = torch.randn(1, 4, 5, 6).double()
    fc1, fc2, padded = block.mlp.fc1, block.mlp.fc2, F.pad(x, (3, 3, 3, 3))
    out = block(x)
    for i in range(5):
        for j in range(6):
            seen = (padded[0, :, i : i + 7, j : j + 7] * block.conv_dw.weight[:, 0]).sum((1, 2)) + block.conv_dw.bias
            seen = (seen - seen.mean()) / (seen.var(unbiased=False) + 1e-6) ** 0.5  # the norm's weight is 1, its bias 0
            hidden = fc1.weight @ seen + fc1.bias
            hidden = hidden * (1 + torch.erf(hidden / 2**0.5)) / 2  # GELU
            branch = fc2.weight @ hidden + fc2.bias
            torch.testing.assert_close(out[0, :, i, j], x[0, :, i, j] + 0.5 * branch)
