"""The report against directories made by hand: every number in it is one of theirs, or a statistic of theirs."""

from __future__ import annotations

import html
import json
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from safetensors.numpy import save_file

from compress.benchmark.table import format_rows
from compress.report.figures import MINUS, MISSING, count, megabytes, milliseconds, percent, signed, times
from compress.report.latency_chart import latency_chart
from compress.report.report import build_report
from compress.report.sections import command
from compress.report.statistics import ratio_interval
from transfer.evaluation.statistics import paired_drop, wilson
from zoo.errors import SlimzooError, UsageError
from zoo.files.manifest import write_manifest
from zoo.lineage import current_metrics

N = 360


def answers(wrong):
    """One character an image; 0 at the indices `wrong`."""
    return "".join("0" if i in set(wrong) else "1" for i in range(N))


def metrics(val, test, *, params, macs, size_bytes):
    def split(correct):
        right = correct.count("1")
        return {"top1": right / N, "top1_ci": list(wilson(right, N)), "n": N, "correct": correct}

    return {"val": split(val), "test": split(test), "params": params, "macs": macs, "size_bytes": size_bytes}


FIT = metrics(answers(range(7)), answers(range(9)), params=4_200_000, macs=98_700_000, size_bytes=16_812_345)
PRUNED = metrics(
    answers([*range(5), 80, 81, 82]), answers([*range(12)]), params=1_310_000, macs=49_300_000, size_bytes=5_278_910
)
INT8 = metrics(answers([*range(8)]), answers([*range(8), 50]), params=4_200_000, macs=98_700_000, size_bytes=4_345_678)
BROKEN = metrics(answers(range(30)), answers(range(33)), params=500_000, macs=9_000_000, size_bytes=1_234_567)
ROUNDS = {
    "fit": [2.0, 2.1, 1.9, 2.0, 2.2, 2.0, 1.95, 2.05, 2.0],
    "int8": [0.95, 1.0, 0.9, 0.97, 1.1, 0.98, 0.93, 1.0, 0.96],
    "pruned": [1.2, 1.25, 1.1, 1.2, 1.3, 1.21, 1.15, 1.2, 1.22],
    "broken": [0.3, 0.31, 0.29, 0.3, 0.32, 0.3, 0.3, 0.31, 0.3],
}


def record(verb, after, *, before=None, seconds=12.3, **arguments):
    return {
        "verb": verb,
        "arguments": arguments,
        "seed": 0,
        "versions": {"python": "3.11.9", "torch": "2.14.1"},
        "data": {"name": "digits", "fingerprint": "0123456789abcdef", "sizes": {"train": 1078, "val": N, "test": N}},
        "seconds": seconds,
        "metrics": {"before": before, "after": after},
    }


def write(out, name, lineage, *, primary="model.safetensors", side=None):
    directory = out / name
    directory.mkdir()
    preprocess = {} if side is None else {"size": [side, side]}
    ours = {"format": 1, "primary": primary, "preprocess": preprocess, "surgery": [], "lineage": lineage}
    (directory / "config.json").write_text(json.dumps({"architecture": "x", "label_names": ["a"], "slimzoo": ours}))


def row(model, rounds_ms, reason=None):
    median = None if reason else float(np.median(rounds_ms))
    return {
        "model": model,
        "runtime": "onnxruntime",
        "device": "cpu",
        "precision": "int8" if model == "int8" else "fp32",
        "batch": 1,
        "threads": 2,
        "median_ms": median,
        "p90_ms": None,
        "p99_ms": None,
        "images_per_s": None if reason else 1000 / median,
        "peak_mb": None if reason else 71.5,
        "size_bytes": 1,
        "reason": reason,
        "samples": 0 if reason else 300,
        "load_ms": None if reason else 48.0,
        "first_ms": None if reason else 3.1,
        "rounds_ms": rounds_ms,
        "ratio": None,
        "ratio_ci": None,
        "verdict": None,
    }


