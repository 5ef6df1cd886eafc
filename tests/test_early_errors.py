"""What arguments and shapes decide is decided before any data are opened.

The data that these commands name do not exist, and for what arguments alone decide, neither does the model: the refusal
is about the argument, or the test fails.
"""

from functools import partial

import pytest

from compress.benchmark.harness import bench
from compress.clustering.step import cluster
from compress.deployment.coded import export_coded
from compress.distillation.step import distill
from compress.pruning import latency
from compress.pruning.step import prune
from compress.quantization.step import quantize
from compress.sparsity.step import sparsify
from transfer.fitting.step import fit
from zoo import create_model
from zoo.errors import UsageError
from zoo.files.directory import new_directory
from zoo.files.model_directory import ModelConfig, save_model
from zoo.preprocess import Preprocess

GREY = Preprocess(size=(28, 28), mean=(0.5,), std=(0.5,))
NOWHERE = "no-such-folder"
A_FIT = partial(fit, NOWHERE, model="lenet5", method="scratch")
A_PRUNE = partial(prune, "no-such-model", data=NOWHERE)
A_SPARSIFY = partial(sparsify, "no-such-model", data=NOWHERE)
A_CLUSTER = partial(cluster, "no-such-model", data=NOWHERE)
A_DISTILL = partial(distill, "lenet5", teacher="no-such-model", data=NOWHERE)
A_QUANTIZE = partial(quantize, "no-such-model", data=NOWHERE)


@pytest.fixture(scope="module")
def lenet(tmp_path_factory):
    out = tmp_path_factory.mktemp("lenet") / "model"
    config = ModelConfig(architecture="lenet5", model_args={"num_classes": 3}, classes=("a", "b", "c"), preprocess=GREY)
    with new_directory(out, run={"verb": "fit", "arguments": {}}) as work:
        save_model(work, create_model("lenet5", num_classes=3), config)
    return out


