"""Changing ONNX graphs in place."""

from __future__ import annotations

from collections.abc import Iterable

import onnx


def set_nodes_(graph: onnx.GraphProto, nodes: Iterable[onnx.NodeProto]) -> None:
    """Give the graph these nodes in this order, its own among them, instead of what it has."""
    copies = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
    del graph.node[:]
    graph.node.extend(copies)
