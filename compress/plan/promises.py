"""What candidates will cost, before any of them is trained: networks of their widths, measured as they are.

Uniform cuts of the fitted model to a few shares of its MACs, in float and with int8 that nothing was calibrated for,
run in onnxruntime side by side; in between, costs are interpolated over the logarithm of the share. A real cut chooses
other widths, and may take smaller images: a promise is as good as a guide, and what is reported is always measured.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from compress.benchmark.harness import bench
from compress.graph.network import export_network
from compress.plan.trial import Candidate
from compress.pruning.allocate import uniformly
from compress.pruning.structured import prune_channels
from compress.quantization.ptq import quantize_static
from zoo.cost import count_macs
from zoo.errors import SlimzooError
from zoo.files.model_directory import LoadedModel
from zoo.progress import Progress

MEASURED = (0.5, 0.25, 0.12)  # shares, beside the whole
ROUNDS, LAUNCHES, SECONDS = 6, 2, 0.05

Promised = dict[Candidate, dict[str, float]]


def measured(
    loaded: LoadedModel, *, threads: int | None = None, progress: Progress | None = None
) -> list[dict[str, Any]]:
    """Ready for JSON: of each network its share, whether it is int8, and its costs.

    Shares that the model's widths cannot reach are left out.
    """
    size, rng = loaded.config.input_size, np.random.default_rng(0)
    noise = rng.standard_normal((4, *size), dtype=np.float32)
    whole = count_macs(loaded.model, size)
    networks: list[tuple[dict[str, Any], onnx.ModelProto]] = []
    for number, share in enumerate((1.0, *MEASURED)):
        if progress is not None:
            progress("measuring what cuts would save", number, 1 + len(MEASURED), "")
        model = loaded.model
        if share < 1:
            try:
                model = prune_channels(model, size, macs=share, allocation=uniformly).model
            except SlimzooError:
                break
        network, macs = export_network(model, size), count_macs(model, size)
        quantized = quantize_static(network, [noise]).network
        for int8, made in ((False, network), (True, quantized)):
            costs = {"share": macs / whole, "int8": int8, "macs": macs, "size_bytes": made.ByteSize()}
            networks.append((costs, made))
    with tempfile.TemporaryDirectory() as folder:
        files = []
        for number, (_, network) in enumerate(networks):
            files.append(Path(folder, f"{number}.onnx"))
            onnx.save(network, files[-1])
        rows = bench(
            files,
            runtimes=["onnxruntime"],
            threads=threads,
            rounds=ROUNDS,
            launches=LAUNCHES,
            seconds_per_round=SECONDS,
            progress=progress,
        ).rows
    return [{**costs, "latency_ms": row["median_ms"]} for (costs, _), row in zip(networks, rows, strict=True)]


def interpolated(networks: Sequence[dict[str, Any]], shares: Sequence[float]) -> Promised:
    """Of the whole model and of every share; beyond the smallest that was measured, as much as that."""
    found: Promised = {}
    for int8 in (False, True):
        known = sorted((each for each in networks if each["int8"] == int8), key=lambda each: float(each["share"]))
        at = np.log([each["share"] for each in known])
        for share in (None, *shares):
            costs = {}
            for name in ("latency_ms", "size_bytes", "macs"):
                if any(each[name] is None for each in known):
                    continue  # it could not be timed
                values = np.log([each[name] for each in known])
                costs[name] = float(np.exp(np.interp(np.log(share or 1.0), at, values)))
            found[Candidate(share, int8)] = costs
    return found
