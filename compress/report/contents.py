"""What the report holds, in its order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from compress.report import sections, timing
from compress.report.answer_chart import answer_chart
from compress.report.charts import Budget, Point, accuracy_chart, front, named
from compress.report.class_changes import class_table
from compress.report.data_card import data_table
from compress.report.figures import quoted
from compress.report.gallery import changed_section
from compress.report.latency_chart import latency_chart
from compress.report.layer_chart import layer_chart
from compress.report.parts import Picture, Section, Table
from compress.report.seeds import seeds_table
from compress.report.variants import ONNXRUNTIME, Comparison, Variant, same_images
from transfer.data.sources import Data

BLAMED = (
    "With a layer alone back in float, this share of the difference between the int8 and the float model's answers "
    "goes. SQNR: signal over rounding noise. What int8 saves is by onnxruntime's own profile, for one image."
)
SEEDS = (
    "Means over the seeds, and the least and the most. Changes and speed-ups are over the first model of each one's "
    "own steps, so far as that is here."
)
ROUNDS = "In grey what two copies of the baseline could differ by; what lies within is no difference."
LAYERS = "Channels, or outputs of a linear layer, that pruning left, from the first layer to the last."
STRIPS = "report-layers.png"
CHANGED = "Images of each class that are answered right, of those that the table of models is of."
CHARTED = "The area of a circle is the size of the file"
STEPPED = "the stepped line is the best accuracy to be had for a cost"
NAMED = "named are those than which none is cheaper and as accurate, the baseline and the chosen one"
ANSWERS = (
    "What the user of a model waits for, by the exported file as deploy/infer.py runs it: a JPEG is decoded at the "
    "part of its size that the network needs, resized and normalized in the file. The network's time is what the file "
    "takes of pixels of the network's own size after the same decoding."
)
PICTURE, SECOND = "report.png", "report-size.png"
NOT_SHOWN = "The images are not where the fit found them, or not as they were, so none is shown."


@dataclass(frozen=True)
class Compared:
    """Models, the baseline first, and which of them was chosen.

    Attributes:
        pairs: the others, each with its comparison.
        bench: None where nothing was timed.
        sought, data: whether the data of the fit were looked for, and what was found.
    """

    baseline: Variant
    chosen: Variant | None
    pairs: Sequence[tuple[Variant, Comparison]]
    max_drop: float
    bench: dict[str, Any] | None
    sought: bool
    data: Data | None

    @property
    def variants(self) -> list[Variant]:
        return [self.baseline, *(variant for variant, _ in self.pairs)]

    @property
    def split(self) -> str:
        """The part that accuracies are shown of."""
        return "test" if all("test" in variant.accuracy for variant in self.variants) else "val"

    @property
    def shown(self) -> Variant | None:
        """The one whose changes are shown: the chosen one, or the last where none is."""
        return self.chosen or (self.pairs[-1][0] if self.pairs else None)


def contents(found: Compared, out: str, *, crossover: Table, elsewhere: Table | None) -> list[Section]:
    """The sections that have something to say.

    Args:
        out: the folder, as commands name it.
        crossover: of this CPU and its GPU.
        elsewhere: of other machines.
    """
    parts = [
        Section(
            "Models",
            sections.expected_text(found.variants),
            sections.comparison_table(found.baseline, found.chosen, found.pairs, found.split),
        ),
        _seeds(found),
        *charts(found),
        *_layers(found),
        *_timed(found.bench),
        Section("CPU against GPU", table=crossover),
        *_changed(found),
        Section("The data", *_data(found)),
        Section("Steps", table=sections.lineage_table(found.variants)),
        Section("How it was measured", sections.method_text(found.bench)),
        Section("Other machines", table=elsewhere),
        Section("Machine and versions", table=sections.machine_table(found.variants, found.bench)),
        Section(
            "The same again",
            [f"In the folder that holds {quoted(out)}:"],
            code=sections.commands(found.variants, found.bench, out),
        ),
    ]
    return [part for part in parts if any(part.text) or part.code or part.gallery or (part.table and part.table.rows)]


def _seeds(compared: Compared) -> Section:
    table = seeds_table(compared.variants, compared.bench, compared.split)
    return Section("Several seeds", [SEEDS] if table.rows else [], table)


def charts(compared: Compared) -> list[Section]:
    """Accuracy over latency, where something was timed, and over size; none where no model can be drawn."""
    variants, chosen, split, max_drop = compared.variants, compared.chosen, compared.split, compared.max_drop
    timed = [variant.latency_ms for variant in variants]
    sizes = [None if variant.size_bytes is None else variant.size_bytes / 1e6 for variant in variants]
    where, found = "test" if split == "test" else "validation", list[Section]()
    base = variants[0].accuracy.get(split)
    below = f"{max_drop:g} {'point' if max_drop == 1 else 'points'} below {variants[0].name}"
    budget = None if base is None else Budget(base.top1 - max_drop / 100, below)
    runtime = f" in {ONNXRUNTIME}" if {variant.runtime for variant in variants} == {ONNXRUNTIME} else ""
    for title, costs, unit in (
        ("Accuracy and latency", timed, f"latency{runtime}, ms (median)"),
        ("Accuracy and size", sizes, "size, MB"),
    ):
        if points := _points(variants, chosen, split, costs):
            chart = accuracy_chart(
                points, cost_title=unit, top1_title=f"top-1 on {where}, % (95% interval)", budget=budget
            )
            told = [CHARTED, *[STEPPED] * (len(front(points)) > 1), *[NAMED] * (len(named(points)) < len(points))]
            said = "; ".join(told) + "."
            found.append(Section(title, [said], picture=Picture(chart, SECOND if found else PICTURE)))
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


def _layers(compared: Compared) -> list[Section]:
    strips = layer_chart(compared.variants)
    return [] if strips is None else [Section("What is left of each layer", [LAYERS], picture=Picture(strips, STRIPS))]


def _timed(bench: dict[str, Any] | None) -> list[Section]:
    if bench is None:
        return []
    rounds, bars = latency_chart(bench), answer_chart(bench["rows"])
    found = []
    if rounds is not None:
        found.append(Section("How sure the latencies are", [ROUNDS], picture=Picture(rounds, "report-rounds.png")))
    if bars is not None:
        found.append(Section("From photo to answer", [ANSWERS], picture=Picture(bars, "report-answer.png")))
    found.append(Section("Latency by runtime", table=timing.bench_table(bench["rows"])))
    if bars is not None:
        found.append(Section("From photo to answer, part by part", table=timing.answers_table(bench["rows"])))
    return found


def _changed(compared: Compared) -> list[Section]:
    """The classes, images and layers that a compression has cost most."""
    baseline, data, shown = compared.baseline, compared.data, compared.shown
    blamed = sections.blame_table(compared.variants)
    if shown is not None and not same_images(shown, baseline):
        shown = None
    classes = class_table(baseline, shown, compared.split)
    found = [Section("Which classes changed", [CHANGED] if classes.rows else [], classes)]
    if data is not None and shown is not None and (images := changed_section(data, compared.split, baseline, shown)):
        found.append(images)
    return [*found, Section("Which layers int8 costs most", [BLAMED] if blamed.rows else [], blamed)]


def _data(compared: Compared) -> tuple[list[str], Table | None]:
    named = sections.data_text(compared.variants)
    if compared.data is not None:
        return [named], data_table(compared.data)
    return [f"{named} {NOT_SHOWN}" if named and compared.sought else named], None
