"""The parts of the report, as text and tables; how they are set is the business of report.py and the template."""

from __future__ import annotations

import itertools
import shlex
from collections.abc import Sequence
from pathlib import PurePath
from typing import Any

from compress.report.figures import (
    MISSING,
    Cell,
    arguments,
    change,
    count,
    decibels,
    interval,
    megabytes,
    milliseconds,
    percent,
    quoted,
    signed,
    three,
    times,
)
from compress.report.parts import Table
from compress.report.statistics import TooBusy
from compress.report.variants import Accuracy, Comparison, Variant
from compress.report.verdict import in_runtime
from compress.verbs import STEPS
from transfer.evaluation.metrics import EXPECTED

MOST_BLAMED = 5  # layers of each quantized model
PLACES = ("data", "out", "preprocess", "classes")  # that a record names beside the settings


def comparison_table(
    baseline: Variant, chosen: Variant | None, pairs: Sequence[tuple[Variant, Comparison]], split: str
) -> Table:
    """Accuracy, size and latency of every model, each change against the baseline."""
    head = ["model", "precision", f"top-1, {split}", "change, test", "change, validation"]
    head += ["parameters", "MACs", "size", "latency", "speed-up"]
    rows = []
    everyone: list[tuple[Variant, Comparison | None]] = [(baseline, None), *pairs]
    of_several = len({variant.input_size for variant, _ in everyone if variant.input_size}) > 1
    for variant, compared in everyone:
        accuracy = variant.accuracy.get(split)
        role = "baseline" if variant is baseline else "chosen" if variant is chosen else ""
        speed = Cell("")
        if compared is not None:
            ratio = compared.speed_up
            speed = Cell(MISSING)
            if isinstance(ratio, TooBusy):
                speed = Cell(MISSING, [f"{ratio.lo:.2g} to {ratio.hi:.2g} times", "too busy to say"])
            elif ratio is not None:
                speed = Cell(f"{ratio.value:.2f}x", [interval(ratio), compared.speed_verdict or ""])
        rows.append(
            [
                Cell(quoted(variant.name), [role]),
                Cell(variant.precision),
                _top1(accuracy),
                *(
                    Cell("") if compared is None else change(compared.points.get(s), compared.paired.get(s))
                    for s in ("test", "val")
                ),
                Cell(count(variant.params)),
                Cell(count(variant.macs), [_pixels(variant)] if of_several else []),
                Cell(megabytes(variant.size_bytes), [_smaller(compared)]),
                Cell(milliseconds(variant.latency_ms), [in_runtime(variant).strip()]),
                speed,
            ]
        )
    marked = next((i for i, (variant, _) in enumerate(everyone) if variant is chosen), None)
    return Table(head, rows, words=2, marked=marked, joined=True)


def _top1(accuracy: Accuracy | None) -> Cell:
    if accuracy is None:
        return Cell(MISSING)
    notes = _between(accuracy.top1_ci)
    if accuracy.is_uneven and accuracy.balanced is not None:
        notes += [f"balanced {percent(accuracy.balanced)}", *_between(accuracy.balanced_ci)]
    return Cell(percent(accuracy.top1), notes)


def _between(ci: tuple[float, float] | None) -> list[str]:
    return [] if ci is None else [f"{percent(ci[0])} to {percent(ci[1])}"]


def expected_text(variants: Sequence[Variant]) -> list[str]:
    """What is expected of the models on new images, where a fit has cross-validated it."""
    found = []
    for variant in variants:
        if (expected := variant.accuracy.get(EXPECTED)) is not None and expected.top1_ci is not None:
            lo, hi = expected.top1_ci
            found.append(
                f"Of new images, {quoted(variant.name)} is expected to answer {percent(expected.top1)} right (95% "
                f"interval {percent(lo)} to {percent(hi)}): cross-validated on the {expected.n} images that it was "
                "trained on. The table is of those that were held out."
            )
    return found


def _pixels(variant: Variant) -> str:
    return "" if variant.input_size is None else " x ".join(map(str, variant.input_size)) + " px"


def _smaller(compared: Comparison | None) -> str:
    factor = None if compared is None else compared.times_smaller
    return f"{times(factor)} smaller" if factor is not None and factor > 1 else ""


