import pytest
import timm
import torch
import torchvision
from torch import nn

import zoo
from zoo.classifier import classifier_name, features, reset_classifier_, stages
from zoo.errors import UsageError

# timm's forward_head(pre_logits) is what its own users call for features
TIMM = ["test_resnet", "test_efficientnet", "test_vit", "test_convnext"]


@pytest.mark.parametrize("name", TIMM)
def test_features_of_timms_models_are_timms(name):
    model = timm.create_model(name).eval()
    x = torch.randn(2, 3, 160, 160)
    theirs = model.forward_head(model.forward_features(x), pre_logits=True)
    torch.testing.assert_close(features(model, x), theirs.flatten(1))
    assert model.get_submodule(classifier_name(model)) is model.get_classifier()


@pytest.mark.parametrize(
    "build", [lambda: zoo.create_model("vit_tiny", depth=1, image_size=32), "mobilenet_v2", "vgg11"]
)
def test_the_classifier_of_the_features_gives_the_logits(build):
    if isinstance(build, str):
        with torch.device("meta"):
            model = torchvision.models.get_model(build)
        assert classifier_name(model) == {"mobilenet_v2": "classifier.1", "vgg11": "classifier.6"}[build]
        return
    model = build().eval()
    x = torch.randn(2, 3, 32, 32)
    torch.testing.assert_close(model.get_submodule(classifier_name(model))(features(model, x)), model(x))
    assert not any(m._forward_pre_hooks for m in model.modules())


def test_features_follow_the_models_mode():
    model = zoo.create_model("lenet5", dropout=0.5)
    x = torch.randn(8, 1, 28, 28)
    assert not torch.equal(features(model.train(), x), features(model, x))
    assert torch.equal(features(model.eval(), x), features(model, x))
    assert not model.training


@pytest.mark.parametrize(
    "model", [zoo.create_model("lenet5"), timm.create_model("test_resnet"), torchvision.models.mobilenet_v2()]
)
def test_a_fresh_classifier(model):
    model = model.double().eval()
    before = torch.get_rng_state()
    reset_classifier_(model, 7, torch.Generator().manual_seed(0))
    assert torch.equal(before, torch.get_rng_state())
    layer = model.get_submodule(classifier_name(model))
    assert layer.out_features == 7
    assert layer.weight.dtype == torch.float64
    assert not layer.training
    assert layer.bias.count_nonzero() == 0
    assert 0.008 < layer.weight.std() < 0.011
    assert layer.weight.requires_grad
    assert getattr(model, "num_classes", 7) == 7
    first = layer.weight.clone()
    reset_classifier_(model, 7, torch.Generator().manual_seed(0))
    assert torch.equal(model.get_submodule(classifier_name(model)).weight, first)
    with pytest.raises(ValueError, match="n=0 classes"):
        reset_classifier_(model, 0)


class OtherConv(nn.Conv2d):
    pass


def test_a_fresh_classifier_is_a_layer_of_the_same_kind():
    """timm's own Linear, and whatever else says that it is one: surgery compares it with the architecture's."""
    for layer in (timm.layers.Linear(6, 4), OtherConv(6, 4, 1, bias=False)):
        model = nn.Sequential(nn.Conv2d(3, 6, 1), layer)
        reset_classifier_(model, 9)
        assert type(model[1]) is type(layer)
        assert model[1].weight.shape[:2] == (9, 6)
        assert (model[1].bias is None) == (layer.bias is None)
        assert f"{'out_features' if isinstance(layer, nn.Linear) else 'out_channels'}=9" in str(vars(model[1])).replace(
            "': ", "="
        )


@pytest.mark.parametrize(
    ("head", "expected"),
    [
        (lambda model: None, "2.1"),  # it does not say
        (lambda model: model[2], "2.1"),  # a head that is a small network of its own
        (lambda model: model[1], "1"),
    ],
)
def test_the_classifier_that_a_model_names(head, expected):
    model = nn.Sequential(nn.Conv2d(3, 3, 1), nn.Linear(3, 3), nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 5)))
    model.get_classifier = lambda: head(model)
    assert classifier_name(model) == expected


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: nn.Sequential(nn.Conv2d(3, 3, 3)), "Sequential has no nn.Linear"),
        (lambda: timm.create_model("test_resnet", num_classes=0), "ResNet ends in Identity"),
        (lambda: timm.create_model("deit_tiny_distilled_patch16_224"), "VisionTransformerDistilled ends in 2 layers"),
    ],
)
def test_what_is_no_classifier_says_so(build, message):
    with torch.device("meta"):
        model = build()
    with pytest.raises(UsageError, match=message):
        classifier_name(model)


