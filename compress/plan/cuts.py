"""Networks of the shapes that candidates will have, made before any of them is trained, to measure what they cost.

Uniform cuts of the fitted model to a few shares of its MACs, with all of its residual blocks and with fewer, and the
model as it is for smaller images; each in float and in int8 that nothing was calibrated for.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from torch import nn

from compress.benchmark.runtimes import precision_of
from compress.deployment.export import network_of
from compress.distillation.step import untaught
from compress.graph.network import export_network
from compress.pruning.allocate import uniformly
from compress.pruning.input_size import side_step, takes
from compress.pruning.structured import prune_channels
from compress.quantization.ptq import quantize_static
from transfer.data.sources import Data
from zoo.blocks import residual_blocks, without
from zoo.cost import count_macs
from zoo.errors import SlimzooError, UsageError
from zoo.files.model_directory import LoadedModel
from zoo.progress import Progress

SHARES = (0.4, 0.15, 0.06)  # beside the whole network
WITHOUT = (0.25, 0.06)  # beside the network without some blocks
BY_SIZE = (0.8, 0.55)  # of the MACs, that smaller images leave at most by themselves

Network = tuple[dict[str, Any], onnx.ModelProto]  # with what it costs as far as that is known without running it


class Cuts:
    """The model and cuts of it, with its residual blocks, with half of them and without; each is made once.

    Shares that its widths cannot reach are left out.
    """

    def __init__(self, loaded: LoadedModel, progress: Progress | None = None) -> None:
        self._size, self._progress, self._made = loaded.config.input_size, progress, 0
        model = loaded.model
        blocks, self._whole = residual_blocks(model, self._size), count_macs(model, self._size)
        self._short = {
            count: without(model, blocks[:: len(blocks) // count][:count]) if count else model
            for count in sorted({0, -(-len(blocks) // 2), len(blocks)})
        }
        self._own = {count: count_macs(short, self._size) / self._whole for count, short in self._short.items()}
        self._left = {count: self._shares(count) for count in self._short}
        self._sides = smaller_sides(loaded)
        self._all = sum(map(len, self._left.values())) + len(self._sides)

    def ends(self) -> list[Network]:
        """Those between which all others are: the whole one, and the smallest with all of the blocks and with fewer,
        and for the smallest images."""
        found = self._network(0, self._left[0].pop(0))
        if self._sides:
            found += self._resized(self._sides.pop())
        for count in self._short:
            smallest = list[Network]()
            while not smallest and self._left[count]:
                smallest = self._network(count, self._left[count].pop())
            found += smallest
        return found

    def others(self) -> list[Network]:
        """All that were not made yet."""
        (left, self._left), (sides, self._sides) = (self._left, {}), (self._sides, [])
        cuts = [each for count, shares in left.items() for share in shares for each in self._network(count, share)]
        return [*(each for side in sides for each in self._resized(side)), *cuts]

    def _shares(self, count: int) -> list[float]:
        """Of a network without so many blocks, the largest, which is its own, first."""
        own = self._own[count]
        return [own, *(share for share in (WITHOUT if count else SHARES) if share < own)]

    def _resized(self, side: int) -> list[Network]:
        """The whole network, for images of so many pixels."""
        self._said()
        model, size = self._short[0], (self._size[0], side, side)
        macs = count_macs(model, size)
        costs = {"share": macs / self._whole, "macs": macs, "blocks": 0, "side": side}
        return _in_both(export_network(model, size), size, costs)

    def _said(self) -> None:
        if self._progress is not None:
            self._progress("making what cuts would leave", self._made, self._all, "")
        self._made += 1

    def _network(self, count: int, share: float) -> list[Network]:
        self._said()
        short, size = self._short[count], self._size
        try:
            cut = short if share == self._own[count] else _cut_to(share / self._own[count], short, size)
        except SlimzooError:
            return []
        macs = count_macs(cut, size)
        return _in_both(export_network(cut, size), size, {"share": macs / self._whole, "macs": macs, "blocks": count})


def _cut_to(share: float, model: nn.Module, size: tuple[int, int, int]) -> nn.Module:
    return prune_channels(model, size, macs=share, allocation=uniformly).model


def smaller_sides(loaded: LoadedModel) -> list[int]:
    """Of images that it could take instead, in pixels, the largest first; none, if it takes those of its size alone."""
    preprocess, side = loaded.config.preprocess, loaded.config.preprocess.size[0]
    if preprocess.size != (side, side) or preprocess.is_prepared:
        return []
    whole, found, wanted = count_macs(loaded.model, (preprocess.channels, side, side)), list[int](), list(BY_SIZE)
    step = side_step(side)
    for each in range(side - step, 0, -step):  # strides round up: at 68 px EfficientNet-Lite0 takes 1.66 times as at 64
        size = preprocess.channels, each, each
        if not wanted or not takes(loaded.model, size):
            break
        if (share := count_macs(loaded.model, size) / whole) <= wanted[0]:
            found.append(each)
            wanted = [most for most in wanted if share > most]
    return found


def counts_of(networks: Sequence[dict[str, Any]]) -> list[int]:
    """How many residual blocks candidates leave out, of networks that were measured."""
    return sorted({0, *(int(each.get("blocks") or 0) for each in networks)})


def of_students(names: Iterable[str], images: Data, progress: Progress | None = None) -> list[Network]:
    """Architectures as they would be taught, in float and int8."""
    found = list[Network]()
    for name in names:
        begun = untaught(name, images, None, progress)
        size, model = begun.config.input_size, begun.model.eval()
        costs = {"share": None, "student": name, "macs": count_macs(model, size)}
        found += _in_both(export_network(model, size), size, costs)
    return found


def of_file(file: Path) -> list[Network]:
    """The network of an ONNX file, in float and int8.

    Raises:
        UsageError: it is in another number format already.
    """
    network = network_of(file)
    if (precision := precision_of(network)) != "fp32":
        raise UsageError(f"{file} is {precision} already: compress the float model that it was made of")
    shape = [int(each.dim_value) for each in network.graph.input[0].type.tensor_type.shape.dim[1:]]
    return _in_both(network, shape, {"share": 1.0})


def _in_both(network: onnx.ModelProto, shape: Sequence[int], costs: dict[str, Any]) -> list[Network]:
    noise = np.random.default_rng(0).standard_normal((4, *shape), dtype=np.float32)
    quantized = quantize_static(network, [noise]).network
    pairs = ((False, network), (True, quantized))
    return [({**costs, "int8": int8, "size_bytes": made.ByteSize()}, made) for int8, made in pairs]