def bench_result(rounds):
    rows = [row(name, times_ms) for name, times_ms in rounds.items()]
    torch = row("fit", [], "not measured: no CUDA device") | {"runtime": "torch-cuda"}
    return {
        "rows": [*rows, torch],
        "reference": {"model": "fit", "runtime": "onnxruntime"},
        "noise": {"ratio": 1.0, "ratio_ci": [0.98, 1.03], "floor_pct": 3.0},
        "machine": {
            "processor": "A <Processor>",
            "flags": ["avx2"],
            "cores": 2,
            "threads": 2,
            "load_average": 0.1,
            "gpu": [],
            "system": "Linux",
        },
        "versions": {"onnxruntime": "1.31.1"},
        "settings": {"batch": 1, "threads": 2, "rounds": 9, "seconds_per_round": 0.2, "inputs": "normal noise, seed 0"},
    }


@pytest.fixture
def out(tmp_path):
    fit = record("fit", FIT, data="digits", model="efficientnet_lite0", out="out/fit", epochs=3, flip=False, lr=None)
    export = record("export", {"size_bytes": 17_000_000}, directory="out/fit")
    export["parity"] = {"images": "noise", "n": 32, "max_abs": 1e-5, "logits_std": 2.0, "top1_agreement": 1.0}
    pruned = record("prune", PRUNED, before=FIT, directory="out/fit", data="digits", macs=0.5, out="out/pruned")
    int8 = record("quantize", INT8, before=FIT, directory="out/fit", data="digits", out="out/int8")
    write(tmp_path, "fit", [fit, export])
    write(tmp_path, "pruned", [fit, pruned])
    write(tmp_path, "int8", [fit, export, int8], primary="model.onnx")
    write(tmp_path, "broken", [fit, record("prune", BROKEN, directory="out/fit", macs=0.1, out="out/broken")])
    write(tmp_path, "half.partial", [])
    (tmp_path / "notes").mkdir()
    (tmp_path / "bench.json").write_text(json.dumps(bench_result(ROUNDS)))
    return tmp_path


class Text(HTMLParser):
    """What a reader sees, and what a browser would fetch or run."""

    def __init__(self):
        super().__init__()
        self.seen, self.fetched, self.tags = [], [], []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.fetched += [value for name, value in attrs if name in ("src", "href", "xlink:href", "srcset", "data")]
        self.fetched += [name for name, _ in attrs if name.startswith("on")]

    def handle_data(self, data):
        self.seen.append(data)


def read(report):
    parser = Text()
    parser.feed(report.html.read_text())
    return " ".join(" ".join(parser.seen).split()), parser


def test_chosen_is_the_fastest_within_the_budget(out):
    report = build_report(out)
    assert (report.baseline, report.chosen, report.met) == ("fit", "int8", True)
    assert [variant["name"] for variant in report.variants] == ["fit", "broken", "int8", "pruned"]
    assert build_report(out, max_drop=10).chosen == "broken"


def test_layers_to_blame_are_told(out):
    file = out / "int8" / "config.json"
    config = json.loads(file.read_text())
    layer = {"macs": 1200, "weight_sqnr_db": 41.23, "output_sqnr_db": None, "saved_ms": -0.0125, "divergence": 0.1}
    config["slimzoo"]["lineage"][-1] |= {
        "kept": ["stem"],
        "ranking": [{"layer": "stem", "share": 0.471, **layer}, {"layer": "a<b>", "share": -0.02, **layer}],
    }
    file.write_text(json.dumps(config))
    page = build_report(out, max_drop=1).markdown.read_text()
    rows = [line for line in page.splitlines() if "41.2 dB" in line]
    assert len(rows) == 2
    assert all(said in rows[0] for said in ("`stem`", "in float", "47.1%", "1.20 k", MISSING, f"{MINUS}12.5 µs")), rows
    assert "in float" not in rows[1]


