"""How a network becomes int8: trained with rounding or not, quantized, layers ranked by harm, some left in float."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import onnx

from compress.deployment.float_model import FloatModel
from compress.graph.network import export_network
from compress.quantization.calibrate import Images
from compress.quantization.cpu import Scheme
from compress.quantization.mixed import cheapest_first, fewest
from compress.quantization.nearest import CHANGES, Nearest, nearest
from compress.quantization.ptq import Quantized, quantize_static
from compress.quantization.rounding import Roundings
from compress.quantization.sensitivity import Blame, blame
from compress.quantization.settings import RANGES
from transfer.data.parts import Pixels
from transfer.training.finetune import TrainingData
from transfer.training.recipe import Recipe
from zoo.progress import Progress

RANKING_IMAGES = 64


@dataclass(frozen=True, kw_only=True)
class Int8:
    """How a network becomes int8.

    Attributes:
        recipe: of training with rounding; None does without.
        changes, settled: see `nearest`.
    """

    scheme: Scheme
    ranges: tuple[Any, ...]
    keep: tuple[str, ...]
    recipe: Recipe | None
    progress: Progress | None
    changes: tuple[str, ...] = CHANGES
    settled: bool = False

    def of(self, model: FloatModel, pixels: Pixels, seen: Images, unseen: Images, checkpoints: Path) -> Nearest:
        network, trained = model.network, None
        if self.recipe is not None:
            network, trained = self._trained(model, pixels, self.recipe, checkpoints)
        return nearest(
            network,
            seen,
            unseen,
            ranges=self.ranges,
            keep=self.keep,
            scheme=self.scheme,
            trained=trained,
            changes=self.changes,
            settled=self.settled,
            progress=self.progress,
        )

    def _trained(
        self, model: FloatModel, pixels: Pixels, recipe: Recipe, checkpoints: Path
    ) -> tuple[onnx.ModelProto, Roundings]:
        from compress.quantization.qat import train_quantized  # imports torchao

        assert model.loaded is not None
        data = TrainingData(pixels.train, pixels.val, model.config.preprocess)
        trained = train_quantized(
            model.loaded.model,
            data,
            recipe,
            bits=self.scheme.bits,
            keep=self.keep,
            checkpoints=checkpoints,
            progress=self.progress,
        )
        network = export_network(trained.model, model.config.input_size)
        return network, trained.roundings(network)

    def ranking(self, found: Nearest, unseen: Images) -> list[Blame]:
        few = Images(unseen.pixels[:RANKING_IMAGES], unseen.preprocess)
        return blame(
            found.exact,
            found.histograms,
            few,
            ranges=found.quantized.ranges,
            scheme=self.scheme,
            roundings=found.roundings,
            keep=self.keep,
            progress=self.progress,
        )

    def within(self, found: Nearest, ranking: Sequence[Blame], holds: Callable[[onnx.ModelProto], bool]) -> Nearest:
        """Put as many layers in float as the accuracy needs, which is too low; leave it where they do not help."""
        made: dict[tuple[str, ...], Quantized] = {}

        def holds_with(layers: tuple[str, ...]) -> bool:
            if len(layers) == len(ranking):  # nothing would be quantized
                return False
            made[layers] = quantize_static(
                found.exact,
                histograms=found.histograms,
                ranges=found.quantized.ranges,
                keep=[*self.keep, *layers],
                scheme=self.scheme,
                roundings=found.roundings,
            )
            return holds(made[layers].network)

        order = cheapest_first(ranking)
        layers = fewest(order, holds_with) if order else None
        return found if layers is None else replace(found, quantized=made[layers])

    def record(self, found: Nearest, ranking: Sequence[Blame]) -> dict[str, Any]:
        """Say it for the lineage."""
        quantized = found.quantized
        recipe = {} if self.recipe is None else {"recipe": self.recipe.to_dict()}
        return recipe | {
            "scheme": vars(quantized.scheme),
            "ranges": RANGES.name(quantized.ranges),
            "divergence": dict(found.tried),
            "taken": list(found.taken),
            "kept": list(quantized.kept),
            "ranking": [each.record() for each in ranking],
            "int8_layers": [quantized.int8_layers, quantized.layers],
            "int8_macs": quantized.int8_macs,
        }
