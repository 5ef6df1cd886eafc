"""`compress`, whole: from images or a model to OUT/model, or to the reason why there is none."""

from __future__ import annotations

import json
import re
import shutil

import pytest
from PIL import Image

from compress import resume
from compress.plan import searching, side_by_side, step
from compress.plan.pipeline import Pipeline
from compress.plan.plan import Plan
from compress.plan.step import compress
from transfer.fitting.step import fit
from zoo.disk import sha256
from zoo.errors import GateError, UsageError
from zoo.files.directory import partial_of
from zoo.files.manifest import verify_manifest
from zoo.files.model_directory import read_config

pytestmark = pytest.mark.usefixtures("short")


def test_what_is_written(done):
    found, told = done
    assert found.met
    assert found.exit_code == 0
    assert found.chosen == "pruned-40-int8"  # the smallest: everything may be lost
    variants = {path.name for path in (found.out / "variants").iterdir()}
    assert variants == {"fit", "int8", "pruned-40", "pruned-40-int8"} | (variants & {"pruned-60", "pruned-60-int8"})
    for place in [found.out, found.out / "model", *(found.out / "variants").iterdir()]:
        verify_manifest(place)
    assert (found.out / "model" / "deploy" / "infer.py").is_file()
    assert sha256(found.out / "model/model.onnx") == sha256(found.out / "variants/pruned-40-int8/model.onnx")
    report = json.loads((found.out / "report.json").read_text(encoding="utf-8"))
    assert (report["chosen"], report["met"]) == ("pruned-40-int8", True)
    assert {variant["name"] for variant in report["variants"]} == variants
    assert json.loads((found.out / "trials.json").read_text(encoding="utf-8")) == found.record
    assert (found.runtime, found.next()[0][-1]) == (None, "IMAGE")  # all was taken for disturbed
    assert all(trial["meets"] for trial in found.record["variants"])
    assert not (found.out / "front.png").exists()  # of meanwhile
    why = r"Use `pruned-40-int8`: .* It is the smallest of \d that meet the budget; the second best is `.*` \("
    assert re.match(why, found.lines()[0])
    page = (found.out / "report.html").read_text(encoding="utf-8")
    assert "the second best is" in page
    assert "The search goes on" not in page
    assert "http-equiv" not in page
    assert told[0].startswith("what is promised before any training")
    assert told[1].startswith("to help from another terminal: slimzoo compress --worker 'sqlite:///")
    assert told[2].split() == ["top-1", "points", "expected", "latency", "size", "MACs", "over"]
    assert told[3].startswith("fit  ")


def test_the_report_names_the_directory_as_it_is_when_all_is_done(done):
    """It is written while the work is still in OUT.partial/."""
    found, _ = done
    for name in ("report.html", "report.md", "report.json"):
        text = (found.out / name).read_text(encoding="utf-8")
        assert ".partial" not in text
        assert str(found.out.parent) not in text  # paths are as from the folder that holds it
    assert "slimzoo bench out/variants/fit " in (found.out / "report.md").read_text(encoding="utf-8")


def test_records_name_what_lies_there_and_not_where_it_was_kept(done):
    found, _ = done
    for place in (found.out / "variants").iterdir():
        for record in read_config(place).lineage:
            assert "steps" not in str(record["arguments"])
    lineage = read_config(found.out / "model").lineage
    assert [record["verb"] for record in lineage] == ["fit", "prune", "quantize"]
    assert lineage[2]["arguments"]["directory"] == str(found.out / "variants" / "pruned-40")


def test_the_plan_makes_the_same_model_from_what_is_kept(done, dense, photos, tmp_path):
    found, _ = done
    plan = Plan.read(found.out / "plan.yaml")
    assert plan.verbs == ("prune", "quantize")
    again = compress(dense, data=photos, max_drop=100, plan=str(found.out / "plan.yaml"), out=tmp_path / "again")
    assert again.chosen == "prune-quantize"
    assert sha256(again.out / "model/model.onnx") == sha256(found.out / "model/model.onnx")


def test_the_same_again_is_all_from_what_is_kept(done, dense, photos, tmp_path, monkeypatch):
    found, _ = done
    monkeypatch.setattr("compress.plan.pipeline.Pipeline._do", lambda *a: pytest.fail("a step was done again"))
    monkeypatch.setattr(step, "measured", lambda *a, **k: pytest.fail("measured again"))
    again = compress(dense, data=photos, max_drop=100, out=tmp_path / "again")
    assert again.chosen == found.chosen
    for name in ("model.onnx", "deploy/infer.py"):
        assert sha256(again.out / "model" / name) == sha256(found.out / "model" / name)


