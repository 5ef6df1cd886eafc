"""What candidates will cost, before any of them is trained: networks of their widths, measured as they are.

Those of cuts.py run side by side in every runtime that may be taken; in between, costs are interpolated over the
logarithm of the share. A real cut chooses other widths, and may take smaller images: a promise is as good as a guide,
and what is reported is always measured.
"""

from __future__ import annotations

import math
import statistics
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from compress.benchmark.answer import median_photo
from compress.benchmark.harness import bench
from compress.deployment.export import finish
from compress.plan.cuts import Network
from compress.plan.timing import timed
from compress.plan.trial import Candidate
from zoo.errors import UsageError
from zoo.files.model_directory import ModelConfig
from zoo.progress import Progress

BRIEF: dict[str, Any] = {"rounds": 4, "launches": 2, "seconds_per_round": 0.05}
COSTS = ("latency_ms", "size_bytes", "macs", "memory_bytes")

Promised = dict[Candidate, dict[str, float]]


def as_they_are(networks: Sequence[dict[str, Any]]) -> Promised:
    """What networks cost that were measured, of their own shares."""
    found: Promised = {}
    for each in networks:
        share = None if each["share"] == 1 else round(float(each["share"]), 2)
        one = _resized(each) or Candidate(share, each["int8"], blocks=each.get("blocks", 0))
        found[one] = _costs(each)
    return found


def _resized(measured: dict[str, Any]) -> Candidate | None:
    """The one that is this network, where it is the whole one for smaller images."""
    if measured.get("side") is None:
        return None
    left = math.ceil(100 * float(measured["share"])) / 100  # so that no channel has to go
    return Candidate(left, measured["int8"], side=measured["side"], resized=True)


def _costs(measured: dict[str, Any]) -> dict[str, float]:
    """Of a network, as far as they are known."""
    return {name: float(measured[name]) for name in COSTS if measured.get(name) is not None}


def measured(
    networks: Sequence[Network],
    runtimes: Sequence[str],
    *,
    threads: int | None = None,
    progress: Progress | None = None,
) -> list[dict[str, Any]]:
    """Of each network its costs, in the runtime that takes least of each, and whether other work disturbed that."""
    with tempfile.TemporaryDirectory() as folder:
        files = []
        for number, (_, network) in enumerate(networks):
            files.append(Path(folder, f"{number}.onnx"))
            onnx.save(network, files[-1])
        found = timed(files, runtimes, threads, progress=progress, **BRIEF)
    return [
        {
            **costs,
            "latency_ms": min(own["latencies"].values(), default=None),
            "memory_bytes": min(own["memories"].values(), default=None),
            "disturbed": own["disturbed"],
        }
        for (costs, _), own in zip(networks, found, strict=True)
    ]


def photo_of(images: Path) -> Path:
    """One of median size.

    Raises:
        UsageError: the images are in no files of their own.
    """
    found = median_photo(images) if images.is_dir() else {}
    if not found:
        raise UsageError(f"{images} holds no pictures of which a way to the answer could be timed: leave out --answer")
    return next(iter(found.values()))


def overhead(network: onnx.ModelProto, config: ModelConfig, images: Path) -> tuple[float, bool]:
    """Milliseconds from a photo of the images' median size to the network's input, as the exported file prepares it;
    and whether other work disturbed that."""
    photo = photo_of(images)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "model.onnx")
        onnx.save(finish(network, config, None), file)
        rows = bench([file], runtimes=["onnxruntime"], photos=[photo], **BRIEF).rows
    (parts,) = rows[0]["answers"].values()
    return float(parts["decode_ms"] + parts["prepare_ms"]), bool(rows[0].get("disturbed"))


def interpolated(networks: Sequence[dict[str, Any]], shares: Sequence[float], overhead_ms: float = 0.0) -> Promised:
    """Of the whole model, for smaller images too, of every share and every student; beyond the smallest share that was
    measured, as of that.

    Args:
        overhead_ms: from a photo to the network's input; 0 promises nothing of answers.
    """
    found: Promised = {}
    for int8 in (False, True):
        own = [each for each in networks if each["int8"] == int8]
        for each in own:
            if each.get("student") is not None:
                found[Candidate(student=each["student"], int8=int8)] = _answering(_costs(each), overhead_ms)
            elif (resized := _resized(each)) is not None:
                found[resized] = _answering(_costs(each), overhead_ms)
        cuts = [each for each in own if each["share"] is not None and each.get("side") is None]
        for blocks in sorted({each.get("blocks", 0) for each in cuts}):
            known = [each for each in cuts if each.get("blocks", 0) == blocks]
            known.sort(key=lambda each: float(each["share"]))
            for share in (None, *shares) if not blocks else [s for s in shares if s < known[-1]["share"]]:
                costs = _between(known, share or 1.0)
                found[Candidate(share, int8, blocks=blocks)] = _answering(costs, overhead_ms)
    return found


def _between(known: Sequence[dict[str, Any]], share: float) -> dict[str, float]:
    """The costs at a share, of networks at ascending ones."""
    at, costs = np.log([each["share"] for each in known]), dict[str, float]()
    for name in COSTS:
        if any(each.get(name) is None for each in known):
            continue  # it could not be timed, or counted
        values = np.log([each[name] for each in known])
        costs[name] = float(np.exp(np.interp(np.log(share), at, values)))
    return costs


def _answering(costs: dict[str, float], overhead_ms: float) -> dict[str, float]:
    return {**costs, "answer_ms": overhead_ms + costs["latency_ms"]} if overhead_ms and "latency_ms" in costs else costs


def promised_ms(candidate: Candidate, promised: Promised) -> float | None:
    """Its latency, see `Candidate.plain`."""
    return promised.get(candidate.plain, {}).get("latency_ms")


def in_step(promised: Promised, measured: Mapping[Candidate, float]) -> Promised:
    """The same on a machine that takes so long for some of the candidates, by the median of what they are slower.

    A clock, or a neighbour, makes a machine half as fast from one minute to the next, and all networks alike: of what
    was promised then, ratios hold now. But for large ones where a neighbour fills the cache: one is not asked alone
    where there are others.
    """
    times = [
        ms / then_ms for candidate, ms in measured.items() if (then_ms := promised_ms(candidate, promised)) is not None
    ]
    if not times:
        return promised
    return {candidate: _slower(costs, statistics.median(times)) for candidate, costs in promised.items()}


def as_small(promised: Promised, measured: Mapping[Candidate, float]) -> Promised:
    """The same where some of the candidates were measured to take so many bytes: those of all cuts by the median of
    what these are larger, since a real cut takes other widths than a uniform one."""
    pairs = [(promised.get(c.plain, {}).get("size_bytes"), size) for c, size in measured.items() if c.is_cut]
    times = [size / before for before, size in pairs if before]
    if not times:
        return promised
    larger = statistics.median(times)
    return {
        candidate: {name: value * (larger if name == "size_bytes" else 1.0) for name, value in costs.items()}
        if candidate.is_cut
        else costs
        for candidate, costs in promised.items()
    }


def _slower(costs: dict[str, float], times: float) -> dict[str, float]:
    more_ms = (times - 1) * costs.get("latency_ms", 0.0)
    of_time = ("latency_ms", "answer_ms")
    return {name: value + more_ms if name in of_time else value for name, value in costs.items()}
