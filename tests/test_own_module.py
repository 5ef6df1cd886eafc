"""A module that is in neither zoo nor timm, on tensors in memory, goes the whole way that a directory goes."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import slimzoo
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from zoo.errors import UsageError

SIZE = (2, 12, 12)  # of no picture: two channels


class Net(nn.Module):
    """With a concatenation, a chunk, a transposed convolution and a GroupNorm."""

    def __init__(self, width: int = 32, classes: int = 3) -> None:
        super().__init__()
        self.stem = nn.Conv2d(2, width, 3, padding=1, bias=False)
        self.norm = nn.GroupNorm(4, width)
        self.down = nn.Conv2d(width, 2 * width, 3, stride=2, padding=1)
        self.bn = nn.BatchNorm2d(2 * width)
        self.up = nn.ConvTranspose2d(width, width, 2, stride=2)
        self.mix = nn.Conv2d(2 * width, 2 * width, 1)
        self.drop = nn.Dropout(0.1)
        self.head = nn.Linear(2 * width, classes)

    def forward(self, x: Tensor) -> Tensor:
        fine = torch.relu(self.norm(self.stem(x)))
        gate, coarse = torch.relu(self.bn(self.down(fine))).chunk(2, dim=1)
        joined = torch.cat([fine, self.up(gate * coarse)], dim=1)
        return self.head(self.drop(torch.relu(self.mix(joined)).mean((2, 3))))


def images(count: int, seed: int) -> tuple[Tensor, Tensor]:
    """Noise around a mean of each class."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % 3
    means = torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, -1.0]])[labels]
    return torch.randn(count, *SIZE, generator=generator) + means[:, :, None, None], labels


@pytest.fixture(scope="module")
def data() -> slimzoo.Data:
    train = DataLoader(TensorDataset(*images(60, 0)), batch_size=16)
    return slimzoo.from_arrays(train, val=images(30, 1), test=images(30, 2))


@pytest.fixture(scope="module")
def fitted(data: slimzoo.Data) -> slimzoo.Fitted:
    torch.manual_seed(0)
    return slimzoo.fit(data, model=slimzoo.from_module(Net(), SIZE), method="scratch", epochs=10, batch=8)


def _answers(result: Any, x: Tensor) -> Any:
    with torch.no_grad():
        return result.model(x).numpy()


def _in_fresh_process(place: Path, x: Tensor) -> dict[str, Any]:
    np.save(place.parent / "x.npy", x.numpy())
    script = f"""
import json, sys, numpy as np, torch
import slimzoo
loaded = slimzoo.load_model({str(place)!r})
with torch.no_grad():
    y = loaded.model(torch.from_numpy(np.load({str(place.parent / "x.npy")!r})))
try:
    slimzoo.prune({str(place)!r}, macs=0.5, recover=0)
    refused = None
except slimzoo_error as error:
    refused = str(error)
print(json.dumps({{"y": y.tolist(), "refused": refused, "main": "Net" in dir(sys.modules["__main__"])}}))
""".replace("import slimzoo\n", "import slimzoo\nfrom zoo.errors import SlimzooError as slimzoo_error\n", 1)
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def test_fit_learns_and_is_in_memory(fitted: slimzoo.Fitted) -> None:
    assert fitted.out is None
    assert fitted.after.test is not None
    assert fitted.after.test.top1 > 0.8  # a third by chance
    assert isinstance(fitted.model, Net)


