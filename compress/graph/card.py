"""What an exported file says of itself: JSON in its metadata, under the key "slimzoo"."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper

from zoo import lineage
from zoo.files.model_card import licence
from zoo.files.model_directory import ModelConfig

KEY = "slimzoo"


def card(
    network: onnx.ModelProto,
    config: ModelConfig,
    *,
    parity: dict[str, Any] | None = None,
    metrics: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """Everything that someone who has nothing but the file should know.

    Args:
        network: the network alone.
        metrics: of this file; by default what the lineage says of the model as it is now.

    Returns:
        architecture; classes; preprocess; licence of the weights that it began with; metrics: top-1 and its interval by
        part of the data; lineage: verb, seed, versions and the fingerprint of the data of each step (no paths);
        seen: hashes of the images of these steps; weights_sha256; parity with the model that was exported; versions.
    """
    return {
        "architecture": config.architecture,
        "classes": None if config.classes is None else list(config.classes),
        "preprocess": config.preprocess.to_dict(),
        "licence": licence(config.architecture, config.lineage),
        "metrics": _accuracy(metrics or lineage.current_metrics(config.lineage)),
        "lineage": [_short(step) for step in config.lineage],
        "seen": None if config.seen is None else config.seen.to_json(),
        "weights_sha256": weights_sha256(network),
        "parity": parity,
        "versions": lineage.versions(),
    }


def for_others(config: ModelConfig) -> dict[str, str]:
    """What other tools look for under keys of their own: those of Ultralytics' exporter, which many players read."""
    found = {"task": "classify", "imgsz": str(list(config.preprocess.size))}
    if config.classes is not None:
        found["names"] = str(dict(enumerate(config.classes)))
    if said := licence(config.architecture, config.lineage):
        found["license"] = said
    return found


def weights_sha256(network: onnx.ModelProto) -> str:
    """Hash all stored tensors: name, type, shape and little-endian values of each, in the order of their names."""
    digest = hashlib.sha256()
    for tensor in sorted(network.graph.initializer, key=lambda tensor: tensor.name):
        values = numpy_helper.to_array(tensor)
        digest.update(f"{tensor.name} {tensor.data_type} {list(tensor.dims)}\n".encode())
        digest.update(np.ascontiguousarray(values).tobytes())
    return digest.hexdigest()


def _accuracy(metrics: dict[str, Any]) -> dict[str, Any]:
    kept = ("top1", "top1_ci", "n")
    return {part: {key: metrics[part][key] for key in kept} for part in ("val", "test") if part in metrics}


def _short(step: dict[str, Any]) -> dict[str, Any]:
    data = step.get("data") or {}
    return {"verb": step["verb"], "seed": step["seed"], "versions": step["versions"], "data": data.get("fingerprint")}