def test_a_budget_that_no_network_meets_is_told_before_any_training(dense, photos, tmp_path, monkeypatch):
    monkeypatch.setattr("compress.plan.pipeline.Pipeline.done", lambda *a: pytest.fail("something was trained"))
    with pytest.raises(GateError, match="no network of this kind meets the budget: the nearest, pruned-40-int8, takes"):
        compress(dense, data=photos, size="1kB", out=tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_where_too_much_is_lost_there_is_no_model_and_the_nearest_is_named(dense, photos, tmp_path, monkeypatch):
    """All that was tried loses more than nothing: answers of everything but the fitted model are turned round."""
    from compress.plan.losses import drop_between

    def worse(base, metrics, metric):
        flipped = {**metrics, "val": {"correct": "".join("10"[int(c)] for c in metrics["val"]["correct"])}}
        right = {**base, "val": {"correct": "1" * len(base["val"]["correct"])}}
        return drop_between(right, right if metrics is base else flipped)

    monkeypatch.setattr(searching, "drop_between", worse)
    found = compress(dense, data=photos, max_drop=0, out=tmp_path / "out")
    assert not found.met
    assert found.exit_code == 4
    assert not (found.out / "model").exists()
    assert found.lines()[0].startswith("No model meets the budget; the nearest is `")
    assert json.loads((found.out / "report.json").read_text(encoding="utf-8"))["chosen"] is None


def interrupted(dense, photos, out, *, before, seed):
    def stop(line):
        if line == f"trying {before}":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt, match="slimzoo resume"):
        compress(dense, data=photos, max_drop=100, seed=seed, out=out, tell=stop)
    assert not out.exists()
    with Image.open(partial_of(out) / "front.png") as front:  # to look at meanwhile
        assert min(front.size) > 200
    page = (partial_of(out) / "report.html").read_text(encoding="utf-8")
    assert "The search goes on; the best so far is <code>int8</code>, which takes of the budget" in page
    assert f"slimzoo resume {out} --finish" in page
    assert '<meta http-equiv="refresh"' in page


def test_a_search_that_was_interrupted_goes_on(dense, photos, tmp_path, slimzoo):
    out = tmp_path / "out"
    interrupted(dense, photos, out, before="pruned-40-int8", seed=7)
    done = slimzoo("resume", out)
    assert done.code == 0, done.err
    assert "trying pruned-40-int8" in done.out
    assert f"{out}: Use `pruned-40-int8`" in done.out
    assert "  ok " not in done.out  # checks of a training that went well
    assert (out / "model" / "model.onnx").is_file()
    assert not partial_of(out).exists()


def test_what_is_interrupted_while_it_measures_goes_on(dense, photos, tmp_path, monkeypatch):
    out = tmp_path / "out"
    with monkeypatch.context() as patch:

        def stop(*given, **named):
            raise KeyboardInterrupt

        patch.setattr(side_by_side, "bench", stop)
        with pytest.raises(KeyboardInterrupt, match="slimzoo resume"):
            compress(dense, data=photos, max_drop=100, shares=[0.5], out=out)
    assert resume(out).met
    assert (out / "model" / "model.onnx").is_file()


def test_a_search_that_was_interrupted_can_be_finished(dense, photos, tmp_path, monkeypatch):
    out = tmp_path / "out"
    interrupted(dense, photos, out, before="pruned-40", seed=8)
    lines = []
    found = resume(out, finish=True, tell=lines.append)
    assert found.chosen == "int8"
    assert (out / "model" / "model.onnx").is_file()
    assert "trying pruned-40" not in lines
    assert "finished as asked, before pruned-40" in found.said
    with pytest.raises(UsageError, match="nothing to resume"):
        resume(out, finish=True)


def test_a_fit_that_was_interrupted_goes_on(photos, tmp_path, monkeypatch):
    out = tmp_path / "out"
    with monkeypatch.context() as patch:

        def stop(self, step, source=None):
            raise KeyboardInterrupt

        patch.setattr("compress.plan.pipeline.Pipeline.done", stop)
        with pytest.raises(KeyboardInterrupt, match="slimzoo resume"):
            compress(photos, model="lenet5_caffe", max_drop=100, size="500kB", seed=3, out=out)
    assert partial_of(out).exists()
    assert resume(out).met


