"""`sparsify`: from one model directory to one whose weights are mostly zero."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from compress.recovery.gradient_batches import gradient_batches
from compress.recovery.masks import density, nonzeros
from compress.recovery.recipe import recovery_recipe
from compress.recovery.teacher import taught_by
from compress.sparsity.scores import Criterion, magnitude
from compress.sparsity.settings import DENSITY, RANKINGS, WEIGHT_CRITERIA, Sparsify, parse_pattern
from compress.sparsity.sparsify import NOfM, Pattern, Unstructured, check_reachable, cut_at_once, sparsify_weights
from compress.step import Made, Start, Work, load_editable, run_step
from compress.verbs import SPARSIFY
from transfer.data.fitted_data import open_for
from transfer.data.loader import LabelledPixels
from transfer.data.parts import read_pixels
from transfer.result import ModelResult
from transfer.training.finetune import TrainingData
from zoo.call import Call, takes
from zoo.errors import SlimzooError
from zoo.files.model_directory import LoadedModel, ModelConfig

ADVICE = "more --epochs (12 unless given), or a larger --density"


@dataclass(frozen=True, kw_only=True)
class SparsifiedStep(ModelResult):
    def lines(self) -> list[str]:
        found = self.record["metrics"]["after"]["density"]
        return [*super().lines(), f"{self.name}: {found:.2%} of the weights are not zero"]

    def next(self) -> list[list[str | Path]]:
        data = self.record["arguments"]["data"]
        return [["slimzoo", "cluster", self.name, "--data", data, "--out", f"{self.name}-shared"]]


@takes(SPARSIFY)
def sparsify(directory: str | Path | LoadedModel, settings: Sparsify, call: Call) -> SparsifiedStep:
    """Make weights zero one by one while the others are trained, taught by the model as it was.

    Args:
        directory: a model directory, or a model in memory.
        settings: see `Sparsify`.
        call: `data` are those of the fit.

    Raises:
        UsageError: a density above the model's; data of other classes; an int8 model.
        SlimzooError: no weight became zero, or zeros were lost.
    """
    run = call.run()
    loaded = load_editable(directory, "sparsify")
    check_reachable(loaded.model, _pattern(settings, magnitude))

    def work(at: Work) -> Made:
        assert at.pixels is not None
        assert at.start.source is not None
        wanted = _pattern(settings, _criterion(settings, at.pixels.train, at.config))
        recipe = recovery_recipe(at.config, mirror=at.start.source.mirror, epochs=settings.epochs, seed=settings.seed)
        sparse = sparsify_weights(
            at.model,
            TrainingData(at.pixels.train, at.pixels.val, at.config.preprocess),
            recipe,
            wanted,
            loss_fn=taught_by(at.model),
            checkpoints=at.checkpoints,
            progress=at.progress,
        )
        was, reached = density(at.model), density(sparse)
        if not reached < was and settings.density != 1:
            raise SlimzooError(f"{directory}: no weight became zero; its density stays {reached:.2%}")
        return Made(sparse, {"density": was}, {"density": reached}, {"recipe": recipe.to_dict()})

    start = Start(loaded, open_for(loaded.config, call.data))
    return run_step(run, start, work, SparsifiedStep, advice=ADVICE, progress=call.progress)


@dataclass(frozen=True)
class Thinned:
    """What one layer would lose.

    Attributes:
        weights, living, kept: all of them, those that are not zero now, those of them that would stay.
        importance_lost: share of the layer's scores that goes.
    """

    weights: int
    living: int
    kept: int
    importance_lost: float


@dataclass(frozen=True)
class Explained:
    """A cut made at once, layer by layer. MACs and milliseconds are not named: dense kernels multiply zeros too."""

    layers: dict[str, Thinned]

    def lines(self) -> list[str]:
        """A table for people."""
        found = ["   weights  not zero        kept  importance   layer (all cut at once, nothing trained)"]
        for name, layer in self.layers.items():
            share = layer.kept / layer.weights
            found.append(
                f"{layer.weights:>10,} {layer.living:>9,} -> {layer.kept:>8,} {-layer.importance_lost:>11.1%} "
                f"{name}, {share:.2%}"
            )
        kept, weights = (sum(getattr(layer, key) for layer in self.layers.values()) for key in ("kept", "weights"))
        return [
            *found,
            f"{kept:,} of {weights:,} weights, {kept / weights:.2%}; a coded file becomes smaller, MACs and "
            "milliseconds of dense kernels stay; nothing was written",
        ]

    def document(self) -> dict[str, Any]:
        """Ready for JSON."""
        return {"layers": {name: vars(layer) for name, layer in self.layers.items()}}


@takes(SPARSIFY, writes=False)
def explain(directory: str | Path | LoadedModel, settings: Sparsify, call: Call) -> Explained:
    """Each layer's part in a cut made at once; nothing is written.

    Raises:
        see `sparsify`.
    """
    loaded = load_editable(directory, "sparsify")
    check_reachable(loaded.model, _pattern(settings, magnitude))
    train = read_pixels(open_for(loaded.config, call.data), loaded.config.preprocess, call.progress).train
    scores, masks = cut_at_once(loaded.model, _pattern(settings, _criterion(settings, train, loaded.config)))
    found = {}
    for name, alive in nonzeros(loaded.model).items():
        kept = masks[name] & alive
        lost = 1 - float(scores[name][kept].double().sum() / scores[name].double().sum().clamp(min=1e-30))
        found[name] = Thinned(alive.numel(), int(alive.sum()), int(kept.sum()), lost)
    return Explained(found)


def _criterion(settings: Sparsify, train: LabelledPixels, config: ModelConfig) -> Criterion:
    """One that needs gradients is given batches of training images."""
    found = WEIGHT_CRITERIA.value(settings.criterion or "lamp")
    on_batches = getattr(found, "on_batches", None)
    if on_batches is not None:
        found = on_batches(gradient_batches(train, config.preprocess, settings.seed))
    return found  # type: ignore[no-any-return]


def _pattern(settings: Sparsify, criterion: Criterion) -> Pattern:
    if settings.pattern is not None:
        n, m = parse_pattern(settings.pattern)
        return NOfM(n=n, m=m)
    density = DENSITY if settings.density is None else settings.density
    return Unstructured(density=density, criterion=criterion, ranking=RANKINGS.value(settings.ranking or "network"))
