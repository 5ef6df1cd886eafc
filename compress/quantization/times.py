"""How long each layer takes in onnxruntime: what its own profile says of the kernel that runs it."""

from __future__ import annotations

import json
import re
import statistics
import tempfile
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from compress.graph.layers import PRODUCTS

ROUNDS = 15
WARM_UP = 3
KERNEL = "_kernel_time"
RENAMED = re.compile(r"(_nchwc|_token_\d+)+$")  # what onnxruntime appends to the names of nodes that it rewrites


def layer_ms(*networks: onnx.ModelProto, threads: int = 1) -> list[dict[str, float]]:
    """Milliseconds of each convolution and matrix product for one image, of each network; run in turns.

    A layer has the time of the kernel that it is fused into, with its activation function and a sum after it; of layers
    that are in no profile, being fused into others, nothing is said.

    Args:
        networks: each with one input.
    """
    import onnxruntime

    with tempfile.TemporaryDirectory() as folder:
        sessions = []
        for number, network in enumerate(networks):
            options = onnxruntime.SessionOptions()
            options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
            options.log_severity_level, options.enable_profiling = 3, True
            options.profile_file_prefix = str(Path(folder, str(number)))
            sessions.append(
                onnxruntime.InferenceSession(network.SerializeToString(), options, providers=["CPUExecutionProvider"])
            )
        for _ in range(WARM_UP + ROUNDS):
            for session in sessions:
                given = session.get_inputs()[0]
                session.run(None, {given.name: np.zeros([1, *given.shape[1:]], np.float32)})
        profiles = [json.loads(Path(session.end_profiling()).read_text(encoding="utf-8")) for session in sessions]
    return [_by_layer(network, profile) for network, profile in zip(networks, profiles, strict=True)]


def _by_layer(network: onnx.ModelProto, profile: list[dict[str, Any]]) -> dict[str, float]:
    taken = defaultdict(list)
    for event in profile:
        if event["name"].endswith(KERNEL):
            taken[RENAMED.sub("", event["name"].removesuffix(KERNEL))].append(event["dur"])
    found = {}
    for layer, names in _names(network).items():
        name = next((name for name in names if name in taken), None)
        if name is not None:
            found[layer] = statistics.median(taken[name][WARM_UP:]) / 1000
    return found


def _names(network: onnx.ModelProto) -> dict[str, list[str]]:
    """List the names under which a layer may run: its own, or that of a node after it which is fused with it."""
    readers = defaultdict(list)
    for node in network.graph.node:
        for name in node.input:
            readers[name].append(node)
    found = {}
    for node in network.graph.node:
        if node.op_type not in PRODUCTS:
            continue
        names, last = [node.name, node.output[0]], node
        while len(readers[last.output[0]]) == 1:
            last = readers[last.output[0]][0]
            if last.op_type in PRODUCTS or last.op_type == "QuantizeLinear":
                break
            names += [last.name, last.output[0]]
        found[node.name] = names
    return found
