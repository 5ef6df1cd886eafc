import pytest
import torch
from torch import nn

import zoo
from zoo.errors import UsageError
from zoo.models import registry


def test_the_list_is_filtered_and_in_natural_order():
    assert zoo.list_models("resnet*")[:5] == ["resnet18", "resnet20", "resnet32", "resnet34", "resnet44"]
    assert "vgg11" not in zoo.list_models("*_bn")
    assert set(zoo.list_models(kind="sequence")) == {"lstm", "gru", "transformer_encoder"}
    assert zoo.list_models(kind="dense") == ["segnet"]
    each = {name for kind in ("classifier", "dense", "sequence") for name in zoo.list_models(kind=kind)}
    assert each == set(zoo.list_models())


@pytest.mark.parametrize("name", ["resnet18", "vgg16", "efficientnet_lite0", "tf_efficientnet_lite0", "squeezenet1_1"])
def test_convolutional_networks_take_any_size(name):
    with torch.device("meta"):
        assert zoo.create_model(name).eval()(torch.empty(1, 3, 65, 50)).shape == (1, 1000)


def test_an_unknown_model_offers_near_names():
    with pytest.raises(UsageError, match=r"unknown model 'resnet19': did you mean 'resnet18'"):
        zoo.create_model("resnet19")


def test_an_unknown_option_is_a_usage_error():
    with pytest.raises(UsageError, match=r"model 'lenet5': .*unexpected keyword argument 'depht'"):
        zoo.create_model("lenet5", depht=2)


def test_a_name_is_registered_once(monkeypatch):
    monkeypatch.setattr(registry, "_ENTRIES", dict(registry._ENTRIES))
    with pytest.raises(ValueError, match=r"'lenet5' is registered twice: by zoo\.models\.lenet and torch\.nn"):
        registry.register_model("lenet5", nn.Identity)


@pytest.mark.parametrize("what", ["activation", "norm", "init"])
def test_what_if_is_no_question_to_trained_weights(what):
    with pytest.raises(UsageError, match="those weights fit the paper's"):
        zoo.create_model("tf_efficientnet_lite0", pretrained=True, **{what: "none"})
