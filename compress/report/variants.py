"""What a run made: each model of a directory of models, with what its lineage and the benchmark say of it.

Nothing is stored for the report: metrics live in the lineage, latencies in bench.json, and all else is derived here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from compress.report.statistics import Ratio, TooBusy, Verdict, speed_up, verdict_of
from transfer.evaluation.metrics import EXPECTED
from transfer.evaluation.statistics import PairedDrop, paired_drop, wilson
from zoo.disk import read_json
from zoo.errors import SlimzooError, UsageError
from zoo.files.manifest import MANIFEST, verify_manifest
from zoo.files.model_directory import CONFIG
from zoo.lineage import SAME_WEIGHTS, current_metrics

SPLITS = ("val", "test")
ONNXRUNTIME = "onnxruntime"  # in which models are compared, unless a search has found a faster one
UNEVEN = 1.5  # times as many images in one class as in another: top-1 is more of the larger one
BENCH = {"rows", "noise", "settings", "machine"}  # of bench.json, what the report is made of
BENCH_ROW = set("model runtime device precision reason rounds_ms median_ms p90_ms p99_ms images_per_s peak_mb".split())


@dataclass(frozen=True)
class Accuracy:
    """The accuracy on one split, in 0..1; `correct` has a digit for each image, 1 where it is right, `by_class` says of
    each class how many of how many are right; None: not kept."""

    top1: float
    top1_ci: tuple[float, float] | None
    n: int | None
    correct: str | None
    by_class: list[tuple[int, int]] | None = None
    balanced: float | None = None  # the mean of the classes' own
    balanced_ci: tuple[float, float] | None = None

    @property
    def is_uneven(self) -> bool:
        """Whether some classes have many more images than others."""
        sizes = [of for _, of in self.by_class or () if of]
        return bool(sizes) and max(sizes) >= UNEVEN * min(sizes) and max(sizes) - min(sizes) > 1

    @classmethod
    def read(cls, record: dict[str, Any]) -> Accuracy | None:
        """Raises: UsageError: `correct` is not one of its digits an image."""
        if record.get("top1") is None:
            return None
        if odd := set(record.get("correct") or "") - {"0", "1"}:
            raise UsageError(f"`correct` holds {min(odd)!r}: wanted 1 for a right answer, 0 for a wrong one")
        n, ci = record.get("n"), record.get("top1_ci")
        if ci is None and n:
            ci = wilson(round(record["top1"] * n), n)
        try:
            by_class = [(int(right), int(of)) for right, of in record.get("by_class") or ()] or None
        except (TypeError, ValueError) as err:
            raise UsageError("`by_class` holds something else than pairs of numbers: right ones, and all") from err
        return cls(
            top1=record["top1"],
            top1_ci=None if ci is None else (ci[0], ci[1]),
            n=n,
            correct=record.get("correct") or None,
            by_class=by_class,
            balanced=record.get("balanced"),
            balanced_ci=record.get("balanced_ci"),
        )


@dataclass(frozen=True)
class Variant:
    """One model directory."""

    name: str
    directory: Path
    lineage: list[dict[str, Any]]
    primary: str
    accuracy: dict[str, Accuracy]  # by split, and what is expected of new images
    params: int | None
    macs: int | None
    size_bytes: int | None
    rows: list[dict[str, Any]]  # of bench.json
    input_size: tuple[int, ...] | None = None  # (height, width) of its images
    classes: tuple[str, ...] = ()
    runtime: str = ONNXRUNTIME  # that it is compared in

    @property
    def row(self) -> dict[str, Any] | None:
        """The measured row in its runtime."""
        return next((r for r in self.rows if r["runtime"] == self.runtime and r["median_ms"] is not None), None)

    @property
    def steps(self) -> list[dict[str, Any]]:
        """What made it, without an export, which may have been done to some models and not to others."""
        return [record for record in self.lineage if record.get("verb") not in SAME_WEIGHTS]

    @property
    def data(self) -> dict[str, Any]:
        """What its last step with images says of them."""
        return next((record["data"] for record in reversed(self.lineage) if record.get("data")), {})

    @property
    def latency_ms(self) -> float | None:
        return None if self.row is None else float(self.row["median_ms"])

    @property
    def disturbed(self) -> bool:
        """Whether the machine was too busy when this one was timed."""
        return self.row is not None and bool(self.row.get("disturbed"))

    @property
    def precision(self) -> str:
        if self.row is not None and self.row["precision"]:
            return str(self.row["precision"])
        made: dict[str, Any] | None = next((r for r in reversed(self.lineage) if r.get("verb") == "quantize"), None)
        if made is None or self.primary != "model.onnx":
            return "fp32"
        return str((made.get("arguments") or {}).get("to", "int8"))


@dataclass(frozen=True)
class Comparison:
    """A variant against the baseline; drops by split, in percentage points, positive is worse.

    `points` is there wherever both accuracies are, `paired` only where both kept their answers to the same images.
    """

    points: dict[str, float]
    paired: dict[str, PairedDrop]
    speed_up: Ratio | TooBusy | None
    speed_verdict: Verdict | None
    times_smaller: float | None


def read_bench(out: Path) -> dict[str, Any] | None:
    """What `slimzoo bench --save` wrote; None where it wrote nothing.

    Raises:
        SlimzooError: a damaged file, or another one of that name.
    """
    file = out / "bench.json"
    if not file.exists():
        return None
    result = read_json(file)
    rows = result.get("rows") if isinstance(result, dict) else None
    whole = isinstance(rows, list) and all(isinstance(row, dict) and row.keys() >= BENCH_ROW for row in rows)
    if not whole or not result.keys() >= BENCH:
        raise SlimzooError(f"{file} is not what `slimzoo bench --save` writes; measure again, or take it away")
    checked: dict[str, Any] = result
    return checked


def read_variants(
    out: Path, bench: dict[str, Any] | None, runtimes: Mapping[str, str] = MappingProxyType({})
) -> list[Variant]:
    """The models in the immediate subdirectories of `out`, the one with the shortest lineage (the baseline) first.

    Raises:
        UsageError: there is none.
        SlimzooError: a file of one of them is damaged.
    """
    rows = [] if bench is None else bench["rows"]
    found = []
    for config in sorted(out.glob(f"*/{CONFIG}")):
        if config.parent.name.endswith(".partial"):
            continue
        if (config.parent / MANIFEST).exists():
            verify_manifest(config.parent)
        document = read_json(config)
        ours = document.get("slimzoo") if isinstance(document, dict) else None
        if ours is not None:
            own = [row for row in rows if row["model"] == config.parent.name]
            classes, runtime = tuple(document.get("label_names") or ()), runtimes.get(config.parent.name, ONNXRUNTIME)
            found.append(replace(_variant(config.parent, ours, own), classes=classes, runtime=runtime))
    if not found:
        raise UsageError(f"{out} holds no models: wanted a directory of model directories, as `slimzoo demo` writes it")
    return sorted(found, key=lambda variant: len(variant.steps))


def _variant(directory: Path, ours: dict[str, Any], rows: list[dict[str, Any]]) -> Variant:
    lineage = ours.get("lineage") or []
    metrics = current_metrics(lineage)
    primary = ours.get("primary", "model.safetensors")
    size_bytes = metrics.get("size_bytes")
    if size_bytes is None and (directory / primary).is_file():
        size_bytes = (directory / primary).stat().st_size
    try:
        accuracy = {split: Accuracy.read(metrics.get(split) or {}) for split in (*SPLITS, EXPECTED)}
    except UsageError as err:
        raise UsageError(f"{directory / CONFIG}: {err}; make it again, or leave it out of {directory.parent}") from err
    return Variant(
        name=directory.name,
        directory=directory,
        lineage=lineage,
        primary=primary,
        accuracy={split: value for split, value in accuracy.items() if value is not None},
        params=metrics.get("params"),
        macs=metrics.get("macs"),
        size_bytes=size_bytes,
        rows=rows,
        input_size=tuple((ours.get("preprocess") or {}).get("size") or ()) or None,
    )


def same_images(one: Variant, other: Variant) -> bool:
    """Whether both were judged by the same ones: another seed may draw others, as many, from one folder."""
    return bool(one.data.get("fingerprint") == other.data.get("fingerprint"))


def compare(variant: Variant, baseline: Variant, bench: dict[str, Any] | None) -> Comparison:
    points, paired = {}, {}
    for split in SPLITS:
        before, after = baseline.accuracy.get(split), variant.accuracy.get(split)
        if before is None or after is None:
            continue
        points[split] = 100 * (before.top1 - after.top1)
        if (
            same_images(variant, baseline)
            and before.correct
            and after.correct
            and len(before.correct) == len(after.correct)
        ):
            paired[split] = paired_drop(before.correct, after.correct)
            points[split] = paired[split].points
    old, new = baseline.row, variant.row
    found = verdict = None
    if bench is not None and old is not None and new is not None:
        found = speed_up(old, new, bench["settings"]["rounds"])
        verdict = verdict_of(found, bench["noise"] and bench["noise"]["floor_pct"])
    return Comparison(
        points=points,
        paired=paired,
        speed_up=found,
        speed_verdict=verdict,
        times_smaller=baseline.size_bytes / variant.size_bytes if baseline.size_bytes and variant.size_bytes else None,
    )


def choose(pairs: Sequence[tuple[Variant, Comparison]], max_drop: float) -> Variant | None:
    """The fastest in onnxruntime of those whose validation drop is at most `max_drop` points; the smallest, where no
    latency was measured or other work disturbed one. The test set has no say."""
    within = [variant for variant, found in pairs if found.points.get("val", np.inf) <= max_drop + 1e-9]
    timed = [variant for variant in within if variant.latency_ms is not None]
    if timed and not any(variant.disturbed for variant in timed):
        return min(timed, key=lambda variant: variant.latency_ms or np.inf)
    return min(within, key=lambda variant: variant.size_bytes or np.inf, default=None)
