"""Quantization-aware training: the network learns with its weights and activations rounded as they will be deployed.

torchao's PT2E (extra `qat`) finds where activations are rounded and follows their ranges; weights lie on grids whose
steps are learned. Gradients pass rounding as if it were not there (Bengio et al. 2013, arXiv 1308.3432, sec. 3).
BatchNorm is folded first, so that what is trained is what is deployed (Jacob et al. 2018, arXiv 1712.05877, sec. 3.2).
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx
import torch
from torch import Tensor, nn

from compress.quantization.ptq import quiet
from compress.quantization.rounding import Grid, Rounded, fit_grid, products
from compress.recovery.teacher import taught_by
from transfer.training.finetune import TrainingData, finetune
from transfer.training.recipe import Recipe
from zoo.errors import SlimzooError, first_line
from zoo.folding import folded
from zoo.progress import Progress
from zoo.tensors import load_tensors_

with quiet():
    from torchao.quantization.pt2e import FakeQuantizeBase, FusedMovingAvgObsFakeQuantize
    from torchao.quantization.pt2e.quantize_pt2e import prepare_qat_pt2e
    from torchao.quantization.pt2e.quantizer import QuantizationSpec
    from torchao.quantization.pt2e.quantizer.utils import QuantizationConfig
    from torchao.quantization.pt2e.quantizer.x86_inductor_quantizer import X86InductorQuantizer


class OnGrid(FakeQuantizeBase):  # type: ignore[misc]
    """A weight on a grid whose step is learned for each output channel; what is zero at the start stays zero.

    The step is the start's times the exponential of what is learned, so that one rate suits steps of any size. Its
    gradient, and the share of it that is taken, are those of Esser et al. 2020 (arXiv 1902.08153, eq. 3 and sec. 2.2).

    Args:
        quant_max: the greatest multiple of the step, on either side of 0.
    """

    scale: Tensor  # (O, 1, ...), of the start
    alive: Tensor  # as the weight

    def __init__(self, *, quant_max: int, **spec: Any) -> None:
        super().__init__()
        self.levels, self.kept = quant_max, False

    def start_(self, weight: Tensor) -> None:
        grid = fit_grid(weight.detach().cpu().numpy(), 0, self.levels.bit_length() + 1)
        shape = (-1, *[1] * (weight.ndim - 1))
        self.register_buffer("scale", torch.from_numpy(grid.scale.copy()).reshape(shape))
        self.register_buffer("alive", weight.detach() != 0)
        self.stretch = nn.Parameter(torch.zeros(len(weight)).reshape(shape))
        self.share = 1 / math.sqrt(weight[0].numel() * self.levels)

    def forward(self, weight: Tensor) -> Tensor:
        if self.kept:
            return weight
        learned = self.stretch * self.share + (self.stretch * (1 - self.share)).detach()
        step = self.scale * learned.exp()
        multiples = (weight / step).clamp(-self.levels, self.levels)
        return step * (multiples + (multiples.round() - multiples).detach()) * self.alive

    def calculate_qparams(self, **_: Any) -> tuple[Tensor, Tensor]:
        step = (self.scale * self.stretch.exp()).flatten()
        return step, torch.zeros_like(step, dtype=torch.int64)


class Rounding(nn.Module):
    """A network with rounded weights and activations, as torchao prepares it; ranges follow the training's batches."""

    def __init__(self, prepared: nn.Module) -> None:
        super().__init__()
        self.prepared = prepared

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.prepared(images)
        return logits

    def train(self, mode: bool = True) -> Rounding:
        self.training = mode  # an exported graph has no modes; it was exported in eval mode, without dropout
        for module in self.prepared.modules():
            if isinstance(module, FakeQuantizeBase):
                module.enable_observer(mode)
        return self

    def weights(self) -> Iterator[tuple[str, OnGrid]]:
        """The name of each weight that is on a grid, and the grid."""
        graph: torch.fx.Graph = self.prepared.graph  # type: ignore[assignment]
        for node in graph.nodes:
            if node.op == "call_module":
                module = self.prepared.get_submodule(str(node.target))
                if isinstance(module, OnGrid):
                    yield str(node.args[0].target), module