def new_steps(variant: Variant, baseline: Variant) -> list[dict[str, Any]]:
    """What was done to the variant that had not been done to the baseline."""
    if variant is baseline:
        return variant.lineage
    pairs = zip(variant.lineage, baseline.lineage, strict=False)
    shared = sum(1 for _ in itertools.takewhile(lambda pair: _what(pair[0]) == _what(pair[1]), pairs))
    return variant.lineage[shared:]


def _what(record: dict[str, Any]) -> tuple[Any, Any, Any]:
    return record.get("verb"), record.get("arguments"), record.get("seed")


def lineage_table(variants: Sequence[Variant]) -> Table:
    """The steps to the baseline, and from there to each of the others."""
    rows = []
    for variant in variants:
        for number, record in enumerate(new_steps(variant, variants[0])):
            metrics = record.get("metrics") or {}
            after, before = (metrics.get(when) or {} for when in ("after", "before"))
            seconds = record.get("seconds")
            rows.append(
                [
                    Cell(quoted(variant.name) if number == 0 else ""),
                    Cell(str(record.get("verb", MISSING)), _parity(record.get("parity"))),
                    Cell(arguments(record.get("arguments") or {})),
                    Cell(MISSING if record.get("seed") is None else str(record["seed"])),
                    Cell(MISSING if seconds is None else f"{three(seconds)} s"),
                    *(_step_accuracy(before.get(split), after.get(split)) for split in ("val", "test")),
                    *(
                        Cell(shown(after.get(key)), [_share_left(before.get(key), after.get(key))])
                        for key, shown in (("params", count), ("macs", count), ("size_bytes", megabytes))
                    ),
                ]
            )
    head = ["model", "step", "arguments", "seed", "took", "validation", "test", "parameters", "MACs", "size"]
    return Table(head, rows, words=3)


def _parity(found: dict[str, Any] | None) -> list[str]:
    """What an export's file answered in onnxruntime, beside the model in torch."""
    if not found:
        return []
    return [f"top-1 as torch's on {found['top1_agreement']:.1%} of {found['n']} {found['images']} images"]


def _step_accuracy(before: dict[str, Any] | None, after: dict[str, Any] | None) -> Cell:
    """The accuracy after a step, and by how much it changed it."""
    old, new = ((found or {}).get("top1") for found in (before, after))
    return Cell(percent(new), [] if old is None or new is None else [f"{signed(100 * (new - old))} points"])


def _share_left(before: float | None, after: float | None) -> str:
    """How much a step left of what it began with; nothing where it changed nothing."""
    return f"{after / before:.0%} of before" if before and after and before != after else ""


def blame_table(variants: Sequence[Variant]) -> Table:
    """List, for each quantized model, the layers whose rounding takes its answers furthest from the float model's."""
    rows = []
    for variant in variants:
        record = next((r for r in reversed(variant.lineage) if r.get("ranking")), None)
        for number, layer in enumerate((record or {}).get("ranking", [])[:MOST_BLAMED]):
            kept = record is not None and layer["layer"] in record.get("kept", [])
            saved = layer["saved_ms"]
            rows.append(
                [
                    Cell(quoted(variant.name) if number == 0 else ""),
                    Cell(quoted(layer["layer"]), ["in float"] if kept else []),
                    Cell(percent(layer["share"])),
                    Cell(count(layer["macs"])),
                    *(Cell(decibels(layer[key])) for key in ("weight_sqnr_db", "output_sqnr_db")),
                    Cell(MISSING if saved is None else f"{signed(1000 * saved)} µs"),
                ]
            )
    head = ["model", "layer", "of the difference", "MACs", "SQNR, weights", "SQNR, sums", "saved by int8"]
    return Table(head, rows, words=2)


def data_text(variants: Sequence[Variant]) -> str:
    """The datasets that the steps saw, each once."""
    seen: dict[str, None] = {}
    for record in (record for variant in variants for record in variant.lineage if record.get("data")):
        data = record["data"]
        sizes = ", ".join(f"{split} {n}" for split, n in (data.get("sizes") or {}).items())
        fingerprint = str(data.get("fingerprint") or "")[:12]
        details = "; ".join(filter(None, (sizes, f"fingerprint {fingerprint}" if fingerprint else "")))
        text = quoted(PurePath(str(data.get("name"))).name) + (f" ({details})" if details else "")
        seen[text] = None
    return f"Data: {', '.join(seen)}." if seen else ""


