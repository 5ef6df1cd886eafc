"""`slimzoo prune`: budgets in MACs and in milliseconds, rounds, sparse training, what it explains and refuses."""

import json
import re
import signal
import subprocess
import sys

import numpy as np
import pytest
import timm
import torch
from typer.testing import CliRunner

from compress.cli import app
from compress.pruning import cutter, latency, settings
from compress.pruning.step import prune
from transfer.fitting.step import fit
from zoo.cost import count_macs
from zoo.errors import Interrupted, SlimzooError, UsageError
from zoo.files.model_directory import load_model, read_config
from zoo.models.lenet import LeNet5Caffe

run = CliRunner().invoke


@pytest.fixture(scope="module")
def dense(tmp_path_factory):
    out = tmp_path_factory.mktemp("prune") / "dense"
    fit("digits", model="lenet5_caffe", method="scratch", epochs=2, out=out)
    return out


@pytest.fixture
def machine(monkeypatch, tmp_path):
    """A machine that takes 0.1 ms and one more for a million MACs, and says how often it was asked."""
    asked = []

    def measured_ms(models, input_size, *, threads=None, tick=None):
        asked.append(len(models))
        return np.array([0.1 + count_macs(model, input_size) / 1e6 for model in models])

    monkeypatch.setattr(latency, "measured_ms", measured_ms)
    monkeypatch.setattr(cutter, "measured_ms", measured_ms)
    monkeypatch.setenv("SLIMZOO_CACHE", str(tmp_path / "cache"))
    return asked


def macs_of(directory):
    loaded = load_model(directory)
    return count_macs(loaded.model, loaded.config.input_size)


def test_to_a_latency(dense, machine, tmp_path):
    """The milliseconds are those measured, and no more is cut than they ask for."""
    wanted = 0.1 + 0.6 * macs_of(dense) / 1e6
    argv = ["prune", dense, "--data", "digits", "--latency", f"{wanted}ms", "--recover", "0", "--out", tmp_path / "x"]
    done = run(app, [*(str(word) for word in argv), "--json"])
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)["latency"]
    assert found["measured_ms"] == pytest.approx(0.1 + macs_of(tmp_path / "x") / 1e6)
    assert 0.8 * wanted <= found["measured_ms"] <= wanted
    assert found["predicted_ms"] == pytest.approx(found["measured_ms"], rel=0.1)
    assert sum(machine) >= latency.NETWORKS


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--latency", "fast"], "--latency fast: wanted milliseconds, such as 5ms"),
        (["--latency", "-3"], "a latency of -3 ms must be above 0"),
        (["--latency", "1000ms"], "which is below 1000 ms: nothing to cut"),
        (
            ["--latency", "0.001ms"],
            r"^0\.001 ms is below what these groups can reach: the narrowest network takes 0\.[0-9]+ ms here",
        ),
        (["--macs", "1"], "100% of the MACs keeps every channel: nothing to cut"),
        (["--threads", "1"], "threads=1 are for measuring a latency: name one"),
        (["--floor", "1"], r"^90% of the MACs is below .*: at least 100% stays; ask for more, allow narrower groups"),
        (["--latency", "1ms", "--macs", "0.5"], "a share of the MACs or a latency, not both"),
        (["--macs", "0"], "must be above 0 and at most 1"),
        (["--macs", "0.0001"], r"^0\.01% of the MACs is below what these groups can reach: at least [0-9.]+% stays"),
        (["--criterion", "tailor"], "unknown criterion 'tailor'; did you mean 'taylor'"),
        (["--allocation", "equal"], "unknown allocation 'equal'; it must be one of global, uniform"),
        (["--macs", "0.0001", "--rounds", "2", "--recover", "2"], r"^0\.01% of the MACs is below what these groups"),
        (["--rounds", "3", "--recover", "2"], "3 rounds share 2 epochs of recovery"),
        (["--sparse-epochs", "1", "--penalty", "l1"], "unknown penalty 'l1'; it must be one of group-lasso, bn-scale"),
    ],
)
def test_bad_input(dense, machine, tmp_path, options, said):
    out = tmp_path / "x"
    done = run(app, ["prune", str(dense), "--data", "digits", "--recover", "1", *options, "--out", str(out)])
    assert isinstance(done.exception, UsageError)
    assert re.search(said, done.exception.on_command_line())
    assert not out.exists()
    assert not out.with_name("x.partial").exists()


