import pytest
import timm
import torch
import torch.nn.utils.prune
import torchvision
from torch import nn

import zoo
from zoo.cost import count_macs, count_parameters


@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
def test_torchvisions_published_figures(name):
    meta = torchvision.models.get_model_weights(name).DEFAULT.meta
    with torch.device("meta"):
        model = zoo.create_model(name)
    assert count_parameters(model) == meta["num_params"]
    assert round(count_macs(model, (3, 224, 224)) / 1e9, 3) == meta["_ops"]


def test_efficientnets_published_figures():
    with torch.device("meta"):
        b0, lite0 = timm.create_model("efficientnet_b0"), zoo.create_model("efficientnet_lite0")
    macs = count_macs(lite0, (3, 224, 224))
    assert round(count_macs(b0, (3, 224, 224)) / 1e9, 2) == 0.39  # Tan & Le 2019, Table 2
    # Lite0 is B0 less squeeze-and-excite, and yet tensorflow/tpu's table says 407M: that counts more than products
    assert macs < count_macs(b0, (3, 224, 224))
    assert macs == pytest.approx(407e6, rel=0.06)
    tf = zoo.create_model("tf_efficientnet_lite0")
    assert macs == count_macs(tf, (3, 224, 224))


def test_vit_by_hand_and_as_published():
    L, D, layers = 197, 192, 12
    block = L * D * 3 * D + 2 * L * L * D + L * D * D + 2 * L * D * 4 * D  # qkv, both products, proj, MLP
    macs = count_macs(zoo.create_model("vit_tiny"), (3, 224, 224))
    assert macs == 196 * 16 * 16 * 3 * D + layers * block + D * 1000
    # timm, results/benchmark-infer-amp-nchw-pt240-cu124-rtx4090.csv: 1.26, LayerNorm included
    assert macs / 1e9 == pytest.approx(1.26, abs=0.01)


@pytest.mark.parametrize("name", ["resnet20", "tf_efficientnet_lite0", "lenet5"])
def test_the_sum_over_layers_as_they_run(name):
    model = zoo.create_model(name).eval()
    size = (1, 28, 28) if name == "lenet5" else (3, 33, 40)
    total = 0

    def add(layer, _, out):  # each output is one product with the filter
        nonlocal total
        total += out.numel() * layer.weight[0].numel()

    for layer in model.modules():
        if isinstance(layer, (nn.Conv2d, nn.Linear)):
            layer.register_forward_hook(add)
    with torch.no_grad():
        model(torch.randn(1, *size))
    assert count_macs(model, size) == total


def test_neither_the_model_nor_its_hooks_notice():
    model = zoo.create_model("resnet20", stages=(1, 1), width=8).train()
    calls = []
    model.fc.register_forward_hook(lambda *_: calls.append(1))
    before = {key: value.clone() for key, value in model.state_dict().items()}
    count_macs(model, (3, 32, 32))
    assert model.training
    assert not calls
    assert len(model.fc._forward_hooks) == 1
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())
    model.eval()(torch.zeros(1, 3, 32, 32))
    assert calls


def test_a_pruned_model_costs_less():
    model = zoo.create_model("lenet5")
    full = count_macs(model, (1, 28, 28))
    model.conv1.weight, model.conv1.bias = nn.Parameter(model.conv1.weight[:3]), nn.Parameter(model.conv1.bias[:3])
    model.conv2.weight = nn.Parameter(model.conv2.weight[:, :3])
    conv1, conv2 = 28 * 28 * 6 * 25, 10 * 10 * 16 * 6 * 25
    assert count_macs(model, (1, 28, 28)) == full - (conv1 + conv2) // 2


def test_masks_of_torchs_own_pruning_change_no_count():
    model = zoo.create_model("lenet5")
    full = count_macs(model, (1, 28, 28))
    torch.nn.utils.prune.l1_unstructured(model.conv1, "weight", amount=0.5)
    assert count_macs(model, (1, 28, 28)) == full


@pytest.mark.parametrize(
    ("name", "published_as"),
    [
        ("swin_tiny_patch4_window7_224", "swin_t"),
        ("densenet121", "densenet121"),
        ("mobilenetv2_100", "mobilenet_v2"),
        ("vit_base_patch16_224", "vit_b_16"),
    ],
)
def test_timms_models_cost_what_torchvision_publishes(name, published_as):
    with torch.device("meta"):
        model = timm.create_model(name)
    published = torchvision.models.get_model_weights(published_as)["IMAGENET1K_V1"].meta["_ops"]
    assert count_macs(model, (3, 224, 224)) / 1e9 == pytest.approx(published, abs=6e-4)


def test_a_shared_parameter_counts_once():
    layer = nn.Linear(3, 3)
    assert count_parameters(nn.Sequential(layer, layer)) == 12
    assert count_macs(nn.Sequential(layer, layer), (1, 3, 3)) == 2 * 27
