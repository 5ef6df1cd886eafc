"""What every registered model can do, asked of every registered model: nothing here names one.

Fast: one variant a family, at its TINY size. Slow (-m slow): every name, at the size of the paper.
"""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.datasets import load_sample_image
from torch import nn

import zoo
from compress.cli import app
from compress.graph.network import export_network
from zoo.classifier import classifier, classifier_name, features, reset_classifier_, stages
from zoo.console import run
from zoo.files.directory import new_directory
from zoo.files.model_directory import ModelConfig, load_model, save_model
from zoo.models.layers import DropPath
from zoo.models.registry import FAMILIES, Entry, model_entry
from zoo.preprocess import Preprocess

ROOT = Path(__file__).parents[1]


@dataclass(frozen=True)
class Instance:
    """A registered model with the arguments to build it with."""

    entry: Entry
    arguments: dict[str, Any]

    @property
    def input_size(self) -> tuple[int, ...]:
        size = self.entry.input_size
        if not self.arguments or len(size) != 3:
            return size
        side = self.arguments.get("image_size", min(size[-1], 64))
        return (size[0], side, side)

    def build(self, **more: Any) -> nn.Module:
        torch.manual_seed(0)
        return zoo.create_model(self.entry.name, **{**self.arguments, **more})

    def noise(self, batch: int) -> torch.Tensor:
        return torch.randn(batch, *self.input_size, generator=torch.Generator().manual_seed(batch))

    def preprocess(self) -> Preprocess:
        grey = {"mean": (0.5,), "std": (0.5,)} if self.input_size[0] == 1 else {}
        return Preprocess(size=self.input_size[1:], **grey)

    def photos(self, batch: int) -> torch.Tensor:
        """Crops of two photographs as the network takes them."""
        photos, rng = [load_sample_image("china.jpg"), load_sample_image("flower.jpg")], np.random.default_rng(0)
        p, crops = self.preprocess(), []
        for i in range(batch):
            top, left = rng.integers(0, 200, 2)
            crops.append(p.resize(photos[i % 2][top : top + 200, left : left + 200]))
        return torch.from_numpy(p.normalize(np.stack(crops)))


def instances(*kinds: str) -> list[Any]:
    """Tiny ones for every run, full-size ones for -m slow."""
    found = []
    for name in zoo.list_models():
        entry = model_entry(name)
        if entry.kind in kinds:
            if entry.tiny is not None:
                found.append(pytest.param(Instance(entry, entry.tiny), id=f"{name}-tiny"))
            found.append(pytest.param(Instance(entry, {}), id=name, marks=pytest.mark.slow))
    return found


every_classifier = pytest.mark.parametrize("instance", instances("classifier"))
every_model = pytest.mark.parametrize("instance", instances("classifier", "dense", "sequence"))


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_has_a_tiny_instance_and_names_its_paper(family):
    entries = [e for e in map(model_entry, zoo.list_models()) if e.family == family]
    assert any(e.tiny for e in entries)
    paper = entries[0].paper
    assert "et al. " in paper or "&" in paper
    assert any(str(year) in paper for year in range(1958, 2027))
    assert "https://" in paper
    assert (ROOT / "zoo/models" / f"{family}.py").read_text(encoding="utf-8").count("\n") < 320


@every_model
def test_every_parameter_learns(instance):
    model = instance.build()
    if instance.arguments:
        assert zoo.count_parameters(model) < 100_000
    outputs = model(instance.noise(2))
    assert outputs.shape[:2] == (2, model.num_classes)
    outputs.sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


@every_model
def test_common_arguments(instance):
    channels_first = instance.entry.kind != "sequence"
    model = instance.build(num_classes=7, in_channels=2, dropout=0.5).eval()
    assert model.num_classes == 7
    shape = (2, *instance.input_size[1:]) if channels_first else (instance.input_size[0], 2)
    assert model(torch.zeros(1, *shape)).shape[1] == 7
    assert any(isinstance(m, nn.Dropout) and m.p == 0.5 for m in model.modules())


@every_model
def test_stochastic_depth_grows_linearly_and_sleeps_in_evaluation(instance):
    try:
        model = instance.build(drop_path=0.5)
    except zoo.errors.UsageError:
        pytest.skip("the paper has no stochastic depth")
    rates = [m.p for m in model.modules() if isinstance(m, DropPath)]
    assert rates == sorted(rates)
    assert 0.25 <= rates[-1] <= 0.5
    assert np.ptp(np.diff(np.unique(rates))) < 1e-6
    x = instance.noise(2)
    assert torch.equal(model.eval()(x), model(x))
    assert not any(m.p for m in instance.build().modules() if isinstance(m, DropPath))


@every_model
def test_one_image_equals_its_row_in_a_batch(instance):
    model, x = instance.build().double().eval(), instance.noise(3).double()
    with torch.no_grad():
        torch.testing.assert_close(model(x)[1:2], model(x[1:2]))


@every_classifier
def test_features_and_classifier_give_the_logits(instance):
    model, x = instance.build().eval(), instance.noise(2)
    with torch.no_grad():
        found, logits = features(model, x), model(x)
        head = classifier(model)
        assert found.shape == (2, head.weight.shape[1])
        if isinstance(head, nn.Linear):
            torch.testing.assert_close(head(found), logits)
    assert not any(m._forward_pre_hooks for m in model.modules())