def test_a_fit_that_fails_leaves_nothing_behind(photos, tmp_path, monkeypatch):
    def fail(self, step, source=None):
        raise UsageError("no such thing")

    monkeypatch.setattr("compress.plan.pipeline.Pipeline.done", fail)
    with pytest.raises(UsageError, match="no such thing"):
        compress(photos, model="lenet5_caffe", max_drop=100, size="500kB", seed=4, out=tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


PLAN = "steps: [{prune: {macs: 0.5, recover: 1, seed: 5}}, {quantize: {}}]"


def test_a_plan_whose_step_misses_its_gate_keeps_what_passed(dense, photos, tmp_path, monkeypatch):
    done = Pipeline.done

    def gated(self, step, source=None):
        if step.verb == "quantize":
            raise GateError("it loses 3.0 points")
        return done(self, step, source)

    monkeypatch.setattr(Pipeline, "done", gated)
    (tmp_path / "plan.yaml").write_text(PLAN, encoding="utf-8")
    found = compress(dense, data=photos, max_drop=100, plan=str(tmp_path / "plan.yaml"), out=tmp_path / "out")
    assert (found.met, found.exit_code) == (False, 4)
    assert found.lines()[0] == "The plan stopped: it loses 3.0 points. The last that passed is `prune`."
    met = compress(dense, data=photos, size="10MB", plan=str(tmp_path / "plan.yaml"), out=tmp_path / "fit-meets-it")
    assert not met.met  # the fitted model does, and was not what the plan is of
    assert met.lines()[0].endswith("The last that passed is `prune`.")
    assert {path.name for path in (found.out / "variants").iterdir()} == {"fit", "prune"}
    assert {trial["name"]: trial.get("reason") for trial in found.record["variants"]} == {
        "fit": None,
        "prune": None,
        "prune-quantize": "it loses 3.0 points",
    }


def test_what_a_plan_makes_is_chosen_where_the_fitted_model_meets_the_budget_too(dense, photos, tmp_path):
    (tmp_path / "plan.yaml").write_text(PLAN, encoding="utf-8")
    given = {"data": photos, "plan": str(tmp_path / "plan.yaml"), "size": "10MB"}
    found = compress(dense, **given, max_drop=100, out=tmp_path / "out")
    assert (found.met, found.chosen) == (True, "prune-quantize")


def test_a_plan_whose_step_cannot_be_done_keeps_what_passed(dense, photos, tmp_path):
    text = PLAN.replace("quantize: {}", "quantize: {keep: [no_such_layer]}")
    (tmp_path / "plan.yaml").write_text(text, encoding="utf-8")
    found = compress(dense, data=photos, max_drop=100, plan=str(tmp_path / "plan.yaml"), out=tmp_path / "out")
    assert (found.met, found.exit_code) == (False, 4)
    assert "no_such_layer" in found.lines()[0]
    assert {path.name for path in (found.out / "variants").iterdir()} == {"fit", "prune"}


def test_the_fit_of_a_plan_keeps_to_the_time_too(photos, tmp_path, monkeypatch):
    (tmp_path / "plan.yaml").write_text("steps: [fit, quantize]", encoding="utf-8")
    asked = []

    def fitting(self, step, source=None):
        asked.append(step.settings.time_s)
        raise UsageError("enough is known")

    monkeypatch.setattr(Pipeline, "done", fitting)
    with pytest.raises(UsageError, match="enough is known"):
        compress(photos, plan=str(tmp_path / "plan.yaml"), time_s=600, out=tmp_path / "out")
    assert asked == [240.0]


def test_a_plan_keeps_to_its_time(dense, photos, tmp_path):
    """Of its first step nothing is known, and that takes longer than a second."""
    plan = tmp_path / "plan.yaml"
    plan.write_text(PLAN.replace("seed: 5", "seed: 6"), encoding="utf-8")
    found = compress(dense, data=photos, max_drop=100, time_s=1.0, plan=str(plan), out=tmp_path / "out")
    assert any("the time was up before `prune`, which takes about" in line for line in found.lines())
    assert not found.met


def test_smaller_images_are_tried_of_a_network_that_takes_them(photos, tmp_path):
    """Made, quantized, timed and reported as any other."""
    fit(photos, model="resnet20", method="scratch", epochs=1, size=32, out=tmp_path / "fitted")
    found = compress(tmp_path / "fitted", data=photos, max_drop=100, out=tmp_path / "out")
    trials = {trial["name"]: trial for trial in found.record["variants"]}
    sides = [int(name.split("-")[1]) for name in trials if name.startswith("resized") and not name.endswith("int8")]
    assert sides == sorted(sides, reverse=True)
    assert len(sides) == 2
    for side in sides:
        for name in (f"resized-{side}", f"resized-{side}-int8"):
            assert read_config(found.out / "variants" / name).preprocess.size == (side, side)
            assert trials[name]["macs"] < trials["fit"]["macs"]
            assert name in (found.out / "report.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("steps: [{prune: {rounds: 4, recover: 2}}]", "plan's `prune`: 4 rounds share 2 epochs"),
        ("steps: [{prune: {macs: 1}}]", "plan's `prune`: 100% of the MACs keeps every channel"),
        ("steps: [{quantize: {epochs: 3}}]", "plan's `quantize`: .*epochs needs torchao"),
    ],
)
def test_a_plan_that_a_step_would_refuse_is_refused_before_the_fit(text, said, photos, tmp_path, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    (tmp_path / "plan.yaml").write_text(text, encoding="utf-8")
    with pytest.raises(UsageError, match=said):
        compress(photos, plan=str(tmp_path / "plan.yaml"), out=tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["plan.yaml"]


def test_only_a_search_can_be_finished(photos, tmp_path, monkeypatch):
    monkeypatch.setattr("transfer.training.boundary.CHECKPOINT_STEPS", 1)

    def stop(title, done, total, note=""):
        if title == "scratch" and done > total / 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit(photos, model="lenet5_caffe", method="scratch", epochs=3, size=28, out=tmp_path / "fit", progress=stop)
    with pytest.raises(UsageError, match=r"finish is of `compress`, and .* is of `fit`"):
        resume(tmp_path / "fit", finish=True)


def test_no_trial_is_begun_that_would_take_longer_than_there_is_time(dense, photos, tmp_path):
    """The fitted model is there, and the first step takes longer than a second, as all do of which nothing is known."""
    found = compress(dense, data=photos, max_drop=100, seed=11, time_s=1.0, out=tmp_path / "out")
    assert not found.met
    assert any("the time was up before int8, which takes about" in line for line in found.lines())


def test_a_model_that_meets_the_budget_as_it_is_stays_as_it_is(dense, photos, tmp_path):
    found = compress(dense, data=photos, latency="10s", size="10MB", out=tmp_path / "out")
    assert (found.met, found.chosen, found.exit_code) == (True, "fit", 0)
    assert found.lines()[0] == "Keep `fit`: it meets the budget as it is."
    assert [trial["name"] for trial in found.record["variants"]] == ["fit"]
    report = json.loads((found.out / "report.json").read_text(encoding="utf-8"))
    assert (report["chosen"], report["met"]) == ("fit", True)
    assert (found.out / "model" / "deploy" / "infer.py").is_file()
    assert Plan.read(found.out / "plan.yaml").steps == ()


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"source": "timm:resnet18"}, "timm:resnet18 is fitted to images first: name them with data"),
        ({"source": "timm:resnet18", "data": "digits", "model": "resnet18"}, "two models to fit"),
        ({"source": "nowhere"}, "no dataset 'nowhere'"),
        ({"source": "digits", "plan": "nowhere.yaml"}, "cannot be read"),
    ],
)
def test_what_cannot_be_compressed_is_said_at_once(given, said, tmp_path):
    with pytest.raises(UsageError, match=said):
        compress(given.pop("source"), **given, out=tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_a_model_needs_its_images(dense, tmp_path):
    with pytest.raises(UsageError, match="name the images of its fit with data"):
        compress(dense, out=tmp_path / "out")
    with pytest.raises(UsageError, match="name it with out"):
        compress("digits")
    (tmp_path / "plan.yaml").write_text("steps: [fit, prune]", encoding="utf-8")
    with pytest.raises(UsageError, match=r"model resnet18 is what images are fitted to, and .* is fitted already"):
        compress(dense, data="digits", model="resnet18", out=tmp_path / "out")
    with pytest.raises(UsageError, match="SOURCE is fitted already"):
        compress(dense, data="digits", plan=str(tmp_path / "plan.yaml"), out=tmp_path / "out")


def test_from_images_it_fits_first(photos, tmp_path, slimzoo):
    out = tmp_path / "out"
    done = slimzoo(
        "compress", photos, "--model", "lenet5_caffe", "--size", "500kB", "--max-drop", "100", "--out", out, "--json"
    )
    assert done.code == 0, done.err
    record = json.loads(done.out)
    assert record["met"]
    assert record["chosen"] == "int8"  # which meets it, and loses less than a cut
    assert read_config(out / "model").lineage[0]["verb"] == "fit"
    assert Plan.read(out / "plan.yaml").verbs == ("fit", "quantize")
    shutil.rmtree(out)


def test_a_dry_run_says_what_would_be_tried_and_does_nothing(photos, tmp_path, slimzoo):
    done = slimzoo("compress", photos, "--dry-run", "--out", tmp_path / "out")
    assert done.code == 0
    (tmp_path / "plan.yaml").write_text(done.out, encoding="utf-8")
    assert Plan.read(tmp_path / "plan.yaml").verbs == ("fit", "prune", "quantize")
    assert "# Without --plan some of these are tried: " in done.out
    one = slimzoo("compress", photos, "--dry-run", "--shares", "0.7", "--out", tmp_path / "out")
    assert "    macs: 0.7" in one.out
    assert "some of these are tried: int8, pruned-70, pruned-70-int8\n" in one.out
    assert ("# smaller images before them" in done.out, "# smaller images before them" in one.out) == (True, False)
    assert [path.name for path in tmp_path.iterdir()] == ["plan.yaml"]
    budgets = ("--size", "500kB", "--max-drop", "2", "--latency", "5ms")
    with_budgets = slimzoo("compress", photos, "--dry-run", *budgets, "--out", tmp_path / "out")
    assert " --plan plan.yaml --max-drop 2 --latency 5ms --size 500kB --out OUT" in with_budgets.out.splitlines()[0]


def test_a_model_of_others_is_fitted_to_the_images_first(photos, tmp_path, slimzoo):
    named = slimzoo("compress", "timm:resnet18", "--data", photos, "--dry-run", "--out", tmp_path / "out")
    asked = slimzoo("compress", photos, "--model", "timm:resnet18", "--dry-run", "--out", tmp_path / "out")
    assert named.code == asked.code == 0, named.err
    assert named.out == asked.out
    assert re.search(r"model: .?timm:resnet18", named.out)
    (tmp_path / "plan.yaml").write_text(named.out, encoding="utf-8")
    with pytest.raises(UsageError, match="the plan fits timm:resnet18, and timm:resnet50 was asked for"):
        compress("timm:resnet50", data=photos, plan=tmp_path / "plan.yaml", out=tmp_path / "out")


def same_files(one, other):
    names = [sorted(p.relative_to(place).as_posix() for p in place.rglob("*") if p.is_file()) for place in (one, other)]
    assert names[0] == names[1]
    return [name for name in names[0] if (one / name).read_bytes() != (other / name).read_bytes()]


def test_a_second_identical_run_measures_nothing_and_ends_with_the_same_bytes(dense, photos, tmp_path, monkeypatch):
    """The machine is calm here: what was measured on a busy one would be measured again."""
    monkeypatch.setattr("compress.report.statistics.DISTURBED", 1.0)
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        compress(dense, data=photos, max_drop=100, out=tmp_path / folder / "out")
        monkeypatch.setattr(side_by_side, "bench", lambda *a, **k: pytest.fail("measured again"))
        monkeypatch.setattr("compress.plan.pipeline.Pipeline._do", lambda *a: pytest.fail("a step was done again"))
    moved = str(tmp_path / "one"), str(tmp_path / "two")
    for name in same_files(tmp_path / "one" / "out", tmp_path / "two" / "out"):
        texts = [(tmp_path / folder / "out" / name).read_text(encoding="utf-8") for folder in ("one", "two")]
        if not name.endswith("MANIFEST.sha256"):  # which has the hashes of what says where it lies
            texts[0] = texts[0].replace(*moved)
            words = [re.split(r"(?<=[>;])", re.sub(r"gradient_\d+", "", text)) for text in texts]  # Vega counts on
            assert not [pair for pair in zip(*words, strict=True) if pair[0] != pair[1]], name
