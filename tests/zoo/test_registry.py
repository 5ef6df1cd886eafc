import pytest
import torch
from torch import nn

import zoo
from zoo import registry
from zoo.errors import UsageError

ALL = [name for name in zoo.list_models() if registry.model_entry(name).tiny is not None]


def tiny(name: str) -> tuple[nn.Module, tuple[int, ...]]:
    """The smallest instance of a family, and the images it takes."""
    entry = registry.model_entry(name)
    size = entry.tiny.get("image_size", min(entry.input_size[-1], 64))
    return entry.build(**entry.tiny), (entry.input_size[0], size, size)


def test_the_list_is_sorted_and_filtered():
    assert zoo.list_models("resnet[12]?") == ["resnet18", "resnet20"]


@pytest.mark.parametrize("name", ALL)
def test_every_model_has_a_tiny_instance_that_trains(name):
    model, size = tiny(name)
    logits = model(torch.randn(4, *size))
    assert logits.shape == (4, 10)
    logits.sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
    assert sum(p.numel() for p in model.parameters()) < 60_000


@pytest.mark.parametrize("name", ALL)
def test_common_arguments(name):
    _, size = tiny(name)
    options = registry.model_entry(name).tiny
    model = zoo.create_model(name, **{**options, "num_classes": 7, "in_channels": 2, "dropout": 0.5}).eval()
    assert model.num_classes == 7
    assert model(torch.randn(1, 2, *size[1:])).shape == (1, 7)
    assert any(isinstance(m, nn.Dropout) and m.p == 0.5 for m in model.modules())


@pytest.mark.parametrize("name", ALL)
def test_batch_of_one_equals_its_row_in_a_larger_batch(name):
    model, size = tiny(name)
    model, x = model.double().eval(), torch.randn(3, *size).double()
    torch.testing.assert_close(model(x)[1:2], model(x[1:2]))


@pytest.mark.parametrize("name", ["resnet18", "resnet50", "resnet20", "efficientnet_lite0", "tf_efficientnet_lite0"])
def test_convolutional_networks_take_any_size(name):
    model, (channels, _, _) = tiny(name)
    assert model.eval()(torch.randn(1, channels, 65, 50)).shape == (1, 10)


@pytest.mark.parametrize("name", ALL)
def test_every_family_names_its_paper_in_the_first_line(name):
    paper = registry.model_entry(name).paper
    assert "et al. " in paper or "&" in paper
    assert any(str(year) in paper for year in range(1989, 2027))
    assert "https://" in paper


def test_an_unknown_model_offers_near_names():
    with pytest.raises(UsageError, match=r"unknown model 'resnet19': did you mean 'resnet18'"):
        zoo.create_model("resnet19")


def test_an_unknown_option_is_a_usage_error():
    with pytest.raises(UsageError, match=r"model 'lenet5': .*unexpected keyword argument 'depht'"):
        zoo.create_model("lenet5", depht=2)


def test_a_name_is_registered_once(monkeypatch):
    monkeypatch.setattr(registry, "_ENTRIES", dict(registry._ENTRIES))
    with pytest.raises(ValueError, match=r"'lenet5' is registered twice: by zoo\.lenet and torch\.nn"):
        registry.register_model("lenet5", nn.Identity)