def test_what_needs_images_says_so(dense, tmp_path):
    for options in (["--criterion", "taylor"], ["--allocation", "sensitivity"], ["--sparse-epochs", "1"]):
        done = run(app, ["prune", str(dense), "--recover", "0", *options, "--out", str(tmp_path / "x")])
        assert "needs images: name the model's with --data" in done.exception.on_command_line()
    done = run(app, ["prune", str(dense), "--recover", "0"])
    assert "--out DIR is needed" in done.exception.on_command_line()


@pytest.mark.parametrize("options", [["--data", "digits"], ["--allocation", "cost"], ["--criterion", "bn-scale"]])
def test_explain_counts_importance_macs_and_milliseconds(dense, machine, options):
    done = run(app, ["prune", str(dense), "--macs", "0.5", "--explain", "--json", *options])
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    assert found["macs_before"] == macs_of(dense)
    assert found["macs_after"] <= 0.5 * found["macs_before"]
    assert found["ms_before"] == pytest.approx(0.1 + found["macs_before"] / 1e6)
    assert found["ms_after"] == pytest.approx(0.1 + found["macs_after"] / 1e6, rel=0.1)
    for cut in found["cuts"]:
        narrower = cut["keep"] < cut["width"]
        assert (cut["macs_saved"] > 0) == (cut["importance_lost"] > 0) == narrower
        assert cut["ms_saved"] == pytest.approx(cut["macs_saved"] / 1e6, rel=0.1, abs=0.01)


def test_rounds_share_the_cut_and_resume_to_the_same_bits(dense, tmp_path):
    """Interrupted in the second round's training: the first round is not trained again."""
    given = {"data": "digits", "macs": 0.4, "rounds": 2, "round_to": 2, "recover": 2}
    whole = prune(dense, **given, out=tmp_path / "whole")
    assert whole.pruned.macs_after <= 0.4 * macs_of(dense) < whole.pruned.macs_before < macs_of(dense)
    begun = []

    def stop(title, done, total, note):
        if title == "recovery":
            begun.append(done)
            if len(begun) > 5 and done == 3:
                signal.raise_signal(signal.SIGINT)

    with pytest.raises(Interrupted):
        prune(dense, **given, out=tmp_path / "again", progress=stop)
    done = run(app, ["resume", str(tmp_path / "again"), "--json"])
    assert done.exit_code == 0, done.output
    bits = [(tmp_path / name / "model.safetensors").read_bytes() for name in ("whole", "again")]
    assert bits[0] == bits[1]


def test_a_cut_that_computes_something_else_is_not_made(dense, monkeypatch, tmp_path):
    """In every round, and when resumed: the layer is left whole, and named with the reason."""

    def forward(self, x):
        x = self.pool1(self.conv1(x))
        x = self.pool2(self.conv2(x) + torch.full((1, 1, 1, 1), x.shape[1] / 10))  # no operator shows the width
        return self.fc2(self.relu(self.fc1(self.flatten(x))))

    def stop(title, done, total, note):
        if title == "recovery":
            begun.append(done)
            if len(begun) > 5 and done == 3:
                signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(LeNet5Caffe, "forward", forward)
    begun, told = [], []
    given = {"data": "digits", "rounds": 2, "recover": 2, "round_to": 2}
    with pytest.raises(Interrupted):  # in the second round
        prune(dense, **given, out=tmp_path / "x", progress=stop, tell=told.append)
    assert any(re.match(r"left whole: conv1: cut, it computes something else than silenced, by 0", x) for x in told)
    done = run(app, ["resume", str(tmp_path / "x"), "--json"])
    assert done.exit_code == 0, done.output
    loaded, whole = load_model(tmp_path / "x"), load_model(dense)
    assert loaded.model.conv1.out_channels == whole.model.conv1.out_channels
    assert loaded.model.conv2.out_channels < whole.model.conv2.out_channels
    assert loaded.config.lineage[-1]["whole"]["conv1"].startswith("cut, it computes")
    assert macs_of(tmp_path / "x") <= 0.5 * macs_of(dense)


def test_sparse_training_comes_before_the_cut(dense, tmp_path):
    """Channels that the penalty has emptied are the ones that go: less is lost with them."""
    lost = []
    for epochs in (0, 3):
        cut = prune(
            dense, data="digits", macs=0.6, criterion="l2", sparse_epochs=epochs, recover=0, out=tmp_path / str(epochs)
        )
        lost.append(sum(each.lost for each in cut.pruned.cuts))
    assert lost[1] < lost[0]
    record = read_config(tmp_path / "3").lineage[-1]
    assert record["arguments"]["sparse_epochs"] == 3


