import pytest
import timm
import torch
import torch.nn.utils.prune
import torchvision
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

import zoo
import zoo.models.registry
from zoo.cost import count_cost, count_macs, count_parameters

TORCHVISION = [name for name in zoo.list_models() if name in torchvision.models.list_models(torchvision.models)]
TIMM = {
    **{name: name for name in zoo.list_models("*efficientnet*") + zoo.list_models("convnext*")},
    **{name: f"{name}_patch16_224" for size in ("tiny", "small", "base") for name in (f"vit_{size}", f"deit_{size}")},
    "mobilenet_v1": "mobilenetv1_100",
}


def torchs_count(model: nn.Module, input_size: tuple[int, ...]) -> int:
    """MACs by PyTorch's own counter, which knows matrix products and convolutions."""
    counter = FlopCounterMode(display=False)
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), counter:
        model.eval()(torch.empty(1, *input_size, device="meta"))
    return counter.get_total_flops() // 2


def test_the_references_are_the_ones_we_think():
    assert len(TORCHVISION) == 29
    assert len(TIMM) == 20


@pytest.mark.parametrize("name", TORCHVISION)
def test_torchvisions_published_figures(name):
    meta = torchvision.models.get_model_weights(name).DEFAULT.meta
    size = (3, 224, 224)
    with torch.device("meta"):
        model = zoo.create_model(name)
    assert count_parameters(model) == meta["num_params"]
    assert count_macs(model, size) / 1e9 == pytest.approx(meta["_ops"], abs=5.1e-4)  # published to three digits
    assert count_macs(model, size) == torchs_count(model, size)


@pytest.mark.parametrize("name", TIMM)
def test_timms_models_cost_what_ours_do(name):
    size = zoo.models.registry.model_entry(name).input_size
    with torch.device("meta"):
        model, reference = zoo.create_model(name), timm.create_model(TIMM[name])
    assert size == timm.get_pretrained_cfg(TIMM[name]).input_size
    assert count_parameters(model) == count_parameters(reference)
    assert count_macs(model, size) == torchs_count(reference, size)


def test_what_a_convolution_costs():
    layer = nn.Conv2d(16, 32, 5)
    assert count_parameters(layer) == 12_832  # 32 x (16 x 5 x 5 + 1)
    cost = count_cost(layer, (16, 12, 12))
    assert cost.macs == 8 * 8 * 32 * 16 * 25
    assert cost.other_ops == 8 * 8 * 32
    assert cost.activation_bytes == 4 * 8 * 8 * 32
    assert cost.peak_activation_bytes == cost.activation_bytes + 4 * 16 * 12 * 12
    assert cost.receptive_field == (5, 5)


def test_resnet152_has_fewer_parameters_than_vgg16():
    with torch.device("meta"):
        assert count_parameters(zoo.create_model("resnet152")) < count_parameters(zoo.create_model("vgg16")) / 2


@pytest.mark.parametrize(
    ("name", "field"),
    [
        # Araujo et al. 2019, Table 1: AlexNet 195, VGG-16 212, MobileNetV1 315
        ("alexnet", 195),
        ("vgg16", 212),
        ("mobilenet_v1", 315),
        # by their eq. 2, with the stride on the 3x3 (their ResNet-50 has it elsewhere)
        ("resnet18", 435),
        ("resnet50", 427),
    ],
)
def test_published_receptive_fields(name, field):
    with torch.device("meta"):
        assert count_cost(zoo.create_model(name), (3, 224, 224)).receptive_field == (field, field)


