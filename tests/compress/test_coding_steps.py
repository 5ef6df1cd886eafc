"""sparsify, cluster, export --coded: as functions and as commands, on a directory that fit wrote."""

import json
import signal

import numpy as np
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from PIL import Image
from typer.testing import CliRunner

from compress.cli import app
from compress.clustering.shared import different_values
from compress.clustering.step import cluster
from compress.dependency.cut import cut_copy
from compress.deployment.coded import export_coded
from compress.pruning.step import prune
from compress.quantization.ptq import zero_weights
from compress.recovery.masks import density, nonzeros, sparse_layers
from compress.sparsity.dead import remove_dead_units
from compress.sparsity.lineage import is_sparse
from compress.sparsity.order import in_order_of_weights
from compress.sparsity.step import sparsify
from transfer.fitting.step import fit
from zoo.errors import Interrupted, UsageError
from zoo.files.coded_file import load_coded
from zoo.files.directory import new_directory, partial_of
from zoo.files.manifest import RUN
from zoo.files.model_directory import load_model, read_config, save_model

run = CliRunner().invoke


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """OUT/dense, fitted to digits; OUT/sparse, OUT/shared and its coded file, made from it by command."""
    out = tmp_path_factory.mktemp("coding")
    fit("digits", model="lenet5", method="scratch", epochs=4, out=out / "dense")
    given = ["--data", "digits", "--epochs", "2"]
    for argv in (
        ["sparsify", out / "dense", *given, "--density", "0.1", "--out", out / "sparse"],
        ["cluster", out / "sparse", *given, "--bits", "3", "--out", out / "shared"],
        ["export", out / "shared", "--coded"],
    ):
        done = run(app, [*(str(word) for word in argv), "--json"])
        assert done.exit_code == 0, done.output
        json.loads(done.stdout)
    return out


def newest(directory, verb):
    return [record for record in read_config(directory).lineage if record["verb"] == verb][-1]


def test_sparsify_has_its_effect_and_says_so(folder):
    record = newest(folder / "sparse", "sparsify")
    before, after = record["metrics"]["before"], record["metrics"]["after"]
    sparse = load_model(folder / "sparse").model
    assert before["density"] == 1.0
    assert after["density"] == density(sparse) == pytest.approx(0.1, rel=1e-3)
    assert after["val"]["top1"] > 0.8
    assert len(after["test"]["correct"]) == 359
    assert not [name for name in sparse.state_dict() if "mask" in name]
    assert is_sparse(read_config(folder / "sparse").lineage)
    assert not is_sparse(read_config(folder / "dense").lineage)


def test_cluster_keeps_zeros_and_shares(folder):
    record = newest(folder / "shared", "cluster")
    sparse, shared = load_model(folder / "sparse"), load_model(folder / "shared").model
    size = sparse.config.input_size
    living = nonzeros(in_order_of_weights(remove_dead_units(sparse.model, size), size))
    for name, alive in nonzeros(shared).items():
        assert not (alive & ~living[name]).any()
    for name, layer in sparse_layers(shared).items():
        assert different_values(layer.weight) == record["values"][f"{name}.weight"] <= 256
    assert record["metrics"]["after"]["val"]["top1"] >= record["metrics"]["before"]["val"]["top1"] - 0.05


def test_the_coded_file_is_the_model(folder):
    decoded, loaded = load_coded(folder / "shared" / "model.slim"), load_model(folder / "shared")
    for name, tensor in loaded.model.state_dict().items():
        assert torch.equal(decoded.model.state_dict()[name].view(torch.int32), tensor.view(torch.int32))
    assert decoded.config.classes == loaded.config.classes
    assert decoded.config.preprocess == loaded.config.preprocess
    record = newest(folder / "shared", "export")
    size = (folder / "shared" / "model.slim").stat().st_size
    assert record["metrics"]["after"]["size_bytes"] == size
    assert record["metrics"]["before"]["size_bytes"] > 20 * size
    read_config(folder / "shared")  # the manifest knows the new file


