"""The report: report.md, report.html and report.png, derived from the models' lineage and bench.json alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from compress.report import timing
from compress.report.charts import to_png
from compress.report.contents import PICTURE, Compared, contents
from compress.report.document import document, finished, located
from compress.report.gallery import save_gallery
from compress.report.machines import machines_table, read_elsewhere
from compress.report.page import html, markdown
from compress.report.parts import Section
from compress.report.searched import read_search
from compress.report.seeds import made_of
from compress.report.statistics import Ratio
from compress.report.variants import Comparison, Variant, choose, compare, read_bench, read_variants
from compress.report.verdict import verdict_of
from transfer.data.fitted_data import reopen
from zoo.disk import json_bytes


@dataclass(frozen=True)
class Report:
    """What was decided and where it is written.

    Attributes:
        baseline, chosen: names of directories; `chosen` is None where no compressed model is within the budget.
        variants: one JSON-ready record a model, the baseline first.
        budgets: what was asked for.
        met: whether a model meets it.
        verdict: the first sentence of the report.
        picture: None where no model has both an accuracy and a cost.
    """

    baseline: str
    chosen: str | None
    variants: list[dict[str, Any]]
    budgets: dict[str, float]
    met: bool
    verdict: str
    markdown: Path
    html: Path
    json: Path
    picture: Path | None

    def to_json(self) -> dict[str, Any]:
        return {key: str(value) if isinstance(value, Path) else value for key, value in asdict(self).items()}


def build_report(
    out: str | Path,
    *,
    max_drop: float = 1.0,
    elsewhere: Sequence[str | Path] = (),
    price_cpu: float | None = None,
    price_gpu: float | None = None,
    images: bool = True,
) -> Report:
    """Compare the models in the subdirectories of `out` with the one of the shortest lineage, and write the report.

    The chosen one is the fastest in onnxruntime among the others that lose at most `max_drop` percentage points of
    validation accuracy; the smallest, where `out` has no bench.json or one of a machine that was too busy. What is of
    another seed's fit is shown, not chosen. Where a search has written `out`, it is what that has chosen.

    Args:
        out: a directory of model directories, and of bench.json where they were timed, or what `compress` has written.
        max_drop: percentage points; a search has its own.
        elsewhere: what other machines measured of the same models: files of deploy/bench.py and `slimzoo bench --save`.
        price_cpu, price_gpu: of an hour of this machine without, and with its GPU, in any one currency.
        images: whether those are shown that are answered otherwise; the data of the fit must be as it found them.

    Raises:
        UsageError: `out` holds no models.
        SlimzooError: one of its files is damaged; nothing is written.
    """
    out = Path(out)
    bench = read_bench(out)
    searched = read_search(out)
    if searched is None:
        baseline, *others = variants = read_variants(out, bench)
    else:
        max_drop = searched.budgets["max_drop"]
        baseline, *others = variants = read_variants(searched.models, bench, searched.runtimes)
    compared = [compare(variant, baseline, bench) for variant in others]
    pairs = list(zip(others, compared, strict=True))
    made = made_of(baseline, pairs)
    taken = choose(made, max_drop) if searched is None else _named(searched.chosen, variants)
    verdict = verdict_of(baseline, taken, made, max_drop, searched)
    data = reopen(baseline.lineage) if images else None
    parts = contents(
        Compared(baseline, taken, pairs, max_drop, bench, images, data),
        str(finished(out.resolve())),
        crossover=timing.crossover_table(bench["rows"] if bench is not None else [], price_cpu, price_gpu),
        elsewhere=machines_table([read_elsewhere(file, variants) for file in elsewhere]) if elsewhere else None,
    )
    report = Report(
        baseline=baseline.name,
        chosen=None if taken is None else taken.name,
        variants=[_record(baseline, None), *(_record(*pair) for pair in pairs)],
        budgets={"max_drop": max_drop} if searched is None else dict(searched.budgets),
        met=taken is not None,
        verdict=verdict,
        markdown=out / "report.md",
        html=out / "report.html",
        json=out / "report.json",
        picture=out / PICTURE if any(part.picture and part.picture.file == PICTURE for part in parts) else None,
    )
    _write(report, located(parts, out), out)
    return report


def _named(name: str | None, variants: Sequence[Variant]) -> Variant | None:
    return next((variant for variant in variants if variant.name == name), None)


def _write(report: Report, parts: Sequence[Section], out: Path) -> None:
    title = f"Compression report: {finished(out.resolve()).name}"
    for part in parts:
        if part.picture is not None:
            (out / part.picture.file).write_bytes(to_png(part.picture.chart))
        if part.gallery is not None:
            save_gallery(part.gallery, out)
    report.json.write_bytes(json_bytes(document(report.to_json(), parts)))
    report.markdown.write_text(markdown(title, report.verdict, parts), encoding="utf-8", errors="backslashreplace")
    report.html.write_text(html(title, report.verdict, parts), encoding="utf-8", errors="backslashreplace")


def _record(variant: Variant, compared: Comparison | None) -> dict[str, Any]:
    record: dict[str, Any] = {"name": variant.name, "path": str(variant.directory), "precision": variant.precision}
    for split, accuracy in variant.accuracy.items():
        record |= {f"{split}_top1": accuracy.top1, f"{split}_top1_ci": accuracy.top1_ci}
    record |= {"params": variant.params, "macs": variant.macs, "size_bytes": variant.size_bytes}
    record |= {"median_ms": variant.latency_ms, "runtime": variant.runtime}
    if compared is not None:
        for split, points in compared.points.items():
            record[f"{split}_drop_points"] = points
        for split, paired in compared.paired.items():
            record |= {f"{split}_drop_ci_points": paired.ci_points, f"{split}_mcnemar_p": paired.mcnemar_p}
        ratio = compared.speed_up if isinstance(compared.speed_up, Ratio) else None
        record |= {"ratio": ratio and ratio.value, "ratio_ci": ratio and (ratio.lo, ratio.hi)}
        record["verdict"] = compared.speed_verdict
    return record