def test_numbers_are_those_of_the_lineage(out):
    report = build_report(out)
    page, markdown = read(report)[0], report.markdown.read_text()
    for one in (FIT, PRUNED, INT8, BROKEN):
        figures = [percent(one["test"]["top1"]), *map(percent, one["test"]["top1_ci"]), megabytes(one["size_bytes"])]
        for figure in [*figures, count(one["params"]), count(one["macs"])]:
            assert figure in page
            assert figure in markdown
    for name, rounds_ms in ROUNDS.items():
        assert milliseconds(float(np.median(rounds_ms))) in page
        if name != "fit":
            ratio = ratio_interval(np.array(ROUNDS["fit"]) / rounds_ms)
            assert f"{ratio.value:.2f}x" in page
            assert f"{ratio.lo:.2f} to {ratio.hi:.2f} faster" in page


def test_what_is_expected_of_new_images_is_said_where_it_was_cross_validated(out, tmp_path):
    assert "Of new images" not in build_report(out).html.read_text()
    fitted = FIT | {"expected": {"top1": 0.8422, "top1_ci": [0.7512, 0.9031], "n": 122}}
    write(tmp_path, "few", [record("fit", fitted, data="photos", model="efficientnet_lite0", out="out/few")])
    report = build_report(out)
    seen, _ = read(report)
    assert "Of new images, few is expected to answer 84.2% right (95% interval 75.1% to 90.3%)" in seen
    assert "the 122 images that it was trained on" in seen
    few = next(variant for variant in report.variants if variant["name"] == "few")
    assert (few["expected_top1"], few["expected_top1_ci"]) == (0.8422, (0.7512, 0.9031))


def test_a_gpu_is_told_apart_from_the_way_to_it(out):
    bench = bench_result(ROUNDS)
    bench["rows"][-1] = row("fit", [0.9, 0.8, 1.0]) | {
        **{"runtime": "torch-cuda", "device": "NVIDIA X", "device_ms": 0.6, "transfer_ms": 0.3},
        "device_peak_mb": 120.0,
    }
    (out / "bench.json").write_text(json.dumps(bench))
    seen, _ = read(build_report(out))
    assert "0.600 ms on the device" in seen
    assert "120 MB on the device" in seen
    assert "fit in torch-cuda (fp32, batch 1): 0.6 ms on the device, 0.3 ms to it and back" in format_rows(
        {"rows": [{**bench["rows"][-1], "disturbed": False, "ratio_range": None, "answers": None}], "noise": None}
        | {"crossovers": [], "diagnoses": []}
    )


def test_verdict_is_one_sentence_with_every_interval(out):
    drop = paired_drop(FIT["test"]["correct"], INT8["test"]["correct"])
    ratio = ratio_interval(np.array(ROUNDS["fit"]) / ROUNDS["int8"])
    lo, hi = drop.ci_points
    assert build_report(out).verdict == (
        f"Use `int8`: top-1 {percent(INT8['test']['top1'])} on test ({signed(-drop.points)} points, 95% interval "
        f"{signed(-hi)} to {signed(-lo)}, paired), 0.970 ms ({ratio.value:.2f}x faster, "
        f"{ratio.lo:.2f} to {ratio.hi:.2f}), 4.35 MB ({times(16_812_345 / 4_345_678)} smaller)."
    )


def test_no_model_within_the_budget_is_said(out):
    report = build_report(out, max_drop=0.1)
    assert (report.chosen, report.met) == (None, False)
    assert report.verdict.startswith(
        "Keep `fit`: no compressed model is within 0.1 points on validation (the nearest, "
    )


def test_a_model_that_is_not_faster_is_not_called_so(out):
    rounds = ROUNDS | {"int8": [2.9] * 9, "pruned": [2.01] * 9}
    (out / "bench.json").write_text(json.dumps(bench_result(rounds)))
    report = build_report(out)
    assert report.chosen == "pruned"
    assert ", a tie, " in report.verdict
    assert report.verdict.endswith("No compressed model within 1.0 point is faster than `fit` on this machine.")


def test_without_a_benchmark_the_smallest_is_chosen(out):
    (out / "bench.json").unlink()
    report = build_report(out)
    page, _ = read(report)
    assert report.chosen == "int8"
    assert "Latency was not measured here" in page
    assert "ms" not in report.verdict
    assert report.picture.is_file()