def test_recovery_shows_the_preflight(dense, tmp_path):
    told = []
    found = prune(dense, data="digits", recover=1, out=tmp_path / "x", tell=told.append)
    assert any(line.startswith("ok    first loss") for line in told)
    assert found.record["preflight"]["checks"]
    assert found.record["recipe"]["epochs"] == 1


@pytest.mark.parametrize(
    ("wanted", "said"), [(1e-4, r"the narrowest network takes 0\.\d+ ms here, the whole one"), (1e6, "nothing to cut")]
)
def test_what_two_networks_decide_is_not_asked_of_two_dozen(dense, machine, tmp_path, wanted, said):
    with pytest.raises(UsageError, match=said):
        prune(dense, latency=wanted, recover=0, out=tmp_path / "x")
    assert machine == [2]


def test_a_latency_that_no_cut_reaches(dense, machine, monkeypatch, tmp_path):
    """A machine on which nothing becomes faster, whatever the table said."""
    step_ms = cutter.measured_ms
    monkeypatch.setattr(cutter, "measured_ms", lambda models, size, threads=None: step_ms([models[0]] * 2, size))
    with pytest.raises(SlimzooError, match=r"4 cuts took [0-9.]+ ms at best|below"):
        prune(dense, latency=0.1 + 0.5 * macs_of(dense) / 1e6, recover=0, out=tmp_path / "x")
    assert not (tmp_path / "x").exists()


def test_a_resumed_run_to_a_latency_measures_nothing_again(dense, machine, monkeypatch, tmp_path):
    given = {"data": "digits", "latency": 0.1 + 0.6 * macs_of(dense) / 1e6, "recover": 1}
    prune(dense, **given, out=tmp_path / "whole")

    def stop(title, done, total, note):
        if title == "recovery" and done == 3:
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(Interrupted):
        prune(dense, **given, out=tmp_path / "again", progress=stop)
    for module in (latency, cutter):
        monkeypatch.setattr(module, "measured_ms", None)
    done = run(app, ["resume", str(tmp_path / "again"), "--json"])
    assert done.exit_code == 0, done.output
    bits = [(tmp_path / name / "model.safetensors").read_bytes() for name in ("whole", "again")]
    assert bits[0] == bits[1]
    records = [read_config(tmp_path / name).lineage[-1]["latency"] for name in ("whole", "again")]
    assert records[0] == records[1]


@pytest.mark.parametrize(("name", "tag"), [("test_resnet", "r160_in1k"), ("test_vit", "r160_in1k")])
def test_a_pretrained_model_of_timm_without_data(name, tag, cache_on_hub, tmp_path):
    """Cut and saved as it is, and read again: fewer MACs, and the classes that it had."""
    reference = timm.create_model(name)
    cache_on_hub(f"{name}.{tag}", reference.state_dict())
    argv = ["prune", f"timm:{name}", "--macs", "0.7", "--round-to", "4", "--recover", "0", "--out", str(tmp_path / "x")]
    done = run(app, argv)
    assert done.exit_code == 0, done.output
    loaded = load_model(tmp_path / "x")
    assert loaded.config.architecture == f"timm:{name}"
    size = loaded.config.input_size
    assert 0.5 <= count_macs(loaded.model, size) / count_macs(reference, size) <= 0.7
    assert loaded.model(torch.zeros(2, *size)).shape == (2, 1000)
    done = run(app, [*argv[:6], "--data", "digits", "--out", str(tmp_path / "y")])
    assert isinstance(done.exception, UsageError)
    assert "`slimzoo fit digits` first" in str(done.exception)
    assert not (tmp_path / "y").exists()


@pytest.mark.parametrize("choices", [settings.CRITERIA, settings.ALLOCATIONS])
def test_every_name_is_that_of_something_that_can_be_called(choices):
    assert all(callable(choices[name]) for name in choices)
    assert [choices.name(choices[name]) for name in choices] == list(choices)


def test_a_share_out_of_range_loads_no_torch(tmp_path):
    script = "import sys; from compress.__main__ import main\ntry: main()\nfinally: assert 'torch' not in sys.modules"
    argv = ["prune", "no-such-model", "--macs", "50", "--out", str(tmp_path / "x")]
    done = subprocess.run([sys.executable, "-c", script, *argv], capture_output=True, text=True)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
    assert "must be above 0 and at most 1" in done.stderr
