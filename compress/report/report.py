"""The report: report.md, report.html and report.png, derived from the models' lineage and bench.json alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from compress.report import sections, timing
from compress.report.answer_chart import answer_chart
from compress.report.charts import Budget, Point, accuracy_chart, to_png, to_svg
from compress.report.class_changes import class_table
from compress.report.document import document, located
from compress.report.figures import Cell
from compress.report.latency_chart import latency_chart
from compress.report.layer_chart import layer_chart
from compress.report.machines import machines_table, read_elsewhere
from compress.report.sections import Picture, Section, Table
from compress.report.statistics import Ratio
from compress.report.variants import Comparison, Variant, choose, compare, read_bench, read_variants
from zoo.disk import json_bytes

TEMPLATE = Path(__file__).with_name("report.html.j2")


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


BLAMED = (
    "With a layer alone back in float, this share of the difference between the int8 and the float model's answers "
    "goes. SQNR: signal over rounding noise. What int8 saves is by onnxruntime's own profile, for one image."
)
ROUNDS = "In grey what two copies of the baseline could differ by; what lies within is no difference."
LAYERS = "Channels, or outputs of a linear layer, that pruning left, from the first layer to the last."
STRIPS = "report-layers.png"
CHANGED = "Images of each class that are answered right, of those that the table of models is of."
PICTURE, SECOND = "report.png", "report-size.png"
CHARTED = "The area of a circle is the size of the file; the stepped line is the best accuracy to be had for a cost."
ANSWERS = (
    "What the user of a model waits for, by the exported file as deploy/infer.py runs it: a JPEG is decoded at the "
    "part of its size that the network needs, resized and normalized in the file. The network's time is what the file "
    "takes of pixels of the network's own size after the same decoding."
)


def build_report(
    out: str | Path,
    *,
    max_drop: float = 1.0,
    elsewhere: Sequence[str | Path] = (),
    price_cpu: float | None = None,
    price_gpu: float | None = None,
) -> Report:
    """Compare the models in the subdirectories of `out` with the one of the shortest lineage, and write the report.

    The chosen one is the fastest in onnxruntime among the others that lose at most `max_drop` percentage points of
    validation accuracy; the smallest, where `out` has no bench.json or one of a machine that was too busy.

    Args:
        out: a directory of model directories, and of bench.json where they were timed.
        max_drop: percentage points.
        elsewhere: what other machines measured of the same models: files of deploy/bench.py and `slimzoo bench --save`.
        price_cpu, price_gpu: of an hour of this machine without, and with its GPU, in any one currency.

    Raises:
        UsageError: `out` holds no models.
        SlimzooError: one of its files is damaged; nothing is written.
    """
    out = Path(out)
    bench = read_bench(out)
    baseline, *others = variants = read_variants(out, bench)
    others_say = [read_elsewhere(file, variants) for file in elsewhere]
    compared = [compare(variant, baseline, bench) for variant in others]
    chosen = choose(others, compared, max_drop)
    pairs = list(zip(others, compared, strict=True))
    verdict = sections.verdict(baseline, chosen, pairs, max_drop)
    split = "test" if all("test" in variant.accuracy for variant in variants) else "val"

    charts = _charts(variants, chosen, split, max_drop)
    parts = _sections(variants, chosen, pairs, split, bench, str(out.resolve()), charts)
    table = timing.crossover_table(bench["rows"] if bench is not None else [], price_cpu, price_gpu)
    if table.rows:
        parts.insert(-3, Section("CPU against GPU", table=table))
    if others_say:
        parts.insert(-2, Section("Other machines", table=machines_table(others_say)))
    report = Report(
        baseline=baseline.name,
        chosen=None if chosen is None else chosen.name,
        variants=[_record(baseline, None), *(_record(*pair) for pair in pairs)],
        budgets={"max_drop": max_drop},
        met=chosen is not None,
        verdict=verdict,
        markdown=out / "report.md",
        html=out / "report.html",
        json=out / "report.json",
        picture=out / PICTURE if charts else None,
    )
    _write(report, located(parts, out), out)
    return report


def _write(report: Report, parts: Sequence[Section], out: Path) -> None:
    title = f"Compression report: {out.resolve().name}"
    for part in parts:
        if part.picture is not None:
            (out / part.picture.file).write_bytes(to_png(part.picture.chart))
    report.json.write_bytes(json_bytes(document(report.to_json(), parts)))
    report.markdown.write_text(_markdown(title, report.verdict, parts), encoding="utf-8", errors="backslashreplace")
    report.html.write_text(_html(title, report.verdict, parts), encoding="utf-8", errors="backslashreplace")


def _sections(
    variants: Sequence[Variant],
    chosen: Variant | None,
    pairs: Sequence[tuple[Variant, Comparison]],
    split: str,
    bench: dict[str, Any] | None,
    out: str,
    charts: Sequence[tuple[str, Picture]],
) -> list[Section]:
    blamed = sections.blame_table(variants)
    changed = class_table(variants[0], [variant for variant, _ in pairs], chosen, split)
    drawn = [Section(title, [CHARTED], picture=picture) for title, picture in charts]
    if (strips := layer_chart(variants)) is not None:
        drawn.append(Section("What is left of each layer", [LAYERS], picture=Picture(strips, STRIPS)))
    parts = [
        Section(
            "Models", sections.expected_text(variants), sections.comparison_table(variants[0], chosen, pairs, split)
        ),
        *drawn,
        Section("Which classes changed", [CHANGED] if changed.rows else [], changed),
        Section("Which layers int8 costs most", [BLAMED] if blamed.rows else [], blamed),
        Section("Steps", [sections.data_text(variants)], sections.lineage_table(variants)),
        Section("How it was measured", sections.method_text(bench)),
        Section("Machine and versions", table=sections.machine_table(variants, bench)),
        Section(
            "The same again",
            [f"In the folder that holds {sections.quoted(Path(out).name)}:"],
            code=sections.commands(variants, bench, out),
        ),
    ]
    if bench is not None:
        timed = [Section("Latency by runtime", table=timing.bench_table(bench["rows"]))]
        if (bars := answer_chart(bench["rows"])) is not None:
            timed.insert(0, Section("From photo to answer", [ANSWERS], picture=Picture(bars, "report-answer.png")))
            timed.append(Section("From photo to answer, part by part", table=timing.answers_table(bench["rows"])))
        if (rounds := latency_chart(bench)) is not None:
            timed.insert(
                0, Section("How sure the latencies are", [ROUNDS], picture=Picture(rounds, "report-rounds.png"))
            )
        parts[1 + len(drawn) : 1 + len(drawn)] = timed
    return [part for part in parts if part.text or part.code or (part.table and part.table.rows)]


def _charts(
    variants: Sequence[Variant], chosen: Variant | None, split: str, max_drop: float
) -> list[tuple[str, Picture]]:
    """Accuracy over latency, where something was timed, and over size; none where no model can be drawn."""
    timed = [variant.latency_ms for variant in variants]
    sizes = [None if variant.size_bytes is None else variant.size_bytes / 1e6 for variant in variants]
    where, found = "test" if split == "test" else "validation", list[tuple[str, Picture]]()
    base = variants[0].accuracy.get(split)
    said = f"{max_drop:g} {'point' if max_drop == 1 else 'points'} below {variants[0].name}"
    budget = None if base is None else Budget(base.top1 - max_drop / 100, said)
    for title, costs, unit in (
        ("Accuracy and latency", timed, "latency in onnxruntime, ms (median)"),
        ("Accuracy and size", sizes, "size, MB"),
    ):
        if points := _points(variants, chosen, split, costs):
            chart = accuracy_chart(
                points, cost_title=unit, top1_title=f"top-1 on {where}, % (95% interval)", budget=budget
            )
            found.append((title, Picture(chart, PICTURE if not found else SECOND)))
    return found


def _points(
    variants: Sequence[Variant], chosen: Variant | None, split: str, costs: Sequence[float | None]
) -> list[Point]:
    points = []
    for number, (variant, cost) in enumerate(zip(variants, costs, strict=True)):
        accuracy = variant.accuracy.get(split)
        if accuracy is None or cost is None or not variant.size_bytes:
            continue
        role: Literal["baseline", "chosen", "variant"] = "variant"
        if variant is variants[0]:
            role = "baseline"
        elif variant is chosen:
            role = "chosen"
        ci = accuracy.top1_ci or (accuracy.top1, accuracy.top1)
        points.append(Point(variant.name, accuracy.top1, ci, cost, variant.size_bytes, role, number))
    return points


def _record(variant: Variant, compared: Comparison | None) -> dict[str, Any]:
    record: dict[str, Any] = {"name": variant.name, "path": str(variant.directory), "precision": variant.precision}
    for split, accuracy in variant.accuracy.items():
        record |= {f"{split}_top1": accuracy.top1, f"{split}_top1_ci": accuracy.top1_ci}
    record |= {"params": variant.params, "macs": variant.macs, "size_bytes": variant.size_bytes}
    record["median_ms"] = variant.latency_ms
    if compared is not None:
        for split, points in compared.points.items():
            record[f"{split}_drop_points"] = points
        for split, paired in compared.paired.items():
            record |= {f"{split}_drop_ci_points": paired.ci_points, f"{split}_mcnemar_p": paired.mcnemar_p}
        ratio = compared.speed_up if isinstance(compared.speed_up, Ratio) else None
        record |= {"ratio": ratio and ratio.value, "ratio_ci": ratio and (ratio.lo, ratio.hi)}
        record["verdict"] = compared.speed_verdict
    return record


# --- setting it -------------------------------------------------------------------------------------------------------


def _html(title: str, verdict: str, parts: Sequence[Section]) -> str:
    import jinja2
    import markupsafe

    def code(text: str) -> markupsafe.Markup:
        """Escaped, with `names` as <code>."""
        pieces = text.split("`")
        return markupsafe.Markup("").join(
            markupsafe.Markup("<code>{}</code>").format(piece) if i % 2 else markupsafe.escape(piece)
            for i, piece in enumerate(pieces)
        )

    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["code"] = code
    environment.filters["svg"] = lambda picture: markupsafe.Markup(to_svg(picture.chart))
    halves = sum(part.picture is not None for part in parts) > 1  # side by side, where there is room
    template = environment.from_string(TEMPLATE.read_text(encoding="utf-8"))
    joined = max((len(part.table.rows) for part in parts if part.table and part.table.joined), default=0)
    return template.render(title=title, verdict=verdict, sections=parts, halves=halves, joined=joined)


def _markdown(title: str, verdict: str, parts: Sequence[Section]) -> str:
    lines = [f"# {_plain(title)}", "", f"**{_plain(verdict)}**", ""]
    for part in parts:
        lines += [f"## {part.title}", ""]
        if part.picture:
            lines += [f"![{part.title}]({part.picture.file})", ""]
        for paragraph in filter(None, part.text):
            lines += [_plain(paragraph), ""]
        if part.table is not None:
            lines += [*_markdown_table(part.table), ""]
        if part.code:
            lines += ["```sh", *part.code, "```", ""]
    return "\n".join(lines)


def _markdown_table(table: Table) -> list[str]:
    def line(cells: Sequence[str]) -> str:
        return "| " + " | ".join(cells) + " |"

    ruler = ["---" if i < table.words else "---:" for i in range(len(table.head))]
    rows = [[text.replace("|", "\\|") for cell in row for text in _markdown_cells(cell)] for row in table.rows]
    return [line(table.head), line(ruler), *map(line, rows)]


def _markdown_cells(cell: Cell) -> list[str]:
    notes = ", ".join(filter(None, cell.notes))
    return [_plain(f"{cell.text} ({notes})" if notes else cell.text), *[""] * (cell.columns - 1)]


def _plain(text: str) -> str:
    """Markdown in which only our backquotes mean anything: names may hold HTML, stars and newlines."""
    pieces = " ".join(text.split()).split("`")
    outside = str.maketrans({"<": "&lt;", ">": "&gt;", "*": "\\*", "_": "\\_", "[": "\\["})
    return "`".join(piece if i % 2 else piece.translate(outside) for i, piece in enumerate(pieces))