def test_whole_way(fitted: slimzoo.Fitted, data: slimzoo.Data, tmp_path: Path) -> None:
    x, labels = images(32, 3)
    before = {name: tensor.clone() for name, tensor in fitted.model.state_dict().items()}
    pruned = slimzoo.prune(fitted, data=data, macs=0.5, recover=2, round_to=1, allocation="uniform")
    assert isinstance(pruned.model, Net)
    assert pruned.after.macs <= 0.5 * fitted.after.macs
    now, then = pruned.model, fitted.model
    assert now.up.weight.shape[0] < then.up.weight.shape[0]  # across the chunk
    assert now.up.weight.shape[1] < then.up.weight.shape[1]  # across the concatenation
    assert now.stem.weight.shape[0] % 4 == 0  # the GroupNorm's groups stay as wide as they were
    assert now.norm.num_channels == now.stem.weight.shape[0] < then.stem.weight.shape[0]
    sparse = slimzoo.sparsify(pruned, data=data, density=0.5, epochs=1)
    share = sum(int((m.weight != 0).sum()) for m in sparse.model.modules() if isinstance(m, nn.Conv2d | nn.Linear))
    whole = sum(m.weight.numel() for m in sparse.model.modules() if isinstance(m, nn.Conv2d | nn.Linear))
    assert share <= 0.5 * whole + 1
    shared = slimzoo.cluster(sparse, data=data, bits=4, epochs=1)
    assert len(shared.model.mix.weight.unique()) <= 17  # 16 and zero
    torch.manual_seed(1)
    small = slimzoo.from_module(Net(width=16), SIZE, name="Small")
    taught = slimzoo.distill(small, teacher=fitted, data=data, epochs=2)
    assert taught.record["arguments"]["teacher"] == "in memory: Net"
    int8 = slimzoo.quantize(pruned, data=data, max_drop=50)
    assert "int8" in str(int8.lines())
    exported = slimzoo.export(shared)
    session = onnxruntime.InferenceSession(exported.onnx.SerializeToString())
    (found,) = session.run(["logits"], {"input": x.numpy()})
    np.testing.assert_allclose(found, _answers(shared, x), atol=1e-4)
    assert (found.argmax(1) == labels.numpy()).mean() > 0.6
    rows = slimzoo.bench([fitted, pruned, int8], rounds=2, seconds_per_round=0.01)["rows"]
    assert {(row["model"], row["runtime"]) for row in rows if row["median_ms"]} >= {
        ("Net-fit", "onnxruntime"),
        ("Net-fit", "torch"),
        ("Net-fit-prune", "torch"),
        ("Net-fit-prune-quantize", "onnxruntime"),
    }
    after = fitted.model.state_dict()
    assert all(torch.equal(tensor, after[name]) for name, tensor in before.items())  # steps leave their source alone
    for result in (pruned, taught, shared, exported, int8):
        place = result.save(tmp_path / str(id(result)))
        assert not [path for path in place.rglob("*") if path.suffix in (".pt", ".pth", ".pkl")]


def test_saved_loads_in_fresh_process(fitted: slimzoo.Fitted, data: slimzoo.Data, tmp_path: Path) -> None:
    x, _ = images(8, 4)
    pruned = slimzoo.prune(fitted, data=data, macs=0.6, recover=0, round_to=4, out=tmp_path / "pruned")
    assert pruned.out == tmp_path / "pruned"
    found = _in_fresh_process(tmp_path / "pruned", x)
    np.testing.assert_array_equal(np.array(found["y"], dtype=np.float32), _answers(pruned, x))
    assert "slimzoo.from_module" in found["refused"]
    again = slimzoo.load_model(tmp_path / "pruned")  # this process knows the name
    assert isinstance(again.model, Net)
    np.testing.assert_array_equal(_answers(again, x), _answers(pruned, x))


def test_an_interrupted_step_goes_on_to_the_same_bits(fitted, data, tmp_path):
    def interrupted(what, done, total, note):
        if what == "recovery" and done == 3:
            raise KeyboardInterrupt

    given = {"data": data, "macs": 0.6, "recover": 3, "round_to": 4}
    with pytest.raises(KeyboardInterrupt):
        slimzoo.prune(fitted, **given, out=tmp_path / "a", progress=interrupted)
    with pytest.raises(UsageError, match=r"was begun with Net \w+, which was in memory: call `slimzoo\.prune` again"):
        slimzoo.resume(tmp_path / "a")
    again = slimzoo.prune(fitted, **given, out=tmp_path / "a", resume=True)
    whole = slimzoo.prune(fitted, **given)
    for name, tensor in whole.model.state_dict().items():
        assert torch.equal(tensor, again.model.state_dict()[name]), name


class Flat(nn.Module):
    """Flattens by `view`, and names its classifier first."""

    def __init__(self, act: Any = torch.tanh) -> None:
        super().__init__()
        self.act = act
        self.head = nn.Linear(16, 3)
        self.mid = nn.Linear(8 * 5 * 5, 16)
        self.a = nn.Conv2d(2, 8, 3)
        self.b = nn.Conv2d(8, 8, 3, stride=2, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.b(torch.relu(self.a(x))))
        return self.head(self.act(self.mid(x.view(x.shape[0], -1))))