@every_classifier
def test_a_fresh_classifier_changes_nothing_before_it(instance):
    model, x = instance.build().eval(), instance.noise(2)
    with torch.no_grad():
        before = features(model, x)
        reset_classifier_(model, 5, torch.Generator().manual_seed(0))
        assert torch.equal(features(model, x), before)
        assert model(x).shape == (2, 5)
    assert model.num_classes == 5


@every_classifier
def test_stages_hold_every_parameter_once_and_end_in_the_classifier(instance):
    model = instance.build()
    found = stages(model)
    order = [p for stage in found for p in stage.parameters]
    assert len(order) == len(set(order))
    assert set(order) == set(model.parameters())
    assert found[-1].name == classifier_name(model)
    assert set(found[-1].parameters) == set(classifier(model).parameters())
    assert len(found) >= 3
    names = [name for name, _ in model.named_modules()]
    assert [stage.name for stage in found] == sorted((s.name for s in found), key=names.index)


@every_model
def test_the_cost_of_the_layers_adds_up(instance):
    model = instance.build()
    cost = zoo.count_cost(model, instance.input_size)
    assert sum(layer.params for layer in cost.layers) == cost.params == zoo.count_parameters(model)
    assert cost.macs > 0
    assert cost.peak_activation_bytes <= cost.activation_bytes + 4 * np.prod(instance.input_size)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@every_model
def test_the_gpu_computes_the_same(instance):
    model, x = instance.build().double().eval(), instance.noise(2).double()
    with torch.no_grad():
        expected = model(x)
        got = model.cuda()(x.cuda()).cpu()
    assert (got - expected).abs().max() <= 1e-9 * expected.std()


@pytest.mark.filterwarnings("ignore:The tensor attributes self.core._flat_weights")  # torch's own LSTM and GRU
@every_model
def test_survives_torch_export(instance):
    model, x = instance.build().eval(), instance.noise(2)
    program = torch.export.export(model, (x,), dynamic_shapes=({0: torch.export.Dim("batch")},))
    with torch.no_grad():
        for batch in (2, 3):
            torch.testing.assert_close(program.module()(instance.noise(batch)), model(instance.noise(batch)))


@every_classifier
def test_the_onnx_file_agrees_on_real_images_at_any_batch(instance):
    import onnxruntime

    model = instance.build().eval()
    network = export_network(model, instance.input_size)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(network.SerializeToString(), options, providers=["CPUExecutionProvider"])
    for batch in (1, 3, 8):
        x = instance.photos(batch)
        with torch.no_grad():
            expected = model(x).numpy()
        (got,) = session.run(None, {"input": x.numpy()})
        assert got.shape == expected.shape
        assert np.abs(got - expected).max() <= 1e-4 * expected.std(), batch


@every_classifier
def test_pruned_by_the_command_saved_loaded_and_run(instance, tmp_path, capsys):
    model, arguments = instance.build(), {**instance.arguments}
    config = ModelConfig(
        architecture=instance.entry.name, model_args=arguments, classes=None, preprocess=instance.preprocess()
    )
    with new_directory(tmp_path / "whole", run={"verb": "test", "arguments": {}}) as work:
        save_model(work, model, config)
    words = ["prune", str(tmp_path / "whole"), "--macs", "0.7", "--recover", "0", "--out", str(tmp_path / "pruned")]
    with pytest.raises(SystemExit) as done:
        run(app, "slimzoo", [*words, "--json"])
    printed = capsys.readouterr()
    assert done.value.code == 0, printed.err
    json.loads(printed.out)
    pruned = load_model(tmp_path / "pruned").model
    assert zoo.count_macs(pruned, instance.input_size) <= 0.7 * zoo.count_macs(model, instance.input_size)
    with torch.no_grad():
        for batch in (1, 3):
            assert pruned(instance.noise(batch)).shape == (batch, model.num_classes)


TOY = '''"""Toy (Nobody et al. 2026, https://example.org): a family that nobody knew when the tests were written."""

from torch import Tensor, nn

from zoo.models.registry import register_model

TINY: dict[str, dict[str, object]] = {"toy": {"width": 32}}


class Toy(nn.Module):
    def __init__(self, *, width: int = 64, num_classes: int = 10, in_channels: int = 3, dropout: float = 0.0) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.stem = nn.Conv2d(in_channels, width, 3, stride=2)
        self.norm = nn.BatchNorm2d(width)
        self.act = nn.ReLU()
        self.body = nn.Conv2d(width, width, 3, stride=2)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.flatten = nn.Flatten()
        self.drop = nn.Dropout(dropout)
        self.fc = nn.Linear(width, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.drop(self.flatten(self.pool(self.body(self.act(self.norm(self.stem(x))))))))BREAK


toy = register_model("toy", Toy, input_size=(3, 32, 32))
'''


@pytest.mark.parametrize("broken", [False, True])
def test_a_new_family_is_covered_unasked(tmp_path, broken):
    """One file that is imported: every test above runs on it, and fails if the family does not keep the contract."""
    (tmp_path / "toy.py").write_text(TOY.replace("BREAK", "[:1].repeat(len(x), 1)" if broken else ""), encoding="utf-8")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "toy", "-k", "toy-tiny", __file__]
    environment = {"PYTHONPATH": f"{tmp_path}:{ROOT}", "PATH": "/usr/bin:/bin", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=environment)
    if broken:
        assert "test_one_image_equals_its_row_in_a_batch[toy-tiny]" in done.stdout
        assert "test_features_and_classifier_give_the_logits[toy-tiny]" in done.stdout
    else:
        assert done.returncode == 0, done.stdout
        assert "10 passed, 1 skipped" in done.stdout
