"""What a search may be told beside what may be lost: runtimes, answers, memory, other machines, workers, ONNX files."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
import sys

import pytest

from compress.benchmark.harness import bench
from compress.deployment.export import export
from compress.plan import side_by_side, step
from compress.plan.elsewhere import measured_there, target_of
from compress.plan.ledger import opened
from compress.plan.plan import Plan
from compress.plan.step import compress
from compress.plan.timing import fitting
from compress.plan.worker import help_search
from zoo.errors import GateError, UsageError
from zoo.files.model_directory import read_config

pytestmark = pytest.mark.usefixtures("short")


def test_openvino_is_chosen_where_it_is_faster_and_runs_what_is_deployed(
    dense, photos, pictures, tmp_path, monkeypatch
):
    pytest.importorskip("openvino")
    rows = side_by_side._measured

    def faster(timed, search, work):
        found = rows(timed, search, work)
        for own in found.values():
            assert [row["runtime"] for row in own] == ["onnxruntime", "openvino"]
            for row in own:
                row |= {"disturbed": False, "median_ms": 1.0 if row["runtime"] == "openvino" else 2.0}
        return found

    monkeypatch.setattr(side_by_side, "_measured", faster)
    found = compress(
        dense, data=photos, max_drop=100, shares=[0.4], runtime=["onnxruntime", "openvino"], out=tmp_path / "out"
    )
    assert found.runtime == "openvino"
    deployed, _ = found.next()
    picture = next(pictures.rglob("*.png"))
    asked = [[*map(str, deployed[1:-3]), str(picture)], [*map(str, deployed[1:-3]), str(picture), *deployed[-2:]]]
    said = [subprocess.run([sys.executable, *words], capture_output=True, encoding="utf-8") for words in asked]
    assert [one.stderr for one in said] == ["", ""]
    classes = [re.findall(r"(\w+) ([\d.]+)%", one.stdout) for one in said]
    assert [name for name, _ in classes[0]] == [name for name, _ in classes[1]]
    for (_, one), (_, other) in zip(*classes, strict=True):
        assert float(one) == pytest.approx(float(other), abs=1.5)


def test_architectures_that_are_named_are_taught_and_compared(dense, photos, tmp_path):
    found = compress(dense, data=photos, max_drop=100, shares=[0.4], student=["lenet_300_100"], out=tmp_path / "out")
    by_name = {trial["name"]: trial for trial in found.record["variants"]}
    taught = by_name["taught-lenet_300_100"], by_name["taught-lenet_300_100-int8"]
    assert [trial["drop"] is not None and trial["macs"] for trial in taught] == [784 * 300 + 300 * 100 + 100 * 2] * 2
    assert taught[0]["size_bytes"] > 3 * taught[1]["size_bytes"]
    lineage = read_config(found.out / "variants" / "taught-lenet_300_100-int8").lineage
    assert [record["verb"] for record in lineage] == ["distill", "quantize"]
    assert lineage[0]["arguments"]["teacher"] == str(found.out / "variants" / "fit")


def test_a_student_is_a_step_of_a_plan(dense, photos, tmp_path):
    plan = tmp_path / "plan.yaml"
    plan.write_text("steps:\n- distill: {student: lenet_300_100, epochs: 1}\n- quantize: {}\n", encoding="utf-8")
    found = compress(dense, data=photos, max_drop=100, plan=plan, out=tmp_path / "out")
    assert found.chosen == "distill-quantize"
    again = Plan.read(found.out / "plan.yaml")
    assert again.verbs == ("distill", "quantize")
    assert again.steps[0].settings.epochs == 1


def test_a_student_that_is_not_known_is_refused_before_anything_is_done(dense, photos, tmp_path):
    with pytest.raises(UsageError, match="lenet_300_100"):
        compress(dense, data=photos, student=["lenet_300_10"], out=tmp_path / "out")
    plan = tmp_path / "plan.yaml"
    plan.write_text("steps:\n- distill: {student: resnet19}\n", encoding="utf-8")
    with pytest.raises(UsageError, match="did you mean 'resnet18'"):
        compress(dense, data=photos, plan=str(plan), out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("named", [False, True])
def test_a_worker_helps_from_another_process(named, dense, photos, tmp_path):
    """It is started while the search is at its first trial, and what it finds counts as what is found here."""
    out, begun = tmp_path / "out", []

    def tell(line):
        if line.startswith("to help from another terminal: ") and not begun:
            words = shlex.split(line.partition(": ")[2])
            own = [str(dense), "--data", str(photos)] if named else []  # where they lie elsewhere on its machine
            command = [sys.executable, "-m", "compress", *words[1:], *own, "--json"]
            pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
            begun.append(subprocess.Popen(command, **pipes, encoding="utf-8"))
            heard = list(iter(begun[0].stderr.readline, ""))
            assert any(line.startswith("fit  ") for line in heard), heard

    found = compress(dense, data=photos, max_drop=100, seed=21 + named, shares=[0.8, 0.6, 0.4], out=out, tell=tell)
    said, errors = begun[0].communicate(timeout=120)
    assert begun[0].returncode == 0, errors
    tried = json.loads(said)["tried"]
    names = {trial["name"] for trial in found.record["variants"]}
    assert len(names) == len(found.record["variants"]) == 8
    assert set(tried) <= names
    assert tried, "it had nothing to do"


def test_a_worker_that_does_not_see_the_model_is_told_to_name_it(tmp_path):
    about = {"source": str(tmp_path / "gone"), "data": "digits", "host": "there", "seed": 0}
    url = f"sqlite:///{tmp_path / 'search.db'}"
    opened(url, "one", about, seed=0).close()
    with pytest.raises(UsageError, match="gone on there, which is not here: name it with SOURCE"):
        help_search(url)


def test_a_search_without_its_source_or_a_worker_without_its_search(tmp_path, slimzoo):
    told = slimzoo("compress", "--out", tmp_path / "out")
    assert told.code == 2
    assert "SOURCE is needed: a folder of images" in told.err
    told = slimzoo("compress", "--worker", f"sqlite:///{tmp_path / 'search.db'}")
    assert told.code == 2
    assert "no search is at work in sqlite:///" in told.err
    told = slimzoo("compress", "--worker", "sqlite:///x.db", "--max-drop", "2")
    assert "leave out --max-drop" in told.err


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"latency": "5ms", "answer": "4ms"}, "no longer than latency of 5 ms"),
        ({"shares": [0.5, 1.5]}, "a share of MACs of 1.5 must be"),
        ({"plan": "fast", "shares": [0.5]}, "leave out shares"),
        ({"memory": "5ms"}, "ms measures a time; wanted a size"),
        ({"study": "nonsense"}, "cannot be opened"),
    ],
)
def test_what_contradicts_itself_is_refused(given, said, dense, photos, tmp_path):
    with pytest.raises(UsageError, match=said):
        compress(dense, data=photos, **given, out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_sampler_goes_on_where_the_search_ends(dense, photos, tmp_path):
    found = compress(dense, data=photos, max_drop=100, shares=[0.4], trials=2, out=tmp_path / "out")
    drawn = [t["name"] for t in found.record["variants"] if not re.fullmatch("fit|int8|pruned-40(-int8)?", t["name"])]
    assert len(drawn) == 2


def test_a_way_to_the_answer_that_decoding_alone_takes_is_told_at_once(dense, photos, pictures, tmp_path, monkeypatch):
    monkeypatch.setattr("compress.report.statistics.DISTURBED", 1.0)
    with pytest.raises(GateError, match="times the time to an answer allowed"):
        compress(dense, data=pictures, answer="20us", out=tmp_path / "out")
    with pytest.raises(UsageError, match="holds no pictures"):
        compress(dense, data=photos, answer="20us", out=tmp_path / "out")


def test_memory_and_answers_are_budgets(dense, pictures, tmp_path):
    found = compress(dense, data=pictures, answer="1s", memory="2GB", max_drop=100, out=tmp_path / "out")
    assert found.chosen == "fit"
    (trial,) = found.record["variants"]
    assert 5e6 < trial["memory_bytes"] < 2e9
    assert 0 < trial["latency_ms"] < trial["answer_ms"] < 1000


def test_of_an_onnx_file_int8_and_the_runtime_are_chosen(dense, pictures, tmp_path):
    """Its accuracy is measured on the way: such a file keeps no answers."""
    exported = tmp_path / "exported"
    shutil.copytree(dense, exported)
    export(exported)
    file = tmp_path / "model.onnx"
    shutil.copyfile(exported / "model.onnx", file)
    found = compress(file, data=pictures, max_drop=100, out=tmp_path / "out")
    assert found.chosen == "int8"
    assert {trial["name"] for trial in found.record["variants"]} == {"fit", "int8"}
    assert (found.out / "model" / "deploy" / "infer.py").is_file()
    base = next(trial for trial in found.record["variants"] if trial["name"] == "fit")
    assert base["drop"]["points"] == 0
    with pytest.raises(UsageError, match="of which only int8 is made"):
        compress(file, data=pictures, shares=[0.5], out=tmp_path / "cut")
    with pytest.raises(UsageError, match="is int8 already"):
        compress(found.out / "model", data=pictures, out=tmp_path / "again")


@pytest.fixture
def there(done, tmp_path):
    """What a machine says of the models of a search that takes 10 ms for one, and 20 in int8."""
    found, _ = done
    file = tmp_path / "pi.json"
    bench([found.out / "variants" / name for name in ("fit", "int8")], runtimes=["onnxruntime"], rounds=2, save=file)
    said = json.loads(file.read_text(encoding="utf-8"))
    said["machine"]["processor"] = "Cortex-A72"
    for row in said["rows"]:
        row["median_ms"] = 20.0 if row["precision"] == "int8" else 10.0
    file.write_text(json.dumps(said), encoding="utf-8")
    return file


def test_latencies_may_be_those_of_another_machine(dense, photos, there, tmp_path, monkeypatch):
    """Where here each takes a millisecond, that is ten and twenty times as slow."""
    monkeypatch.setattr(
        step, "timed", lambda files, *how: [{"latencies": {"onnxruntime": 1.0}, "disturbed": False} for _ in files]
    )
    monkeypatch.setattr("compress.report.statistics.DISTURBED", 1.0)
    budget = {"latency": "100s", "latency_from": [there]}
    found = compress(dense, data=photos, max_drop=100, shares=[0.4], **budget, out=tmp_path / "out")
    assert any(
        "latencies are those expected on Cortex-A72, by 2 models that were measured there" in s for s in found.said
    )
    assert found.record["elsewhere"] == "Cortex-A72"
    here = {row["model"]: row["median_ms"] for row in json.loads((found.out / "bench.json").read_text("utf-8"))["rows"]}
    for trial in found.record["variants"]:
        if trial["name"] in here:
            times = 20 if trial["name"].endswith("int8") else 10
            assert trial["latency_ms"] == pytest.approx(times * here[trial["name"]])
    with pytest.raises(UsageError, match="give latency, and leave out"):
        compress(dense, data=photos, latency_from=[there], out=tmp_path / "no")
    said = json.loads(there.read_text(encoding="utf-8"))
    for row in said["rows"]:
        row["sha256"] = "0" * 64
    there.write_text(json.dumps(said), encoding="utf-8")
    with pytest.raises(UsageError, match="none of the models that were measured there is here"):
        compress(dense, data=photos, **budget, out=tmp_path / "no")


def test_of_what_was_measured_elsewhere_one_image_at_a_time_counts(done, there):
    """And of that what nothing disturbed, where there is any."""
    found, _ = done
    said = json.loads(there.read_text(encoding="utf-8"))
    for row in said["rows"]:
        row["disturbed"] = False
    said["rows"] += [{**row, "batch": 8, "median_ms": 99.0} for row in said["rows"]]
    said["rows"] += [{**row, "disturbed": True, "median_ms": 77.0} for row in said["rows"][:2]]
    there.write_text(json.dumps(said), encoding="utf-8")
    _, measured = measured_there([there], (found.out / "variants").iterdir())
    assert sorted(each.there_ms for each in measured) == [10.0, 20.0]


def test_a_line_through_models_that_are_alike_is_their_factor():
    """Their order is noise: a power of minus two and more would follow from it."""
    target = target_of("Cortex-A72", [("fp32", 1.0, 10.2), ("fp32", 1.05, 9.0)])
    assert target.lines["fp32"][1] == 1.0
    assert target.there(4.0, int8=False) == pytest.approx(40, rel=0.1)
    steep = target_of("Cortex-A72", [("fp32", 1.0, 1.0), ("fp32", 2.0, 100.0)])
    assert steep.lines["fp32"][1] == 2.0


def test_the_runtime_is_one_of_those_that_take_no_more_memory():
    latencies, memories = {"onnxruntime": 2.0, "openvino": 1.0}, {"onnxruntime": 1e8, "openvino": 2e8}
    assert fitting(latencies, memories, None) == (latencies, 2e8)
    assert fitting(latencies, memories, 1.5e8) == ({"onnxruntime": 2.0}, 1e8)
    assert fitting(latencies, memories, 1e7) == (latencies, 2e8)
    assert fitting({}, {}, 1e8) == ({}, None)


def test_a_line_through_what_was_measured_elsewhere():
    """Milliseconds there that are a power of those here are found again, and one point makes a factor."""
    points = [("fp32", here, 7 * here**0.9) for here in (0.5, 1, 4)] + [("int8", 0.4, 6.0)]
    target = target_of("Cortex-A72", points)
    assert target.there(2.0, int8=False) == pytest.approx(7 * 2**0.9)
    assert target.there(0.2, int8=True) == pytest.approx(3.0)
    assert target.missing is None
    alone = target_of("Cortex-A72", points[:1])
    assert alone.there(1.0, int8=True) == alone.there(1.0, int8=False) == pytest.approx(7 * 0.5**0.9 / 0.5)
    assert alone.said().endswith("none of them in int8")
    assert type(target).of(json.loads(json.dumps(target.record()))) == target
