"""`slimzoo models` and `slimzoo info`, as one types them."""

from __future__ import annotations

import json

import pytest
import timm
import torch
import torchvision

import zoo
from compress.cli import app
from zoo import cards
from zoo.console import run
from zoo.models.registry import model_entry


@pytest.fixture
def slimzoo(capsys):
    def call(*words: str, code: int = 0) -> tuple[str, str]:
        with pytest.raises(SystemExit) as done:
            run(app, "slimzoo", list(words))
        printed = capsys.readouterr()
        assert done.value.code == code, printed.err
        return printed.out, printed.err

    return call


def test_the_list_has_every_model_with_what_it_costs(slimzoo):
    out, err = slimzoo("models", "--json")
    listed = json.loads(out)["models"]
    assert [c["name"] for c in listed] == zoo.list_models()
    assert "resnet152" in err
    fields = {"name", "family", "kind", "params", "macs", "input_size", "pretrained", "offline"}
    assert all(set(c) == fields for c in listed)


@pytest.mark.parametrize(
    "name", [*zoo.list_models("*lenet*"), "resnet50", "googlenet", "segnet", "lstm", "tf_efficientnet_lite4"]
)
def test_recorded_costs_are_counted_ones(name):
    line = cards.brief(name)
    assert (line["params"], line["macs"]) == cards.count(name)


@pytest.mark.slow
def test_all_recorded_costs_are_counted_ones():
    assert {name: tuple(cost) for name, cost in json.loads(cards.COSTS.read_text()).items()} == {
        name: cards.count(name) for name in zoo.list_models()
    }


def test_every_model_is_on_record():
    assert list(json.loads(cards.COSTS.read_text())) == zoo.list_models(), "run python benchmarks/readme.py"


def test_pattern_sort_and_offline(slimzoo):
    out, _ = slimzoo("models", "res*", "--sort", "macs", "--json")
    found = json.loads(out)["models"]
    assert {c["family"] for c in found} == {"resnet"}
    assert [c["macs"] for c in found] == sorted(c["macs"] for c in found)
    out, _ = slimzoo("models", "--offline", "--json")
    offline = {c["name"] for c in json.loads(out)["models"]}
    assert {"lenet5_caffe", "resnet20", "tf_efficientnet_lite0"} <= offline
    assert "alexnet" not in offline
    out, _ = slimzoo("models", "res*", "--offline")
    assert [line.split()[0] for line in out.splitlines()] == ["name", "resnet20"]


def test_no_match_says_what_there_is(slimzoo):
    out, _ = slimzoo("models", "zzz*")
    assert out == "no model matches 'zzz*'; `slimzoo models` lists all, and timm's are named timm:NAME\n"
    slimzoo("models", "--sort", "colour", code=2)


def test_a_card(slimzoo):
    out, _ = slimzoo("info", "resnet50")
    card = {line[:18].strip(): line[18:].strip() for line in out.splitlines()}
    assert card["parameters"] == "25,557,032"
    assert card["MACs"] == "4,089,184,256"
    assert "427x427 pixels, then the whole image" in out
    assert "76.13 (published: torchvision, acc@1 of resnet50.IMAGENET1K_V1)" in card["metrics"]
    assert "https://arxiv.org/abs/1512.03385" in card["paper"]


@pytest.mark.parametrize(
    ("name", "source", "licence"),
    [
        ("timm:resnet50.a1_in1k", "timm:resnet50.a1_in1k", "apache-2.0"),
        ("timm:resnet50", f"timm:resnet50.{timm.get_pretrained_cfg('resnet50').tag}", "apache-2.0"),
        ("torchvision:resnet50", "torchvision:resnet50.IMAGENET1K_V2, resnet50-11ad3fa6.pth", "not stated"),
        ("torchvision:resnet50.IMAGENET1K_V1", "torchvision:resnet50.IMAGENET1K_V1, resnet50-0676ba61.pth", "not"),
    ],
)
def test_cards_of_upstream_models_name_their_weights(slimzoo, name, source, licence):
    card = json.loads(slimzoo("info", name, "--json")[0])
    assert (card["weights"], card["pretrained"], card["offline"]) == (source, True, False)
    assert card["licence"].startswith(licence)
    assert card["params"] == 25_557_032
    if name.startswith("torchvision"):
        meta = torchvision.models.get_weight("ResNet50_Weights." + source.partition(".")[2].partition(",")[0]).meta
        assert card["metrics"]["imagenet1k_top1_pct"]["value"] == meta["_metrics"]["ImageNet-1K"]["acc@1"]


def test_an_upstream_model_without_weights(slimzoo):
    out, _ = slimzoo("info", "timm:efficientnet_lite4")
    assert "pretrained         no" in out
    _, err = slimzoo("info", "keras:resnet50", code=2)
    assert err.startswith("error: unknown source 'keras' in 'keras:resnet50'")


def test_layers_add_up(slimzoo):
    out, err = slimzoo("info", "lenet5", "--layers", "--json")
    card = json.loads(out)
    for key in ("params", "macs", "other_ops", "activation_bytes"):
        assert sum(layer[key] for layer in card["layers"]) == card[key]
    assert card["params"] == 61_706
    (line,) = [line for line in err.splitlines() if line.startswith("conv2 ")]
    assert line.split() == ["conv2", "Conv2d", "16x10x10", "2,416", "240,000", "1,600", "6.4", "kB", "14x14"]


@pytest.mark.parametrize("name", ["resnet18", "torchvision:resnet18", "timm:resnet18"])
def test_another_size_of_anyones_model(slimzoo, name):
    """Torchvision's own count is for 224 px; a fully convolutional network's grows with the area."""
    gmacs = torchvision.models.ResNet18_Weights.DEFAULT.meta["_ops"]
    small, large = (json.loads(slimzoo("info", name, "--size", side, "--json")[0]) for side in ("224", "448"))
    assert small["macs"] / 1e9 == pytest.approx(gmacs, abs=5e-4)
    assert large["macs"] - 512_000 == 4 * (small["macs"] - 512_000)
    assert large["params"] == small["params"]
    assert large["input_size"] == [3, 448, 448]


def test_a_size_that_the_model_does_not_take(slimzoo):
    _, err = slimzoo("info", "vit_tiny", "--size", "50", code=2)
    assert err == "error: model 'vit_tiny': image_size=50 is not a multiple of patch_size=16\n"
    _, err = slimzoo("info", "alexnet", "--size", "16", code=2)
    assert err.startswith("error: alexnet does not take (3, 16, 16): ")


def test_cards_of_other_kinds(slimzoo):
    out, _ = slimzoo("info", "segnet")
    assert "dense" in out
    assert "Next" not in out
    out, _ = slimzoo("info", "lstm")
    assert "receptive field" not in out


def test_the_package_carries_what_it_lists():
    with torch.no_grad():
        for name in ("lenet5_caffe", "resnet20"):
            assert (
                zoo.create_model(name, pretrained=True)(torch.zeros(1, *model_entry(name).input_size)).isfinite().all()
            )