@dataclass(frozen=True)
class Trained:
    """What training left.

    Attributes:
        model: BatchNorm folded, float32, its weights on their grids; in eval mode.
        grids: by the name of the weight.
    """

    model: nn.Module
    grids: dict[str, Grid]

    def roundings(self, network: onnx.ModelProto) -> dict[str, Rounded]:
        """Give the roundings of the exported model's weights, by the name that they have there.

        Raises:
            SlimzooError: a trained weight is not in it.
        """
        by_values = {}
        for name, grid in self.grids.items():
            weight = self.model.get_parameter(name).detach().numpy()
            for values in (weight, weight.T):  # of linear layers, an exporter may store the transpose
                by_values[values.tobytes()] = grid
        found = {
            name: Rounded(weight, Grid(grid.scale, axis, grid.levels))
            for name, weight, axis in products(network)
            for grid in [by_values.get(weight.tobytes())]
            if grid is not None
        }
        if len(found) < len(self.grids):
            raise SlimzooError(f"{len(found)} of {len(self.grids)} trained weights are in the exported network")
        return found


def train_quantized(
    model: nn.Module,
    data: TrainingData,
    recipe: Recipe,
    *,
    bits: int,
    keep: Collection[str] = (),
    checkpoints: Path | None = None,
    progress: Progress | None = None,
) -> Trained:
    """Train a copy of `model` with rounded weights and activations of 8 bits, on the labels and its own answers.

    Args:
        bits: of the weights of convolutions and linear layers, one grid for each output channel.
        keep: names of layers whose weights stay in float.

    Raises:
        SlimzooError: torch cannot export the model.
        see `finetune`.
    """
    shape = (2, data.preprocess.channels, *data.preprocess.size)
    example = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    exact = folded(model.eval(), example)
    for parameter in exact.parameters():
        parameter.requires_grad_(True)
    rounding = prepare(exact, example, bits=bits, keep=keep)
    trained = finetune(
        rounding,
        data,
        recipe,
        loss_fn=taught_by(model),
        checkpoints=checkpoints,
        progress=progress,
        title="quantized training",
    ).model
    assert isinstance(trained, Rounding)
    state, grids = trained.prepared.state_dict(), {}
    for name, module in trained.weights():
        if not module.kept:
            with torch.no_grad():
                state[name] = module(state[name])
            grids[name] = Grid(module.calculate_qparams()[0].detach().numpy(), 0, module.levels)
    load_tensors_(exact, {name: state[name] for name in exact.state_dict()})
    return Trained(exact.eval(), grids)


def prepare(model: nn.Module, example: Tensor, *, bits: int, keep: Collection[str] = ()) -> Rounding:
    """Rounding put into the graph of `model`, whose parameters it shares.

    Args:
        model: in eval mode, BatchNorm folded.
        example: (B, C, H, W) with B above 1.

    Raises:
        SlimzooError: torch cannot export the model.
    """
    levels = (1 << (bits - 1)) - 1
    activations = QuantizationSpec(
        dtype=torch.uint8,
        quant_min=0,
        quant_max=255,
        qscheme=torch.per_tensor_affine,
        observer_or_fake_quant_ctr=FusedMovingAvgObsFakeQuantize.with_args(eps=2**-12),
    )
    weights = QuantizationSpec(
        dtype=torch.int8,
        quant_min=-levels,
        quant_max=levels,
        qscheme=torch.per_channel_symmetric,
        ch_axis=0,
        observer_or_fake_quant_ctr=OnGrid,
    )
    config = QuantizationConfig(activations, activations, weights, None, is_qat=True)
    with quiet():
        try:
            program = torch.export.export(model, (example,), dynamic_shapes=({0: torch.export.Dim("batch", min=1)},))
        except Exception as error:  # the exporter's own kinds differ from version to version
            raise SlimzooError(f"torch cannot export this model: {first_line(error)}; leave out --epochs") from error
        rounding = Rounding(prepare_qat_pt2e(program.module(), X86InductorQuantizer().set_global(config)))
    for name, module in rounding.weights():
        module.start_(rounding.prepared.get_parameter(name))
        module.kept = name.removesuffix(".weight") in keep
    return rounding