class Sum(nn.Module):
    """Of two classifiers."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.one, self.two = nn.Conv2d(2, 8, 3), nn.Linear(8, 3), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.conv(x)).mean((2, 3))
        return self.one(x) + self.two(x * x)


def test_the_classifier_is_the_layer_that_gives_the_logits(data: slimzoo.Data, tmp_path: Path) -> None:
    torch.manual_seed(0)
    mine = slimzoo.from_module(Flat(), SIZE)
    fitted = slimzoo.fit(data, model=mine, method="finetune", epochs=10, batch=8, out=tmp_path / "flat")
    assert fitted.after.test is not None
    assert fitted.after.test.top1 > 0.8
    assert not torch.equal(fitted.model.head.weight, mine.model.head.weight)
    x, _ = images(8, 4)
    int8 = slimzoo.quantize(fitted, data=data, to="fp16")  # and through every channels-last place
    assert slimzoo.evaluate(int8, data).evaluation.top1 == pytest.approx(fitted.after.test.top1, abs=0.04)
    found = _in_fresh_process(tmp_path / "flat", x)
    np.testing.assert_allclose(np.array(found["y"]), _answers(fitted, x), atol=1e-5)


def test_of_two_modules_of_one_class_each_is_loaded_as_it_was(data: slimzoo.Data, tmp_path: Path) -> None:
    """Their functions are no attributes that a record could hold."""
    torch.manual_seed(0)
    fitted = slimzoo.fit(
        data, model=slimzoo.from_module(Flat(torch.tanh), SIZE), method="scratch", epochs=1, out=tmp_path / "tanh"
    )
    other = slimzoo.from_module(Flat(torch.sin), SIZE)
    x, _ = images(8, 4)
    np.testing.assert_array_equal(_answers(slimzoo.load_model(tmp_path / "tanh"), x), _answers(fitted, x))
    assert other.config.architecture != fitted.config.architecture
    assert not {other.config.architecture, fitted.config.architecture} & set(slimzoo.list_models()), "not the zoo's"
    first, second = (
        slimzoo.from_module(nn.Sequential(nn.Flatten(), *more), SIZE)
        for more in ([nn.Linear(288, 3)], [nn.Linear(288, 8), nn.ReLU(), nn.Linear(8, 3)])
    )
    slimzoo.distill(first, teacher=second, data=data, epochs=1).save(tmp_path / "taught")


def test_a_sum_of_classifiers_is_trained_and_not_refitted(data: slimzoo.Data) -> None:
    mine = slimzoo.from_module(Sum(), SIZE)
    fitted = slimzoo.fit(data, model=mine, method="scratch", epochs=2, batch=8)
    ratio = fitted.model.one.weight / mine.model.one.weight  # a temperature would divide one of the two alone
    assert ratio.std() > 1e-3
    with pytest.raises(UsageError, match="no layer of Sum gives its logits"):
        slimzoo.fit(data, model=mine, method="finetune", epochs=1)


def test_another_module_does_not_go_on_with_the_first_ones_checkpoints(data: slimzoo.Data, tmp_path: Path) -> None:
    def interrupted(what: str, done: int, total: int, note: str) -> None:
        if what == "recovery" and done == 3:
            raise KeyboardInterrupt

    given: Any = {"data": data, "macs": 0.6, "recover": 3, "round_to": 4, "out": tmp_path / "a"}
    with pytest.raises(KeyboardInterrupt):
        slimzoo.prune(slimzoo.from_module(Flat(), SIZE), **given, progress=interrupted)
    with pytest.raises(UsageError, match="was begun with Flat"):
        slimzoo.prune(slimzoo.from_module(Flat(), SIZE), **given, resume=True)


def test_the_model_in_memory_counts_not_the_one_that_was_written(data: slimzoo.Data, tmp_path: Path) -> None:
    torch.manual_seed(0)
    written = slimzoo.prune(slimzoo.from_module(Net(), SIZE), macs=0.9, recover=0, out=tmp_path / "a")
    with torch.no_grad():
        written.model.head.bias[2] += 1000
    assert set(slimzoo.evaluate(written, data).evaluation.predictions.tolist()) == {2}


def test_wrapped_lazy_and_tied_modules(data: slimzoo.Data, tmp_path: Path) -> None:
    parallel = slimzoo.from_module(nn.DataParallel(Net()), SIZE)
    assert isinstance(parallel.model, Net)
    lazy = slimzoo.from_module(nn.Sequential(nn.LazyConv2d(8, 3), nn.ReLU(), nn.Flatten(), nn.LazyLinear(3)), SIZE)
    slimzoo.fit(data, model=lazy, method="scratch", epochs=1).save(tmp_path / "lazy")
    blocks = [nn.Conv2d(8, 8, 3, padding=1) for _ in range(2)]
    blocks[1].weight = blocks[0].weight
    tied = nn.Sequential(nn.Conv2d(2, 8, 3), *blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 3))
    slimzoo.prune(slimzoo.from_module(tied, SIZE), data=data, macs=0.6, recover=1, round_to=1)


def test_evaluate_leaves_out_what_was_seen(fitted: slimzoo.Fitted, data: slimzoo.Data) -> None:
    own = slimzoo.evaluate(fitted, data)
    assert (own.part, own.evaluation.n) == ("test", 30)
    x, y = images(60, 0)  # those that it was trained on, and ten others
    more, labels = images(10, 9)
    mixed = slimzoo.from_arrays((torch.cat([x, more]), torch.cat([y, labels])), val=0, test=0)
    found = slimzoo.evaluate(fitted, mixed)
    assert found.evaluation.n == 10


def test_pictures_with_a_preprocess(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    labels = np.arange(24) % 2
    pixels = (rng.integers(0, 100, (24, 12, 12, 3)) + 120 * labels[:, None, None, None]).astype(np.uint8)
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 2))
    mine = slimzoo.from_module(
        net, (3, 12, 12), name="tiny", classes=["dark", "bright"], preprocess=slimzoo.Preprocess(size=(12, 12))
    )
    data = slimzoo.from_arrays((pixels, labels), classes=["dark", "bright"], val=0.25, test=0.25)
    slimzoo.fit(data, model=mine, method="scratch", epochs=20, batch=4, out=tmp_path / "mine")
    exported = slimzoo.export(tmp_path / "mine")
    assert (tmp_path / "mine" / "deploy" / "infer.py").is_file()
    session = onnxruntime.InferenceSession(exported.onnx.SerializeToString())
    (found,) = session.run(["probabilities"], {"pixels": pixels})
    assert (found.argmax(1) == labels).mean() > 0.9


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: slimzoo.prune(Net(), macs=0.5), "slimzoo.from_module"),
        (lambda: slimzoo.fit("digits", model=Net()), "slimzoo.from_module"),
        (lambda: slimzoo.prune(slimzoo.from_module(Net(), SIZE), data="digits", macs=0.5), "10 classes"),
        (lambda: slimzoo.from_module(Net(), (3, 12, 12)), "does not take inputs of 3x12x12"),
        (lambda: slimzoo.from_module(nn.Flatten(0), SIZE), "wanted logits"),
        (lambda: slimzoo.from_module(Net(), SIZE, name="resnet18"), "is a model of the zoo"),
        (lambda: slimzoo.from_module(Net(), SIZE, classes=["a"]), "names 1"),
        (lambda: slimzoo.from_module(Net(), SIZE, classes=["a", "b", "a"]), "names 2 different"),
        (lambda: slimzoo.from_module(Net(), SIZE, name="../evil"), "a letter first"),
        (lambda: slimzoo.from_module(Net, SIZE), "an nn.Module is wanted"),
        (lambda: slimzoo.from_module(nn.Sequential(nn.ReLU(inplace=True), Net()), SIZE), "changes its input in place"),
        (lambda: slimzoo.from_module(Net(), (12, 12)), "wanted (C, H, W)"),
        (lambda: slimzoo.fit(images(4, 0), model="lenet5"), "slimzoo.from_arrays"),
        (lambda: slimzoo.evaluate(slimzoo.from_module(Net(), SIZE), images(4, 0)), "slimzoo.from_arrays"),
        (lambda: slimzoo.prune(slimzoo.from_module(Net(classes=10), SIZE), data="digits", macs=0.5), "tensors"),
        (lambda: slimzoo.prune(slimzoo.from_module(Net(), SIZE), macs=0.5, recover=0, arch="x"), "leave it out"),
    ],
)
def test_refusals(make: Any, said: str) -> None:
    with pytest.raises(UsageError, match=None) as error:
        make()
    assert said in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ((torch.zeros(4, 5), torch.zeros(4, dtype=torch.long)), "wanted (images, labels)"),
        ((torch.zeros(4, *SIZE), torch.zeros(4)), "whole numbers"),
        ((torch.zeros(4, *SIZE), torch.zeros(3, dtype=torch.long)), "wanted (4,)"),
        ((torch.zeros(4, *SIZE, dtype=torch.int32), torch.arange(4)), "floats as the network takes them"),
        ((torch.full((4, *SIZE), torch.nan), torch.arange(4)), "not finite"),
        ((torch.zeros(4, *SIZE), torch.zeros(4, dtype=torch.long)), "one class"),
        ([], "wanted (images, labels)"),
        (3, "a int; wanted (images, labels)"),
    ],
)
def test_arrays_refused(given: Any, said: str) -> None:
    with pytest.raises(slimzoo_error()) as error:
        slimzoo.from_arrays(given)
    assert said in str(error.value)


def slimzoo_error() -> type[Exception]:
    from zoo.errors import SlimzooError

    return SlimzooError


def test_program_with_a_pickle_is_refused(fitted: slimzoo.Fitted, tmp_path: Path) -> None:
    from zoo.files.program import read_program

    program = torch.export.export(fitted.model, (torch.zeros(2, *SIZE),))
    torch.export.save(program, tmp_path / "theirs.pt2")  # torch keeps the example inputs as a pickle
    with pytest.raises(slimzoo_error(), match="holds a pickle"):
        read_program(tmp_path / "theirs.pt2")