def test_page_asks_for_nothing_and_runs_nothing(out):
    report = build_report(out)
    source, (page, parser) = report.html.read_text(), read(report)
    assert parser.fetched == []
    assert not {"script", "link", "img", "iframe"} & set(parser.tags)
    assert not re.search(r"http|url\(|@import", source)
    assert "svg" in parser.tags
    assert "A <Processor>" in page
    assert "not measured: no CUDA device" in page
    assert len(source) < 200_000


def test_names_cannot_inject(out):
    bad = "<script>alert(1)<|script>`*x*"
    write(out, bad, [record("fit", FIT), record("prune", INT8, macs="</td><script>alert(2)</script>")])
    (out / "bench.json").write_text(json.dumps(bench_result(ROUNDS | {bad: [0.1] * 9})))
    report = build_report(out)
    page, parser = read(report)
    assert report.chosen == bad
    assert "script" not in parser.tags
    assert bad.replace("`", "'") in page
    assert html.escape("<script>alert(1)<|script>") in report.html.read_text()
    markdown = report.markdown.read_text()
    assert "</td><script>" not in re.sub(r"```sh.*?```|`[^`]*`", "", markdown, flags=re.S)
    table = [line for line in markdown.splitlines() if line.startswith("| `<script>alert(1)<\\|")]
    assert {len(re.findall(r"(?<!\\)\|", line)) for line in table} == {11, 12}  # 10 columns or 11


def test_missing_figures_are_dashes(tmp_path):
    write(tmp_path, "fit", [record("fit", {"val": {"top1": 0.5}})])
    write(tmp_path, "int8", [record("fit", None), {"verb": "quantize"}])
    report = build_report(tmp_path)
    assert report.chosen is None
    assert report.picture is None
    assert report.verdict == "Keep `fit`: no compressed model was measured on validation."
    assert "–" in read(report)[0]


def test_a_baseline_alone_is_said(tmp_path):
    write(tmp_path, "fit", [record("fit", FIT)])
    assert build_report(tmp_path).verdict == "Keep `fit`: nothing was compressed yet."


def test_an_empty_directory_is_refused(tmp_path):
    with pytest.raises(UsageError, match="holds no models"):
        build_report(tmp_path)


def test_metrics_survive_an_export_and_not_another_step():
    fit, export = record("fit", FIT), record("export", {"size_bytes": 1})
    assert current_metrics([fit, export]) == FIT
    assert current_metrics([fit, record("prune", None)]) == {}


def test_drops_of_different_images_are_not_paired(out):
    other = metrics("1" * N, "1" * N, params=1, macs=1, size_bytes=1)
    other["val"] |= {"correct": "1" * 100, "n": 100}
    write(out, "other", [record("fit", FIT), record("prune", other)])
    variant = next(v for v in build_report(out).variants if v["name"] == "other")
    assert "val_mcnemar_p" not in variant
    assert "test_mcnemar_p" in variant
    assert variant["val_drop_points"] == pytest.approx(100 * (FIT["val"]["top1"] - 1))