@pytest.mark.parametrize(
    ("verb", "arguments", "said"),
    [
        (A_FIT, {"epochs": -1}, "epochs"),
        (A_FIT, {"batch": 0}, "batch"),
        (A_FIT, {"lr": 0.0}, "lr"),
        (A_FIT, {"lr": float("nan")}, "lr"),
        (A_FIT, {"seed": -1}, "seed"),
        (A_FIT, {"settings": {"optimiser": "sgd"}}, "did you mean 'optimizer'"),
        (A_FIT, {"settings": {"momentum": 2.0}}, "momentum"),
        (A_FIT, {"settings": {"augment.flip": "no"}}, "augment.flip"),
        (A_FIT, {"time_s": 0.0}, "time_s=0.0 must be above 0"),
        (A_FIT, {"val": 1.5}, "val=1.5"),
        (A_FIT, {"val": "0.6", "test": 0.5}, "leave something for training"),
        (A_FIT, {"method": "prob"}, "did you mean 'probe'"),
        (A_FIT, {"model": "lenet6"}, "did you mean 'lenet5'"),
        (A_FIT, {"size": 8}, "lenet5 does not take size 8"),
        (A_FIT, {"model": "mlp", "method": "probe"}, "no pretrained weights"),
        (A_PRUNE, {"macs": 0.0}, "must be above 0 and at most 1"),
        (A_PRUNE, {"macs": 50.0}, "must be above 0 and at most 1"),
        (A_PRUNE, {"macs": float("nan")}, "must be above 0 and at most 1"),
        (A_PRUNE, {"macs": 1.0}, "100% of the MACs keeps every channel"),
        (A_PRUNE, {"latency": 0.0}, "must be above 0"),
        (A_PRUNE, {"recover": -1}, "recover=-1"),
        (A_PRUNE, {"sparse_epochs": -1}, "sparse_epochs=-1"),
        (A_PRUNE, {"rounds": 0}, "rounds=0"),
        (A_PRUNE, {"rounds": 3, "recover": 2}, "3 rounds share 2 epochs"),
        (A_PRUNE, {"floor": 2.0}, "floor=2.0"),
        (A_PRUNE, {"criterion": "tailor"}, "did you mean 'taylor'"),
        (A_PRUNE, {"data": None, "recover": 0, "criterion": "taylor"}, "needs images"),
        (A_PRUNE, {"temperature": 0.0}, "temperature"),
        (A_PRUNE, {"patience": -1}, "patience"),
        (A_SPARSIFY, {"density": 0.0}, "density"),
        (A_SPARSIFY, {"density": 1.5}, "density"),
        (A_SPARSIFY, {"pattern": "4:2"}, "wanted n of m weights"),
        (A_SPARSIFY, {"epochs": 0}, "epochs=0"),
        (A_SPARSIFY, {"criterion": "lam"}, "did you mean 'lamp'"),
        (A_CLUSTER, {"bits": 0.0}, "bits=0"),
        (A_CLUSTER, {"bits": float("nan")}, "bits=nan"),
        (A_CLUSTER, {"bit_price": -1.0}, "bit_price=-1"),
        (A_CLUSTER, {"epochs": -1}, "epochs"),
        (A_DISTILL, {"weight": 2.0}, "weight"),
        (A_DISTILL, {"epochs": -1}, "epochs"),
        (A_QUANTIZE, {"bits": 1}, "bits=1"),
        (A_QUANTIZE, {"to": "int9"}, "int9"),
        (A_QUANTIZE, {"max_drop": -1.0}, "max_drop=-1"),
        (A_QUANTIZE, {"machine": "riscv"}, "unknown machine 'riscv'"),
        (A_QUANTIZE, {"machine": "arm", "to": "fp16"}, "fp16 takes no machine"),
        (A_QUANTIZE, {"ranges": "mean"}, "mean"),
        (A_QUANTIZE, {"epochs": -1}, "epochs"),
    ],
)
def test_what_arguments_decide(tmp_path, verb, arguments, said):
    with pytest.raises(UsageError, match=said):
        verb(**arguments, out=tmp_path / "x")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("verb", "arguments", "said"),
    [
        (prune, {"macs": 0.0001}, r"^0\.01% of the MACs is below what these groups can reach: at least [0-9.]+% stays"),
        (prune, {"macs": 0.0001, "sparse_epochs": 3}, r"^0\.01% of the MACs is below"),
        (prune, {"floor": 1.0}, "at least 100% stays"),
        (prune, {"latency": 0.0001}, "^0.0001 ms is below what these groups can reach: the narrowest"),
        (prune, {"latency": 100.0}, "the model takes 0.50 ms here, which is below 100 ms"),
        (sparsify, {"pattern": "16:17"}, "no layer has inputs that 17 divides"),
        (sparsify, {"density": 0.9999999}, "makes no weight zero"),
        (cluster, {"bits": 0.5}, "cannot be reached"),
        (partial(distill, teacher=None), {"size": 32}, "has its own"),
    ],
)
def test_what_shapes_decide(lenet, tmp_path, monkeypatch, verb, arguments, said):
    monkeypatch.setattr(latency, "measured_ms", lambda models, size, threads=None: [0.5, 0.1])
    if isinstance(verb, partial):
        arguments = {**arguments, "teacher": lenet}
    with pytest.raises(UsageError, match=said):
        verb(lenet, data=NOWHERE, **arguments, out=tmp_path / "x")
    assert list(tmp_path.iterdir()) == []


def test_files_for_which_there_is_no_place(tmp_path, lenet):
    with pytest.raises(UsageError, match=r"save .* is no directory"):
        bench([lenet], save=tmp_path / "nowhere" / "bench.json")
    with pytest.raises(UsageError, match=r"save .* is a directory"):
        bench([lenet], save=tmp_path)
    with pytest.raises(UsageError, match="is no directory of slimzoo"):
        export_coded("timm:resnet18")
