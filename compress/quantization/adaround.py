"""AdaRound: whether each weight is rounded up or down is learned, so that the layer's outputs change least.

Nagel et al. 2020 (arXiv 2004.10568): sec. 3.3, eq. 21 to 25; asymmetric reconstruction, which sees the inputs that
earlier rounded layers give and the outputs of the float network, after the activation function, sec. 3.4, eq. 26. In
few steps some weights are left undecided, and their threshold is no better than rounding to nearest; a descent from
there, one weight of each output at a time, decides them (the problem is quadratic, eq. 13).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import numpy_helper
from torch import Tensor
from torch.nn import functional as F

from compress.graph.layers import PRODUCTS
from compress.graph.run import tensors_of
from compress.quantization.patches import as_matrix, columns_at, from_matrix, outputs_of
from compress.quantization.rounding import Rounded, Roundings, with_weights
from zoo.progress import Progress

Batches = Iterable[NDArray[np.float32]]
Activation = Callable[[Tensor], Tensor]

# What a layer's outputs are compared at: 16 places of each of 256 images at 96 px; of larger ones fewer images and more
# places, since the network is run twice a layer.
PIXELS, FEWEST_IMAGES, SAMPLES = 256 * 96 * 96, 32, 256 * 16
PLACES = 16  # of each image, at least
BATCH = 128  # places in a step
STEPS = 200
RATE = 5e-2
JUDGED = 4  # one part in so many of the places does not teach: it says whether a layer gained
STRETCH = 1.2  # of the sigmoid, so that its ends are reached: zeta - gamma, eq. 23
REGULARIZED = 0.2  # share of the steps before the regularizer sets in
EXPONENTS = (20.0, 2.0)  # of the regularizer, eq. 24: from the first to the last step
WEIGHT = 1.0  # of the regularizer's mean, where rounding to nearest has an error of 1


@dataclass(frozen=True)
class Layer:
    """One convolution or matrix product with a stored weight."""

    node: onnx.NodeProto
    activation: Activation

    @property
    def weight(self) -> str:
        return str(self.node.input[1])

    @property
    def source(self) -> str:
        return str(self.node.input[0])


def adaround(
    network: onnx.ModelProto, roundings: Roundings, batches: Batches, *, seed: int = 0, progress: Progress | None = None
) -> dict[str, Rounded]:
    """Round each weight to the point of its grid, above or below it, that is better for its layer.

    Weights that lie on the grid stay, zeros among them; layers that gain nothing stay as they are.

    Args:
        network: float32.
        roundings: the weights to nearest.
        batches: (B, C, H, W), the first of which are run twice a layer; activations stay in float.
    """
    batches = few_of(batches)
    layers = [layer for layer in layers_of(network) if layer.weight in roundings]
    stored = {tensor.name: numpy_helper.to_array(tensor) for tensor in network.graph.initializer}
    done: dict[str, Rounded] = dict(roundings)
    current = with_weights(network, {})
    for number, layer in enumerate(layers):
        if progress is not None:
            progress("rounding", number, len(layers), layer.node.name)
        exact = torch.from_numpy(stored[layer.weight].copy())
        columns = sampled(layer, exact, network, batches, seed)
        seen = sampled(layer, exact, current, batches, seed)
        bias = stored.get(layer.node.input[2]) if len(layer.node.input) > 2 else None
        done[layer.weight] = learn(layer, exact, bias, done[layer.weight], columns, seen, seed)
        current = with_weights(current, {layer.weight: done[layer.weight].weight})
    return done


@dataclass(frozen=True)
class Problem:
    """Rounding one layer: min ||f(W x + b) - f(S (F + U) x' + b)||^2 over U in {0, 1}, eq. 26.

    Attributes:
        below: F, (G, O / G, K) whole multiples of the scale.
        above: how far above them the weights are, in [0, 1); where it is 0 there is nothing to choose.
        scale: S, (G, O / G, 1).
        outputs: W x, (P, G, O / G) of the float network; places come first, since steps draw them.
        seen: x', (P, G, K) of the rounded one.
        shift: b, (G, O / G, 1).
        activation: f.
    """

    below: Tensor
    above: Tensor
    scale: Tensor
    outputs: Tensor
    seen: Tensor
    shift: Tensor
    activation: Activation

    @property
    def free(self) -> Tensor:
        return self.above > 0

    def error(self, up: Tensor, places: Tensor | slice) -> Tensor:
        """Mean over the outputs; `up` (G, O / G, K) may be anything in [0, 1]."""
        outputs = ((self.below + up) * self.scale) @ self.seen[places].permute(1, 2, 0)
        exact = self.outputs[places].permute(1, 2, 0)
        return F.mse_loss(self.activation(outputs + self.shift), self.activation(exact + self.shift))


def learn(
    layer: Layer,
    exact: Tensor,
    bias: NDArray[np.float32] | None,
    nearest: Rounded,
    columns: Tensor,
    seen: Tensor,
    seed: int,
) -> Rounded:
    """One layer's weight: relaxed and decided, then polished; or to nearest, where that is better on other images.

    Args:
        columns, seen: (P, G, K) what the layer takes in the float network, and in the rounded one.
    """
    groups, grid = columns.shape[1], nearest.grid
    steps = torch.from_numpy(grid.steps(exact.numpy()))
    matrix, below = as_matrix(layer.node, exact, groups), as_matrix(layer.node, steps.floor().float(), groups)
    scale = as_matrix(layer.node, torch.from_numpy(grid.at(np.ones(exact.shape))), groups)[..., :1]
    shift = torch.zeros(1) if bias is None else torch.from_numpy(bias.copy()).reshape(groups, -1, 1)
    above = as_matrix(layer.node, (steps - steps.floor()).float(), groups)
    outputs = (matrix @ columns.permute(1, 2, 0)).permute(2, 0, 1).contiguous()
    problem = Problem(below, above, scale, outputs, seen, shift, layer.activation)
    learned = len(seen) - len(seen) // JUDGED
    if not problem.free.any():
        return nearest
    rounded = as_matrix(layer.node, torch.from_numpy(np.rint(grid.steps(exact.numpy()))).float(), groups) - below
    decided = relax(problem, learned, seed)
    candidates = [rounded, decided, polish(problem, decided, learned)]
    judged = slice(learned, None)
    best = min(range(len(candidates)), key=lambda i: float(problem.error(candidates[i], judged)))
    if best == 0:
        return nearest
    found = from_matrix(layer.node, below + candidates[best], exact.shape)
    return Rounded(grid.at(found.double().numpy()), grid)


def relax(problem: Problem, learned: int, seed: int) -> Tensor:
    """U, each between 0 and 1 at first, and pushed to either by the regularizer (sec. 3.3).

    Args:
        learned: how many of the places, from the first on, teach.
    """
    free, least = problem.free, float(problem.error((problem.above >= 0.5).float(), slice(learned)))
    # h(V) = clip(STRETCH * sigmoid(V) - (STRETCH - 1) / 2, 0, 1), which begins at what is above the floor
    start = (problem.above.clamp(1e-4, 1 - 1e-4) + (STRETCH - 1) / 2) / STRETCH
    v = torch.logit(start).requires_grad_()
    optimizer = torch.optim.Adam([v], lr=RATE)
    generator = torch.Generator().manual_seed(seed)
    for step in range(STEPS if least > 0 else 0):
        up = torch.where(free, soft(v), 0)
        chosen = torch.randint(learned, (min(BATCH, learned),), generator=generator)
        loss = problem.error(up, chosen) / least
        begun = (step / STEPS - REGULARIZED) / (1 - REGULARIZED)
        if begun > 0:
            exponent = EXPONENTS[1] + (EXPONENTS[0] - EXPONENTS[1]) * 0.5 * (1 + np.cos(np.pi * begun))
            loss = loss + WEIGHT * (1 - (2 * up[free] - 1).abs() ** exponent).mean()
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    return torch.where(free, (soft(v.detach()) >= 0.5).float(), 0)


@torch.no_grad()
def polish(problem: Problem, up: Tensor, learned: int) -> Tensor:
    """Move, for each output, the weight that gains most to its other neighbour, until none gains.

    Without the activation function, the error is quadratic in each output's weights (eq. 13), and what a step gains is
    known without computing outputs.
    """
    seen, outputs = (each[:learned].permute(1, 2, 0) for each in (problem.seen, problem.outputs))
    curvature = seen @ seen.transpose(1, 2) / learned  # (G, K, K)
    up = up.clone()
    slope = ((problem.below + up) * problem.scale) @ curvature - outputs @ seen.transpose(1, 2) / learned
    own = curvature.diagonal(dim1=1, dim2=2)[:, None]
    rows = torch.arange(up.shape[1])[None].expand(up.shape[:2])
    groups = torch.arange(up.shape[0])[:, None].expand(up.shape[:2])
    for _ in range(up.shape[2]):
        move = torch.where(problem.free, (1 - 2 * up) * problem.scale, 0)
        gain, which = (2 * move * slope + move.square() * own).min(dim=2)
        gaining = gain < 0
        if not gaining.any():
            break
        step = torch.where(gaining, move[groups, rows, which], 0)
        up[groups, rows, which] = torch.where(gaining, 1 - up[groups, rows, which], up[groups, rows, which])
        slope += step[..., None] * curvature[groups, which]
    return up


def soft(v: Tensor) -> Tensor:
    """The rectified sigmoid, eq. 23."""
    return (torch.sigmoid(v) * STRETCH - (STRETCH - 1) / 2).clamp(0, 1)


def layers_of(network: onnx.ModelProto) -> list[Layer]:
    """Convolutions over images and products with matrices, of stored weights of their own, in the order in which they
    run."""
    stored = {tensor.name for tensor in network.graph.initializer}
    readers: dict[str, list[onnx.NodeProto]] = {}
    for node in network.graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node)
    constants = {tensor.name: tensor for tensor in network.graph.initializer}
    found = []
    for node in network.graph.node:
        own = node.op_type in PRODUCTS and node.input[1] in stored and len(readers[node.input[1]]) == 1
        if own and len(constants[node.input[1]].dims) == (4 if node.op_type == "Conv" else 2):
            following = readers.get(node.output[0], [])
            found.append(Layer(node, _activation(following[0], constants) if len(following) == 1 else _same))
    return found


def _same(x: Tensor) -> Tensor:
    return x


def _activation(node: onnx.NodeProto, constants: dict[str, onnx.TensorProto]) -> Activation:
    if node.op_type == "Relu":
        return F.relu
    if node.op_type == "Clip" and len(node.input) == 3 and all(name in constants for name in node.input[1:]):
        low, high = (float(numpy_helper.to_array(constants[name])) for name in node.input[1:3])
        return lambda x: x.clamp(low, high)
    return _same


def few_of(batches: Batches) -> list[NDArray[np.float32]]:
    """The first images, as many as `PIXELS` allow."""
    few: list[NDArray[np.float32]] = []
    images = 0
    for batch in batches:
        room = max(FEWEST_IMAGES, PIXELS // math.prod(batch.shape[2:])) - images
        if room <= 0:
            break
        few.append(batch[:room])
        images += len(few[-1])
    return few


def sampled(
    layer: Layer, weight: Tensor, network: onnx.ModelProto, batches: Sequence[NDArray[np.float32]], seed: int
) -> Tensor:
    """(P, G, K) what the weight of each group is multiplied by, at P random places of the images."""
    rng = np.random.default_rng(seed)
    parts = []
    most = max(PLACES, SAMPLES // max(1, sum(map(len, batches))))
    for found in tensors_of(network, [layer.source], batches):
        source = torch.from_numpy(found[layer.source])
        size = outputs_of(layer.node, weight, source)
        places = torch.from_numpy(rng.integers(0, size, (len(source), min(most, size))))
        parts.append(columns_at(layer.node, weight, source, places).permute(0, 3, 1, 2).flatten(0, 1))
    return torch.cat(parts)