def test_an_unused_classifier_is_an_error():
    class Unused(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(2, 2)

        def forward(self, x):
            return x

    with pytest.raises(TypeError, match="Unused did not call its classifier 'fc'"):
        features(Unused(), torch.zeros(1, 2))


# the published parts of each, in the order in which an image goes through them
STAGES = {
    "torchvision:resnet18": ["conv1", "layer1", "layer2", "layer3", "layer4", "fc"],
    "torchvision:vit_b_16": ["conv_proj", *(f"encoder.layers.encoder_layer_{i}" for i in range(12)), "heads.head"],
    "torchvision:mobilenet_v2": [*(f"features.{i}" for i in range(19)), "classifier.1"],
    "timm:convnext_tiny": ["stem", *(f"stages.{i}" for i in range(4)), "head.fc"],
    "timm:swin_tiny_patch4_window7_224": ["patch_embed", *(f"layers.{i}" for i in range(4)), "head.fc"],
    "timm:vit_tiny_patch16_224": ["patch_embed", *(f"blocks.{i}" for i in range(12)), "head"],
}


@pytest.mark.parametrize("name", STAGES)
def test_stages_of_upstream_models(name):
    with torch.device("meta"):
        model = zoo.create_model(name)
    found = stages(model)
    assert [stage.name for stage in found] == STAGES[name]
    order = [p for stage in found for p in stage.parameters]
    assert len(order) == len(set(order)) == len(list(model.parameters()))
    if "vit_tiny" in name:
        assert {id(p) for p in (model.cls_token, model.pos_embed)} <= {id(p) for p in found[0].parameters}
        assert {id(p) for p in model.norm.parameters()} <= {id(p) for p in found[-2].parameters}


@pytest.mark.parametrize("name", ["timm:xcit_nano_12_p16_224", "timm:volo_d1_224", "timm:hgnetv2_b0", "timm:coat_tiny"])
def test_no_stage_is_the_whole_network(name):
    with torch.device("meta"):
        model = zoo.create_model(name)
    found = stages(model)
    sizes = [sum(p.numel() for p in stage.parameters) for stage in found[:-1]]
    assert max(sizes) < 0.8 * sum(sizes)
    order = [p for stage in found for p in stage.parameters]
    assert len(order) == len(set(order)) == len(list(model.parameters()))
    torch.optim.SGD([{"params": stage.parameters} for stage in found], lr=0.1)


def test_a_classifier_without_a_bias_stays_without():
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 3, bias=False))
    reset_classifier_(model, 5)
    assert list(model.state_dict()) == ["1.weight"]
    assert model(torch.ones(1, 4)).shape == (1, 5)


def test_a_convolution_can_be_the_classifier():
    """timm's ResNetV2 and torchvision's SqueezeNet: features are what pooling after it would have made of them."""
    squeezenet = torchvision.models.squeezenet1_1(num_classes=7).eval()
    x = torch.randn(2, 3, 64, 64)
    assert classifier_name(squeezenet) == "classifier.1"
    with torch.no_grad():
        torch.testing.assert_close(features(squeezenet, x), squeezenet.features(x).mean((2, 3)))
    reset_classifier_(squeezenet, 4)
    assert squeezenet(x).shape == (2, 4)
    resnetv2 = timm.create_model("resnetv2_50", num_classes=7).eval()
    with torch.no_grad():
        theirs = resnetv2.forward_head(resnetv2.forward_features(x), pre_logits=True)
        torch.testing.assert_close(features(resnetv2, x), theirs)


def test_auxiliary_classifiers_follow():
    model = torchvision.models.googlenet(num_classes=1000, aux_logits=True, init_weights=False)
    reset_classifier_(model, 5)
    logits, aux2, aux1 = model.train()(torch.randn(2, 3, 64, 64))
    assert logits.shape == aux2.shape == aux1.shape == (2, 5)
    assert [stage.name for stage in stages(model)][-1] == "fc"