def test_several_seeds_are_means_and_what_they_lie_between(tmp_path):
    """The figures, by hand, of three fits and two of their int8 forms; other fits are nothing that was compressed."""
    slower, made = [4.0] * 9, {"fit-0": [4.0] * 9, "int8-0": [2.0] * 9, "int8-1": [1.0] * 9}
    for seed, wrong in enumerate((9, 18, 0)):
        drawn = {"fingerprint": f"drawn-{seed}", "name": "photos", "sizes": {"train": 1078, "val": N, "test": N}}
        given = {"seed": seed, "data": drawn}
        after = metrics("1" * N, answers(range(wrong)), params=1, macs=1, size_bytes=8_000_000)
        fit = record("fit", after, model="m", out=f"out/fit-{seed}") | given
        write(tmp_path, f"fit-{seed}", [fit])
        lost = metrics("1" * N, answers(range(wrong + 9 * seed)), params=1, macs=1, size_bytes=2_000_000)
        int8 = record("quantize", lost, before=after, directory=f"out/fit-{seed}", to="int8") | given
        if seed < 2:
            write(tmp_path, f"int8-{seed}", [fit, record("export", {}, directory=f"out/fit-{seed}"), int8])
    (tmp_path / "bench.json").write_text(json.dumps(bench_result(made | {"fit-1": slower, "fit-2": slower})))
    report = build_report(tmp_path)
    document = json.loads(report.json.read_text())
    (section,) = (one for one in document["sections"] if one["title"] == "Several seeds")
    cells = [[(cell["text"], *cell["notes"]) for cell in row] for row in section["table"]["rows"]]
    assert cells == [
        [("`fit-0`, `fit-1`, `fit-2`",), ("97.5%", "95.0% to 100.0%"), ("",), ("8.00 MB", "8.00 MB to 8.00 MB"), ("",)],
        [
            ("`int8-0`, `int8-1`",),
            ("95.0%", "92.5% to 97.5%"),
            (f"{MINUS}1.2", f"{MINUS}2.5 to 0.0"),
            ("2.00 MB", "2.00 MB to 2.00 MB"),
            ("2.83x", "2.00 to 4.00"),
        ],
    ]
    assert report.chosen == "int8-0", "the faster one was made of another fit"
    assert "val_mcnemar_p" not in report.variants[1], "other seeds have drawn other images"
    assert "val_mcnemar_p" in next(one for one in report.variants if one["name"] == "int8-0")


def test_nothing_is_said_of_the_same_images_where_seeds_drew_others(tmp_path):
    """Nor is another seed's model chosen, by which the lucky would beat the good."""
    for seed in (0, 1):
        given = {"seed": seed, "data": {"fingerprint": f"drawn-{seed}", "name": "photos", "sizes": {"train": N}}}
        after = json.loads(json.dumps(FIT))
        after["test"]["by_class"] = [[N - 9 - seed, N]]
        write(tmp_path, f"fit-{seed}", [record("fit", after) | given])
        write(tmp_path, f"twin-{seed}", [record("fit", after) | given, record("export", {}, directory="x")])
    report = build_report(tmp_path)
    assert (report.baseline, report.chosen) == ("fit-0", "twin-0")
    assert "Which classes changed" not in report.markdown.read_text()
    assert "| `fit-0`, `fit-1` |" in report.markdown.read_text()


def test_balanced_accuracy_stands_beside_top1_where_classes_are_uneven(tmp_path):
    uneven = json.loads(json.dumps(FIT))
    uneven["test"] |= {"by_class": [[300, 300], [51, 60], [0, 0]], "balanced": 0.925, "balanced_ci": [0.871, 0.964]}
    write(tmp_path, "fit", [record("fit", uneven)])
    assert "balanced 92.5% 87.1% to 96.4%" in read(build_report(tmp_path))[0]
    uneven["test"]["by_class"] = [[180, 180], [171, 180]]
    write(tmp_path, "even", [record("fit", uneven)])
    (tmp_path / "fit" / "config.json").unlink()
    assert "balanced 9" not in read(build_report(tmp_path))[0]


def test_energy_is_told_where_the_machine_tells_it(out):
    bench = bench_result(ROUNDS)
    bench["rows"][0]["joules_per_image"] = 0.1234
    (out / "bench.json").write_text(json.dumps(bench))
    assert "0.123 J an image" in read(build_report(out))[0]
    told = {"disturbed": False, "ratio_range": None, "answers": None}
    rows = [one | told for one in bench["rows"][:2]]
    text = format_rows({"rows": rows, "noise": None, "crossovers": [], "diagnoses": []})
    assert text.count("J an image") == 1
    assert "fit in onnxruntime (fp32, batch 1): 0.123 J an image" in text


def test_one_seed_or_other_settings_are_no_seeds(out):
    write(out, "fit-again", [record("fit", FIT, model="efficientnet_lite0", epochs=4) | {"seed": 1}])
    assert "Several seeds" not in build_report(out).markdown.read_text()


def test_answers_that_are_no_digits_are_refused_with_their_file(out):
    other = metrics("1" * N, "1" * N, params=1, macs=1, size_bytes=1)
    other["test"] |= {"correct": "1" * (N - 1) + "x"}
    write(out, "other", [record("fit", FIT), record("prune", other)])
    with pytest.raises(UsageError, match=r"other/config.json: `correct` holds 'x': wanted 1 .* leave it out of "):
        build_report(out)