def test_eval_and_predict_take_the_coded_file(folder, tmp_path):
    answers = []
    for model in (folder / "shared", folder / "shared" / "model.slim"):
        done = run(app, ["eval", str(model), "digits", "--json"])
        assert done.exit_code == 0, done.output
        answers.append(json.loads(done.stdout))
    assert answers[0]["top1"] == answers[1]["top1"]
    assert answers[0]["n"] == answers[1]["n"] == 359
    picture = tmp_path / "seven.png"
    Image.fromarray(np.full((20, 20, 3), 200, dtype=np.uint8)).save(picture)
    done = run(app, ["predict", str(folder / "shared" / "model.slim"), str(picture), "--json"])
    assert done.exit_code == 0, done.output


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"density": 0.0}, r"density=0\.0 must be in \(0, 1\]"),
        ({"density": 1.2}, r"density=1\.2 must be in \(0, 1\]"),
        ({"pattern": "2of4"}, "must be N:M"),
        ({"pattern": "5:4"}, "5:4 sparsity"),
        ({"criterion": "lammp"}, "did you mean 'lamp'"),
        ({"ranking": "global"}, "must be one of network, layer"),
        ({"epochs": 0}, "epochs=0 must be a whole number from 1"),
        ({"pattern": "4:4"}, "4:4 would change nothing: it keeps all"),
        ({"pattern": "9973:9974"}, "would change nothing: no layer has inputs that 9974 divides"),
        ({"pattern": "2:4", "density": 0.5}, r"pattern 2:4 says which weights stay.* leave out density 0\.5"),
        ({"pattern": "2:4", "criterion": "lamp"}, "leave out criterion lamp"),
    ],
)
def test_bad_input_to_sparsify(folder, tmp_path, options, said):
    with pytest.raises(UsageError, match=said):
        sparsify(folder / "dense", data="digits", out=tmp_path / "x", **options)
    assert list(tmp_path.iterdir()) == []


def test_bad_input_to_cluster(folder, tmp_path):
    with pytest.raises(UsageError, match=r"bits=0\.5 cannot be reached"):
        cluster(folder / "sparse", data="digits", bits=0.5, out=tmp_path / "x")
    with pytest.raises(UsageError, match=r"density cannot grow from 0\.09|cannot grow from 0\.1"):
        sparsify(folder / "sparse", data="digits", density=0.5, epochs=1, out=tmp_path / "x")
    assert list(tmp_path.iterdir()) == []


def test_sparsify_explains_itself(folder, tmp_path):
    """What it counts is the cut of the very weights that LAMP ranks last, at once."""
    sparse = ["sparsify", str(folder / "dense"), "--data", "digits", "--density", "0.1"]
    done = run(app, [*sparse, "--explain", "--json"])
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)["layers"]
    layers = sparse_layers(load_model(folder / "dense").model)
    assert {name: layer.weight.numel() for name, layer in layers.items()} == {n: f["weights"] for n, f in found.items()}
    kept, total = (sum(layer[key] for layer in found.values()) for key in ("kept", "weights"))
    assert kept == round(0.1 * total)
    assert all(0 < layer["importance_lost"] < 1 for layer in found.values())
    done = run(app, [*sparse, "--explain"])
    assert f"{kept:,} of {total:,} weights, 10.0" in done.output
    assert "nothing was written" in done.output
    done = run(app, sparse)
    assert isinstance(done.exception, UsageError)
    assert "--out DIR is needed" in done.exception.on_command_line()


def test_cluster_explains_itself(folder):
    argv = ["cluster", str(folder / "sparse"), "--data", "digits", "--bits", "3"]
    done = run(app, [*argv, "--explain", "--json"])
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)["tensors"]
    least = newest(folder / "shared", "cluster")["values"]  # of several values some may have met
    assert all(found[name]["values"] >= count for name, count in least.items())
    living = sum(tensor["living"] for tensor in found.values())
    assert sum(tensor["bits"] for tensor in found.values()) <= 3 * living
    assert "nothing was written" in run(app, [*argv, "--explain"]).output


def test_two_of_four(folder, tmp_path):
    """Linear layers in runs of four; the convolutions see 1 and 6 channels, which four does not divide."""
    sparsify(folder / "dense", data="digits", pattern="2:4", epochs=1, out=tmp_path / "x")
    for layer in sparse_layers(load_model(tmp_path / "x").model).values():
        alive = layer.weight != 0
        if isinstance(layer, torch.nn.Linear):
            assert (alive.reshape(-1, 4).sum(dim=1) == 2).all()
        else:
            assert alive.all()
    record = newest(tmp_path / "x", "sparsify")
    assert (record["arguments"]["pattern"], record["arguments"]["density"]) == ("2:4", None)
    assert record["recipe"]["epochs"] == 1
    with pytest.raises(UsageError, match=r"2:4 sparse, and the cut breaks its runs of 4 in .*: prune first, then"):
        prune(tmp_path / "x", macs=0.8, recover=0, out=tmp_path / "y")
    assert not (tmp_path / "y").exists()


