"""A pruned network computes what the masked one computes: every family of the zoo, and others of timm's."""

import copy
import subprocess
import sys

import numpy as np
import onnxruntime
import pytest
import torch
from shaken_models import shake_, tiny

from compress.graph.network import export_network
from zoo.create import create_model
from zoo.files.directory import new_directory
from zoo.files.model_directory import ModelConfig, save_model
from zoo.models.registry import list_models, model_entry
from zoo.preprocess import Preprocess

RECURRENT = ("gru", "lstm")  # they stay whole, see test_structured.py
NAMES = [name for name in list_models() if name not in RECURRENT]
FAMILIES = [name for name in NAMES if model_entry(name).tiny]
TIMM = {  # one a family, at the smallest size that it runs at
    "resnet18": 64,
    "regnety_002": 64,
    "regnetx_002": 64,
    "densenet121": 64,
    "efficientnet_b0": 64,
    "tf_efficientnet_lite0": 64,
    "mobilenetv3_small_100": 64,
    "convnext_atto": 64,
    "vit_tiny_patch16_224": 64,
    "deit_tiny_patch16_224": 64,
    "swin_tiny_patch4_window7_224": 64,
    "mixer_s32_224": 224,
    "resnest14d": 64,
    "ghostnet_050": 64,
    "resnext50_32x4d": 64,
    "vgg11_bn": 64,
    "inception_v3": 96,
    "mobilenetv2_050": 64,
}
SIZED = ("vit_tiny_patch16_224", "deit_tiny_patch16_224", "swin_tiny_patch4_window7_224")
LOAD = """
import sys, numpy as np, torch
from zoo import load_model
torch.set_num_threads(1)
for directory in sys.argv[1:]:
    loaded = load_model(directory)
    x = torch.from_numpy(np.load(directory + "/../x.npy"))
    with torch.no_grad():
        np.save(directory + "/../logits.npy", loaded.model(x).numpy())
"""


def of_timm(name: str) -> tuple[torch.nn.Module, tuple[int, int, int], dict[str, object]]:
    side, options = TIMM[name], {"num_classes": 10}
    if name in SIZED:
        options["img_size"] = side
    torch.manual_seed(0)
    return shake_(create_model(f"timm:{name}", **options).eval()), (3, side, side), options


@pytest.mark.parametrize("name", FAMILIES)
def test_families(name, assert_cut_is_mask):
    assert_cut_is_mask(*tiny(name))


@pytest.mark.parametrize("name", ["vit_tiny", "convnext_tiny"])
def test_normalized_widths(name, assert_cut_is_mask):
    """The residual stream, which every LayerNorm sees: class token, positions and LayerScale are cut with it."""
    model, size = tiny(name)
    smaller = assert_cut_is_mask(model, size, normalized=True)
    norms = [m for m in smaller.modules() if isinstance(m, torch.nn.LayerNorm)]
    assert all(norm.weight.shape == norm.normalized_shape for norm in norms)
    assert len(norms[-1].weight) < max(len(m.weight) for m in model.modules() if isinstance(m, torch.nn.LayerNorm))


@pytest.mark.parametrize("norm", ["group", "layer"])
def test_group_norms(norm, assert_cut_is_mask):
    """Whole groups of a GroupNorm go, or channels from all of them alike; the mask normalizes over what is kept."""
    torch.manual_seed(0)
    model, size = shake_(create_model("resnet20", norm=norm).eval()), (3, 16, 16)
    smaller = assert_cut_is_mask(model, size, normalized=True)
    norms = [m for m in smaller.modules() if isinstance(m, torch.nn.GroupNorm)]
    assert all(m.num_channels == len(m.weight) and m.num_channels % m.num_groups == 0 for m in norms)
    assert norms[0].num_channels < 16


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_every_name(name, assert_cut_is_mask):
    entry = model_entry(name)
    if entry.kind == "sequence":
        torch.manual_seed(0)
        assert_cut_is_mask(shake_(create_model(name).eval()), entry.input_size)
        return
    side = 224 if entry.family == "vit" and entry.input_size[1] == 224 else min(entry.input_size[1], 64)
    torch.manual_seed(0)
    assert_cut_is_mask(shake_(create_model(name).eval()), (entry.input_size[0], side, side))


@pytest.mark.slow
@pytest.mark.parametrize("name", TIMM)
def test_timm(name, assert_cut_is_mask, tmp_path):
    """And: the cut model is saved, loads with the same bits in a fresh process, and answers alike as ONNX."""
    model, size, options = of_timm(name)
    smaller = assert_cut_is_mask(model, size).eval()
    assert_survives(smaller, f"timm:{name}", options, size, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("name", [n for n in FAMILIES if model_entry(n).kind == "classifier"])
def test_families_survive(name, assert_cut_is_mask, tmp_path):
    model, size = tiny(name)
    assert_survives(assert_cut_is_mask(model, size).eval(), name, dict(model_entry(name).tiny), size, tmp_path)


def assert_survives(model, architecture, options, size, folder):
    x = torch.randn(2, *size, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        expected = model(x).numpy()
    gray = {"mean": (0.5,), "std": (0.5,)} if size[0] == 1 else {}
    config = ModelConfig(
        architecture=architecture, model_args=options, classes=None, preprocess=Preprocess(size=size[1:], **gray)
    )
    with new_directory(folder / "model", run={}) as work:
        save_model(work, model, config)
    np.save(folder / "x.npy", x.numpy())
    subprocess.run([sys.executable, "-c", LOAD, str(folder / "model")], check=True)
    np.testing.assert_array_equal(np.load(folder / "logits.npy"), expected)
    session = onnxruntime.InferenceSession(export_network(model, size).SerializeToString())
    (logits,) = session.run(None, {"input": x.numpy()})
    with torch.no_grad():
        exact = copy.deepcopy(model).double()(x.double()).numpy()
    rounding = np.abs(expected - exact).max()  # of float32 in this network: large where random weights amplify it
    np.testing.assert_allclose(logits, exact, rtol=0, atol=max(1e-4 * expected.std(), 4 * rounding))