def commands(variants: Sequence[Variant], bench: dict[str, Any] | None, out: str) -> list[str]:
    """What to type for the same again."""
    lines = {command(r): None for variant in variants for r in variant.lineage if r.get("verb")}
    if bench is not None:
        models = dict.fromkeys(row["model"] for row in bench["rows"])
        folder = variants[0].directory.resolve().parent
        lines[shlex.join(["slimzoo", "bench", *(f"{folder}/{m}" for m in models), "--save", f"{out}/bench.json"])] = (
            None
        )
    return list(lines)


def command(record: dict[str, Any]) -> str:
    """The command line of a lineage record, without what is the default."""
    given = {"seed": record.get("seed"), **(record.get("arguments") or {})}
    words = ["slimzoo", record["verb"]]
    if (step := STEPS.get(record["verb"])) is not None:
        words += [str(given[name]) for name in (step.source,) if given.get(name) is not None]
        named = [(name, given[name]) for name in PLACES if name != step.source and given.get(name) is not None]
        words += [word for name, value in named for word in (f"--{name}", str(value))]
        options = [option for option in step.load_settings().options() if option.name in given]
        words += [word for option in options for word in option.words(given[option.name])]
    return shlex.join(words)


def method_text(bench: dict[str, Any] | None) -> list[str]:
    text = [
        "Choices were made on validation; test answers have no say in them. Accuracies carry Wilson's 95% interval. "
        "Changes are paired, image by image, with Tango's score interval; p is McNemar's, exact; a flip is an image "
        "that one of the two models got right and the other wrong. Balanced accuracy, the mean of the classes' own, "
        "stands beside where classes are uneven. 1 MB is 1e6 bytes; one MAC is one multiply-add."
    ]
    if bench is None:
        return [*text, "Latency was not measured here: there is no bench.json."]
    settings, noise = bench["settings"], bench["noise"]
    text.append(
        "Latency is that of the network from prepared tensors to logits: each model and runtime in processes of its "
        f"own ({_launches(bench)}, one after the other), threads {settings['threads']}, batch "
        f"{settings['batch']}, {_rounds(bench)} rounds interleaved and reversed every second time, "
        f"{settings['seconds_per_round']:g} s each; inputs: {settings['inputs']}. The "
        "speed-up is the geometric mean, over the processes, of the rounds' ratios to the baseline, with its 95% "
        "interval by Student's t. Rounds in which other work took more than a twentieth of the processors were "
        "measured again and count for nothing; no other sample is dropped. Percentiles are left out where there are "
        "too few samples to bound them."
    )
    if noise is not None:
        lo, hi = noise["ratio_ci"]
        text.append(
            f"Noise of the machine: two copies of one model differ by {lo:.2f}x to {hi:.2f}x, so a difference within "
            f"{noise['floor_pct']:.1f}% is called a tie."
        )
    return text + [f"{said[0].upper()}{said[1:]}." for said in bench.get("diagnoses", [])]


def _launches(bench: dict[str, Any]) -> int:
    """That were measured, which may be more than were asked for."""
    return max((1 + max(row.get("launches") or [0]) for row in bench["rows"]), default=1)


def _rounds(bench: dict[str, Any]) -> int:
    return max((len(row["rounds_ms"]) for row in bench["rows"]), default=0)


def machine_table(variants: Sequence[Variant], bench: dict[str, Any] | None) -> Table:
    rows = []
    if bench is not None:
        machine = bench["machine"]
        gpus = ", ".join(machine.get("gpu") or []) or "none"
        cores = f"{machine.get('cores')} cores, {machine.get('threads')} threads"
        rows = [
            ("processor", f"{machine.get('processor')}, {cores}"),
            ("instructions", ", ".join(machine.get("flags") or []) or MISSING),
            ("load before", str(machine.get("load_average", MISSING))),
            ("GPU", gpus),
            ("system", str(machine.get("system", MISSING))),
            ("versions, measuring", arguments(bench.get("versions") or {})),
        ]
    made = dict.fromkeys(arguments(r["versions"]) for v in variants for r in v.lineage if r.get("versions"))
    rows += [("versions, making", text) for text in made]
    return Table(["", ""], [[Cell(name), Cell(text)] for name, text in rows], words=2)