def test_cluster_takes_dead_units_out(folder, tmp_path):
    """Two hidden units whose weights are all zero, and whose bias is: nothing changes but the width."""
    loaded = load_model(folder / "sparse")
    before = {name: layer.weight.shape for name, layer in sparse_layers(loaded.model).items()}
    with torch.no_grad():
        loaded.model.fc1.weight[:2] = 0
        loaded.model.fc1.bias[:2] = 0
    with new_directory(tmp_path / "dead", run={}) as work:
        save_model(work, loaded.model, loaded.config)
    step = cluster(tmp_path / "dead", data="digits", bits=8.0, epochs=0, out=tmp_path / "x")
    after = sparse_layers(load_model(tmp_path / "x").model)
    assert after["fc1"].weight.shape[0] <= before["fc1"][0] - 2
    assert after["fc1"].weight.shape[0] == after["fc2"].weight.shape[1]
    metrics = step.record["metrics"]
    assert metrics["after"]["params"] < metrics["before"]["params"]
    assert metrics["after"]["test"]["top1"] == pytest.approx(metrics["before"]["test"]["top1"], abs=0.02)
    coded = export_coded(tmp_path / "x")[1]["metrics"]["after"]["size_bytes"]
    assert coded == pytest.approx(metrics["after"]["coded_bytes"], abs=1000)  # its lineage is in the file, too


@pytest.mark.parametrize(("verb", "source"), [("sparsify", "dense"), ("cluster", "sparse")])
def test_interrupted_and_resumed_it_ends_with_the_same_bits(folder, tmp_path, verb, source):
    step = {"sparsify": sparsify, "cluster": cluster}[verb]
    step(folder / source, data="digits", epochs=1, out=tmp_path / "whole")

    def stop(title, done, total, note):
        if title in ("sparsifying", "tuning shared values") and done == 3:
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(Interrupted):
        step(folder / source, data="digits", epochs=1, out=tmp_path / "again", progress=stop)
    assert json.loads((partial_of(tmp_path / "again") / RUN).read_text())["verb"] == verb
    done = run(app, ["resume", str(tmp_path / "again"), "--json"])
    assert done.exit_code == 0, done.output
    whole, again = ((tmp_path / name / "model.safetensors").read_bytes() for name in ("whole", "again"))
    assert whole == again


def test_zeros_stay_through_int8_pruning_and_distillation(folder, tmp_path):
    """Each later step keeps them: int8 as zeros of its own, training by holding them."""
    given = ["--data", "digits"]
    sparse = load_model(folder / "sparse").model
    for argv in (
        ["quantize", folder / "sparse", *given, "--out", tmp_path / "int8"],
        ["distill", folder / "sparse", "--teacher", folder / "dense", *given, "--epochs", "1", "--out", tmp_path / "d"],
    ):
        done = run(app, [str(word) for word in argv])
        assert done.exit_code == 0, done.output
    assert newest(tmp_path / "int8", "quantize")["metrics"]["after"]["density"] <= density(sparse) + 1e-6
    step = prune(folder / "sparse", data="digits", macs=0.8, sparse_epochs=1, recover=1, out=tmp_path / "pruned")
    kept = nonzeros(cut_copy(sparse, step.pruned.grouping, [cut.keep for cut in step.pruned.cuts]))
    for name, alive in nonzeros(load_model(tmp_path / "pruned").model).items():
        assert not (alive & ~kept[name]).any()
    taught = load_model(tmp_path / "d").model
    assert density(taught) == pytest.approx(density(sparse), rel=1e-3)
    for name, alive in nonzeros(taught).items():
        assert not (alive & ~nonzeros(sparse)[name]).any()


def test_lost_zeros_are_counted_in_int8():
    """Weights on a grid without zero: what was zero in floats is not any more."""
    rng = np.random.default_rng(0)
    weight = rng.normal(size=(8, 4)).astype(np.float32) * (rng.random((8, 4)) < 0.5)
    codes, scale = np.round(weight / 0.02).astype(np.int8), np.float32(0.02)
    assert zero_weights(_product(weight)) == ((weight == 0).sum(), 32)
    for point, kept in ((0, (codes == 0).sum()), (3, (codes == 3).sum())):
        assert zero_weights(_product(codes, scale, np.int8(point))) == (kept, 32)


def _product(weight, scale=None, point=None):
    stored = {"w": weight} if scale is None else {"q": weight, "s": scale, "z": point}
    nodes = [] if scale is None else [helper.make_node("DequantizeLinear", ["q", "s", "z"], ["w"])]
    nodes.append(helper.make_node("MatMul", ["x", "w"], ["y"]))
    graph = helper.make_graph(
        nodes,
        "product",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 4])],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in stored.items()],
    )
    return helper.make_model(graph)