@pytest.mark.parametrize("content", [b"{", b"[]", b'{"rows": 3}', b'{"rows": [{}]}', b"\xff\xfe", b""])
def test_a_damaged_benchmark_is_named(out, content):
    (out / "bench.json").write_bytes(content)
    with pytest.raises(SlimzooError, match=r"bench\.json is (damaged|not what `slimzoo bench --save` writes)"):
        build_report(out)
    assert not list(out.glob("report.*"))


def test_a_damaged_model_is_named(out):
    config = out / "int8" / "config.json"
    whole = config.read_bytes()
    config.write_bytes(whole[:100])
    with pytest.raises(SlimzooError, match=r"int8/config\.json is damaged, no JSON"):
        build_report(out)
    config.write_bytes(whole)
    write_manifest(out / "int8")
    build_report(out)
    config.write_bytes(whole.replace(b'"label_names": ["a"]', b'"label_names": ["b"]'))
    for file in out.glob("report.*"):
        file.unlink()
    with pytest.raises(SlimzooError, match=r"int8/config\.json is not what MANIFEST\.sha256 says"):
        build_report(out)
    assert not list(out.glob("report.*"))


def test_steps_of_the_baseline_are_told_once(out):
    page, _ = read(build_report(out))
    steps = page[page.index("Steps") : page.index("How it was measured")]
    assert steps.count("epochs=3") == 1
    assert steps.count("macs=0.5") == 1


def test_classes_that_lost_are_named(out, tmp_path):
    assert "Which classes changed" not in build_report(out).html.read_text(), "who did not keep them says nothing"
    same = [[135, 135], [5, 5], [0, 0]]
    counts = {"fit": (FIT, [[100, 120], [118, 120], *same]), "int8": (INT8, [[88, 120], [119, 120], *same])}
    for name, (base, found) in counts.items():
        metrics = base | {split: base[split] | {"by_class": found} for split in ("val", "test")}
        path = tmp_path / name / "config.json"
        document = json.loads(path.read_text())
        document["slimzoo"]["lineage"][-1 if name == "int8" else 0]["metrics"]["after"] = metrics
        document["label_names"] = ["cat", "d|og", "emu", "fox", "gnu"]
        path.write_text(json.dumps(document))
    report = build_report(out)
    assert report.chosen == "int8"
    seen, _ = read(report)
    found = seen[seen.index("Which classes changed") : seen.index("Steps")]
    assert f"cat 120 100 88 {MINUS}10.0 points d|og 120 118 119 +0.8 points" in found
    assert "emu" not in found, "what stayed is not listed"
    document["slimzoo"]["lineage"][-1]["metrics"]["after"]["val"]["by_class"] = [[1, 2, 3]]
    path.write_text(json.dumps(document))
    with pytest.raises(UsageError, match="`by_class` holds something else than pairs"):
        build_report(out)


def test_what_pruning_left_of_each_layer_is_drawn(out, tmp_path):
    assert "What is left of each layer" not in build_report(out).html.read_text(), "no model has its tensors here"
    widths = {f"blocks.{i}.conv": 16 for i in (0, 1, 2, 10)} | {"head": 5}
    cut = {"blocks.2.conv": 4, "blocks.10.conv": 12, "blocks.1.conv": 0}
    config = tmp_path / "pruned" / "config.json"
    document = json.loads(config.read_text())
    document["slimzoo"]["lineage"][-1]["blocks"] = {"left_out": ["blocks.1"]}
    config.write_text(json.dumps(document))
    for name, left in (("fit", {}), ("pruned", cut), ("int8", {})):
        there = {layer: width for layer, n in widths.items() if (width := left.get(layer, n))}
        tensors = {f"{layer}.weight": np.zeros((width, 8), np.float32) for layer, width in there.items()}
        save_file(tensors | {"norm.weight": np.ones(3, np.float32)}, tmp_path / name / "model.safetensors")
    report = build_report(out)
    svg = report.html.read_text().split("What is left of each layer")[1].split("</svg>")[0]
    said = re.findall(r'aria-label="([^"]* left)"', svg)
    shares = ["100", "0", "25", "75", "100"]
    assert said == [f"{layer}: {share}% left" for layer, share in zip(widths, shares, strict=True)]
    assert (tmp_path / "report-layers.png").exists()
    (tmp_path / "pruned" / "model.safetensors").write_bytes(b"cut off")
    assert "What is left of each layer" not in build_report(out).html.read_text()


