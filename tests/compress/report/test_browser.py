"""The report as a browser shows it, on a desk, on a telephone and on paper; where Chromium is."""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess

import numpy as np
import pytest

from compress.report.report import build_report

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed")
HOSTILE = "int8 <script>alert(1)<script> \"'🙂"
N = 50
# what is asked of the page itself; it is told in its title
ASK = """<script>
addEventListener("load", () => {
  const boxes = [...document.querySelectorAll("svg")].map(svg => svg.getBoundingClientRect());
  const cut = [...document.querySelectorAll("h1, h2, p, .verdict, svg")].filter(
    e => e.getBoundingClientRect().right > innerWidth + 1 && !e.closest(".wide"));
  const tables = [...document.querySelectorAll("table")].map(e => e.getBoundingClientRect());
  document.title = "told " + JSON.stringify({
    wide: document.documentElement.scrollWidth, window: innerWidth, cut: cut.map(e => e.outerHTML.slice(0, 80)),
    drawn: boxes.filter(b => b.width > 100 && b.height > 50).length, svgs: boxes.length,
    right: Math.max(...tables.map(b => b.right)), scripts: document.scripts.length,
    loaded: performance.getEntriesByType("resource").map(e => e.name),
  });
});
</script>"""


def row(model, ms, answer_ms):
    parts = {"decode_ms": 1.0, "prepare_ms": 0.5, "network_ms": answer_ms - 1.5, "whole_ms": answer_ms}
    return {
        **dict.fromkeys(("p90_ms", "p99_ms", "reason", "ratio", "ratio_ci"), None),
        **{"model": model, "runtime": "onnxruntime", "device": "cpu", "precision": "fp32", "median_ms": ms, "batch": 1},
        **{"images_per_s": 1000 / ms, "peak_mb": 80.0, "rounds_ms": [ms * f for f in (1, 1.01, 0.99)], "verdict": None},
        "answers": {"640x480 <b>": parts | {"ratio": 1.5, "ratio_ci": [1.4, 1.6], "verdict": "faster"}},
    }


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    out = tmp_path_factory.mktemp("browser") / "out"
    rng = np.random.default_rng(0)
    for name, verbs in (("fit", ["fit"]), (HOSTILE, ["fit", "quantize"])):
        correct = "".join("01"[int(flag)] for flag in rng.random(N) < 0.9)
        split = {"top1": correct.count("1") / N, "n": N, "correct": correct}
        after = {"val": split, "test": split, "params": 10**6, "macs": 10**8, "size_bytes": 10**6}
        step = {"arguments": {"data": "photos " * 20}, "seed": 0, "seconds": 1.0, "versions": {"torch": "2"}}
        lineage = [step | {"verb": verb, "metrics": {"before": None, "after": after}} for verb in verbs]
        ours = {"format": 1, "primary": "model.safetensors", "preprocess": {}, "surgery": [], "lineage": lineage}
        (out / name).mkdir(parents=True)
        (out / name / "config.json").write_text(json.dumps({"architecture": "x", "slimzoo": ours}), encoding="utf-8")
    bench = {
        "rows": [row("fit", 2.0, 4.0), row(HOSTILE, 1.0, 3.0)],
        "reference": {"model": "fit", "runtime": "onnxruntime"},
        "noise": {"ratio": 1.0, "ratio_ci": [0.99, 1.01], "floor_pct": 1.0},
        "machine": {"processor": "<img src=x>", "cores": 2, "threads": 2},
        "settings": {"batch": 1, "threads": 2, "rounds": 3, "seconds_per_round": 0.2, "inputs": "noise"},
    }
    (out / "bench.json").write_text(json.dumps(bench), encoding="utf-8")
    return build_report(out, max_drop=100.0)


def chromium(*arguments):
    command = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr", "--v=0", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


@pytest.mark.parametrize("width", [1400, 500, 390])
def test_everything_is_drawn_and_nothing_cut_off(report, width, tmp_path):
    """Chromium's own window is at least 500 wide; a frame is as narrow as a telephone."""
    page = report.html.read_text(encoding="utf-8")
    (tmp_path / "page.html").write_text(page.replace("</body>", ASK + "</body>"), encoding="utf-8")
    frame = f'<iframe id="f" src="page.html" width="{width}" height="3000" style="border:0"></iframe>'
    tell = "<script>setInterval(() => document.title = f.contentDocument.title, 50)</script>"
    (tmp_path / "frame.html").write_text(f"<!doctype html><body style='margin:0'>{frame}{tell}")
    done = chromium(
        "--allow-file-access-from-files",
        "--window-size=1500,3100",
        "--virtual-time-budget=5000",
        "--dump-dom",
        (tmp_path / "frame.html").as_uri(),
    )
    told = json.loads(html.unescape(re.search(r"<title>told (.*?)</title>", done.stdout)[1]))
    assert told["window"] == width
    assert told["wide"] <= width  # only tables scroll, each by itself
    assert told["cut"] == []
    assert told["drawn"] == told["svgs"] == 4
    assert told["scripts"] == 1  # the one that asks
    assert told["loaded"] == []
    assert "CONSOLE" not in done.stderr
    if width == 1400:
        assert told["right"] > 0.8 * width


def test_names_are_text(report):
    done = chromium("--virtual-time-budget=2000", "--dump-dom", report.html.as_uri())
    assert "CONSOLE" not in done.stderr
    assert "<script" not in done.stdout
    assert "<img" not in done.stdout
    assert html.unescape(re.sub(r"<[^>]*>", "", done.stdout)).count("int8 <script>alert(1)<script> \"'🙂") >= 3


def test_it_prints(report, tmp_path):
    done = chromium(f"--print-to-pdf={tmp_path / 'report.pdf'}", report.html.as_uri())
    assert (tmp_path / "report.pdf").read_bytes()[:4] == b"%PDF", done.stderr
    assert "CONSOLE" not in done.stderr


def test_it_is_one_file_of_at_most_two_megabytes(report):
    page = report.html.read_text(encoding="utf-8")
    assert len(page.encode()) <= 2e6
    assert not re.search(r"<[^>]*\s(?:src|href)\s*=|url\((?!#)|@import", page)
