"""What bench_search.py makes with slimzoo itself: by `compress`, and by steps that a person puts together."""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from search_figures import ORT, OURS
from search_start import SHARES, Made, Maker, Start

from compress.deployment.export import network_of
from compress.graph.network import export_network
from compress.plan.outcome import MODEL
from compress.plan.step import compress
from compress.plan.trial import BASE
from compress.pruning.step import prune
from compress.quantization.step import quantize
from zoo.errors import UsageError
from zoo.files.manifest import TRIALS
from zoo.files.model_directory import ONNX, load_model, read_config

MAX_DROP = 1.0
INT8 = "int8"  # ends the names of candidates that are quantized


def by_compress(start: Start) -> Iterator[tuple[str, Made]]:
    """
    Raises:
        UsageError: nothing that it tried meets the budget.
    """
    out = start.folder / "out"
    found = compress(start.fitted, data=start.data, max_drop=MAX_DROP, seed=start.seed, out=out)
    trials = json.loads((out / TRIALS).read_text(encoding="utf-8"))["variants"]
    if found.chosen is None:
        raise UsageError("nothing that was tried meets the budget")
    runtime = next(trial for trial in trials if trial["name"] == found.chosen).get("runtime") or ORT
    facts = {"chosen": found.chosen, "trials": trials}
    yield OURS, Made(network_of(out / MODEL / ONNX), read_config(out / MODEL).preprocess, runtime, facts=facts)


def by_steps(start: Start, name: str, macs: float | None = None) -> Iterator[tuple[str, Made]]:
    """`prune` to a share of the MACs, where one is given, and `quantize`."""
    source = start.fitted
    if macs is not None:
        source = start.folder / "cut"
        prune(start.fitted, data=start.data, macs=macs, seed=start.seed, out=source)
    yield name, _quantized(start, source)


def by_latency(start: Start, name: str) -> Iterator[tuple[str, Made]]:
    """`prune` to the latency that ours has in float, without as many blocks, and `quantize` where ours did.

    Raises:
        UsageError: ours prunes nothing, or there is none; its latency is not known, or no cut comes to it.
    """
    if start.ours is None or "reason" in start.ours:
        raise UsageError("there is no model of ours")
    chosen = start.ours["chosen"]
    cut = chosen.removesuffix(f"-{INT8}")
    if cut in (BASE, INT8):
        raise UsageError(f"ours is {chosen}, which prunes nothing")
    source, latency_ms = start.folder / "cut", latency_of(cut, start.ours["trials"])
    less = re.search(r"less-(\d+)", cut)
    blocks = 0 if less is None else int(less[1])
    prune(start.fitted, data=start.data, latency=latency_ms, blocks=blocks, seed=start.seed, out=source)
    made = _quantized(start, source) if cut != chosen else _in_float(source)
    yield name, Made(made.network, made.preprocess, facts={"latency_ms": latency_ms})


def latency_of(name: str, trials: Sequence[dict[str, Any]]) -> float:
    """Of a candidate in onnxruntime, as it was measured, or promised where it was not.

    Raises:
        UsageError: neither.
    """
    trial = next((trial for trial in trials if trial["name"] == name), None)
    if trial is None:
        raise UsageError(f"{name} was not tried by itself")
    found = trial.get("latencies_ms", {}).get(ORT) or trial["latency_ms"] or trial["promised_ms"]
    if not found:
        raise UsageError(f"the latency of {name} is not known")
    return float(found)


def _quantized(start: Start, source: Path) -> Made:
    out = start.folder / INT8
    quantize(source, data=start.data, seed=start.seed, out=out)
    return Made(network_of(out / ONNX), read_config(out).preprocess)


def _in_float(source: Path) -> Made:
    loaded = load_model(source)
    return Made(export_network(loaded.model, loaded.config.input_size), loaded.config.preprocess)


def _parts() -> dict[str, tuple[Maker, tuple[str, ...]]]:
    found: dict[str, tuple[Maker, tuple[str, ...]]] = {
        OURS: (by_compress, (OURS,)),
        "quantize": (functools.partial(by_steps, name="quantize"), ("quantize",)),
    }
    for share in SHARES:
        name = f"prune {share}, quantize"
        found[f"prune {share}"] = (functools.partial(by_steps, name=name, macs=share), (name,))
    name = "prune --latency, quantize"
    return {**found, "prune --latency": (functools.partial(by_latency, name=name), (name,))}


OWN = _parts()  # by name: what runs it, and the methods that it gives