class TwoBranches(nn.Module):
    """A dilated, a strided, a pooled and a transposed window, joined."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(1, 2, 3, stride=2, padding=1)
        self.dilated = nn.Conv2d(2, 2, (3, 1), dilation=(2, 1), padding=(2, 0))
        self.pool = nn.AvgPool2d(2)
        self.up = nn.ConvTranspose2d(2, 2, 2, stride=2)
        self.last = nn.Conv2d(4, 1, 3, padding=1)

    def forward(self, x):
        x = self.stem(x)
        return self.last(torch.cat([self.dilated(x), self.up(self.pool(x))], dim=1))


class Pooled(nn.Module):
    """Pooling without a stride given, padding by hand, and a mean over channels, which sees no more pixels."""

    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(1, 128, 3, padding=1)
        self.second = nn.Conv2d(1, 1, 3)

    def forward(self, x):
        x = nn.functional.avg_pool2d(self.first(x), 2)
        return self.second(nn.functional.pad(x.mean(1, keepdim=True), (1, 1, 1, 1)))


class ChannelsLast(nn.Module):
    """A Linear on each pixel, as ConvNeXt has it."""

    def __init__(self):
        super().__init__()
        self.conv, self.mlp, self.last = nn.Conv2d(1, 6, 5, padding=2), nn.Linear(6, 6), nn.Conv2d(6, 1, 3, padding=1)

    def forward(self, x):
        return self.last(self.mlp(self.conv(x).permute(0, 2, 3, 1)).permute(0, 3, 1, 2))


@pytest.mark.parametrize(
    "model",
    [
        TwoBranches(),
        Pooled(),
        ChannelsLast(),
        nn.Sequential(nn.Conv2d(1, 1, 3, 2, 1), nn.ConvTranspose2d(1, 1, 4, 2, 1), nn.Conv2d(1, 1, 3, padding=1)),
        nn.Sequential(nn.Conv2d(1, 1, 3, 2, 1), nn.ConvTranspose2d(1, 1, 5, 2, 2), nn.Conv2d(1, 1, 3, padding=1)),
        nn.Sequential(nn.Conv2d(1, 1, 3, 2, 1), nn.Upsample(scale_factor=2), nn.Conv2d(1, 1, 3, padding=1)),
        nn.Sequential(nn.Conv2d(1, 1, 3, 4, 1), nn.Upsample(scale_factor=2, mode="bilinear"), nn.Conv2d(1, 1, 1)),
    ],
    ids=lambda model: type(model).__name__,
)
def test_the_receptive_field_is_where_gradients_come_from(model):
    model, size = model.double(), (1, 64, 64)
    for parameter in model.parameters():
        nn.init.uniform_(parameter, 0.5, 1.0)
    x = torch.rand(1, *size, dtype=torch.float64, requires_grad=True)
    extents = set()
    out = model(x)
    middle = out.shape[-1] // 2
    for row in range(middle - 4, middle + 4):  # the widest of neighbouring outputs: some fall together with others
        x.grad = None
        out[0, 0, row, row].backward(retain_graph=True)
        rows, columns = (x.grad[0, 0].abs().sum(dim=d).nonzero() for d in (1, 0))
        extents.add((int(rows.max() - rows.min()) + 1, int(columns.max() - columns.min()) + 1))
    counted = [layer.receptive_field for layer in count_cost(model, size).layers][-1]
    assert counted == (max(h for h, _ in extents), max(w for _, w in extents))


def test_tokens_of_any_layout():
    """A Linear on each token sees what the token sees, also beside a class token; one over tokens sees everything."""
    with torch.device("meta"):
        vit = count_cost(zoo.create_model("vit_pico", depth=1), (3, 32, 32))
        pooled = count_cost(nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveMaxPool2d(1)), (3, 8, 8))
    fields = {layer.name: layer.receptive_field for layer in vit.layers}
    assert fields["patch_embed.proj"] == fields["blocks.0.attn.qkv"] == (4, 4)
    assert fields["blocks.0.attn"] is None
    assert [layer.receptive_field for layer in pooled.layers] == [(3, 3), None]


@pytest.mark.parametrize("name", ["lstm", "transformer_encoder"])
def test_a_sequence_of_tokens_has_a_cost(name):
    model = zoo.create_model(name, vocab_size=50, width=16, num_classes=2)
    cost = count_cost(model, (9,))
    assert cost.macs > 0
    assert cost.receptive_field is None


def test_what_sees_the_whole_image_says_so():
    for name, last_local in [("vit_tiny", "patch_embed.proj"), ("mobilenet_v3_small", "features.1.block.0.0")]:
        with torch.device("meta"):
            layers = count_cost(zoo.create_model(name), (3, 224, 224)).layers
        local = [layer.name for layer in layers if layer.receptive_field]
        assert last_local in local
        assert layers[-1].receptive_field is None
    mixer = count_cost(timm.create_model("mixer_s16_224"), (3, 224, 224))
    assert mixer.receptive_field == (16, 16)
    by_name = {layer.name: layer for layer in mixer.layers}
    assert by_name["blocks.0.mlp_tokens.fc1"].receptive_field is None


def test_layers_by_hand():
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1, bias=False),
        nn.BatchNorm2d(8),
        nn.ReLU(inplace=True),
        nn.MaxPool2d(2),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(8, 5),
        nn.Softmax(dim=1),
    )
    cost = count_cost(model, (3, 16, 16))
    rows = [(x.kind, x.params, x.macs, x.other_ops, x.output, x.receptive_field) for x in cost.layers]
    image, half = 16 * 16 * 8, 8 * 8 * 8
    assert rows == [
        ("Conv2d", 216, image * 27, 0, (1, 8, 16, 16), (3, 3)),
        ("BatchNorm2d", 16, 0, 2 * image, (1, 8, 16, 16), (3, 3)),
        ("ReLU", 0, 0, image, (1, 8, 16, 16), (3, 3)),
        ("MaxPool2d", 0, 0, 4 * half, (1, 8, 8, 8), (4, 4)),
        ("AdaptiveAvgPool2d", 0, 0, half, (1, 8, 1, 1), None),
        ("Flatten", 0, 0, 0, (1, 8), None),
        ("Linear", 45, 40, 5, (1, 5), None),
        ("Softmax", 0, 0, 25, (1, 5), None),
    ]
    # the convolution's output and BatchNorm's are alive together; the ReLU works in place
    assert cost.peak_activation_bytes == 4 * (2 * image + 3 * 16 * 16)


def test_a_layer_that_does_not_run_is_listed_with_its_parameters():
    with torch.device("meta"):
        model = zoo.create_model("googlenet", aux_heads=True)
    cost = count_cost(model, (3, 224, 224))
    assert cost.params == 13_004_888
    idle = {layer.name for layer in cost.layers if layer.output is None}
    assert idle
    assert all(name.startswith("aux") for name in idle)


@pytest.mark.parametrize(("name", "gates"), [("lstm", 4), ("gru", 3)])
def test_a_recurrent_cell_is_its_matrix_products(name, gates):
    width, length, channels = 24, 9, 5
    model = zoo.create_model(name, width=width, depth=1, bidirectional=False, in_channels=channels, num_classes=10)
    macs = count_macs(model, (length, channels))
    assert macs == length * gates * width * (channels + width) + width * 10


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