def test_rounds_are_drawn_over_the_noise(out):
    bench = bench_result(ROUNDS)
    bench["rows"][1]["taken"] = [0.0] * 8 + [0.5]
    drawn = latency_chart(bench)
    sets = list(drawn.to_dict()["datasets"].values())
    (ticks,) = (records for records in sets if "round" in records[0])
    assert sorted(record["ms"] for record in ticks) == sorted(ms for rounds in ROUNDS.values() for ms in rounds)
    assert [record["ms"] for record in ticks if record["round"] == "disturbed"] == [ROUNDS["int8"][8]]
    ((band,),) = (records for records in sets if "from" in records[0])
    assert (band["from"], band["to"]) == pytest.approx((2.0 * 0.97, 2.0 * 1.03))
    assert "How sure the latencies are" in build_report(out).html.read_text()
    assert latency_chart(bench | {"rows": bench["rows"][:1]}) is None
    assert latency_chart(bench | {"reference": None}) is None


def test_each_step_says_what_it_changed(out):
    page, _ = read(build_report(out))
    steps = page[page.index("Steps") : page.index("How it was measured")]
    pruned = steps[steps.index("pruned") :]
    for said in (f"97.8% {MINUS}0.3 points", "1.31 M 31% of before", "49.3 M 50% of before", "5.28 MB 31% of before"):
        assert said in pruned
    assert "export top-1 as torch's on 100.0% of 32 noise images" in steps
    assert "of before" not in steps[: steps.index("quantize")], "a fit began with nothing that was measured"


def test_commands_can_be_pasted(out):
    markdown = build_report(out).markdown.read_text()
    assert "slimzoo fit digits --out out/fit --model efficientnet_lite0 --epochs 3 --no-flip\n" in markdown
    assert "slimzoo export out/fit\n" in markdown
    assert "slimzoo prune out/fit --data digits --out out/pruned --macs 0.5\n" in markdown
    assert (
        command({"verb": "fit", "arguments": {"data": "my data", "taps": False}}) == "slimzoo fit 'my data' --no-taps"
    )


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        (percent(0.98123), "98.1%"),
        (signed(-0.04), "0.0"),
        (signed(-1.25), "−1.2"),
        (signed(0.3), "+0.3"),
        (count(3_410_000), "3.41 M"),
        (count(98_700_000), "98.7 M"),
        (count(1234), "1.23 k"),
        (megabytes(16_812_345), "16.8 MB"),
        (megabytes(412_000), "412 kB"),
        (megabytes(1_234_567_890), "1235 MB"),
        (milliseconds(0.9712), "0.971 ms"),
        (milliseconds(2.0), "2.00 ms"),
        (milliseconds(99.97), "100 ms"),
        (milliseconds(1234.5), "1234 ms"),
        (times(13.8), "14x"),
        (times(3.87), "3.9x"),
        (times(1.234), "1.23x"),
        (percent(None), "–"),
    ],
)
def test_figures(text, wanted):
    assert text == wanted


@pytest.mark.parametrize("side", [64, 96])
def test_the_images_size_is_told_where_models_differ_in_it(tmp_path, side):
    write(tmp_path, "fit", [record("fit", FIT)], side=96)
    write(tmp_path, "pruned", [record("fit", FIT), record("prune", PRUNED, before=FIT)], side=side)
    text = build_report(tmp_path).markdown.read_text(encoding="utf-8")
    assert ("49.3 M (64 x 64 px)" in text) == ("98.7 M (96 x 96 px)" in text) == (side == 64)
