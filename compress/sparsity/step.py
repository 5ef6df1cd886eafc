"""`slimzoo sparsify`: from one model directory to one whose weights are mostly zero."""

from __future__ import annotations

import re
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from compress.recovery.gradient_batches import gradient_batches
from compress.recovery.masks import density as density_of
from compress.recovery.masks import nonzeros
from compress.recovery.recipe import recovery_recipe
from compress.recovery.teacher import taught_by
from compress.sparsity.rank import Ranking, by_layer, check_n_of_m, kept_count, over_network
from compress.sparsity.scores import Criterion, Taylor, lamp, magnitude
from compress.sparsity.sparsify import (
    NOfM,
    Pattern,
    Unstructured,
    check_epochs,
    check_reachable,
    cut_at_once,
    sparsify_weights,
)
from compress.step import Step, large_loss
from transfer.data.dataset import located, open_for
from transfer.data.loader import LabelledPixels
from transfer.data.parts import read_pixels, seen_in
from transfer.evaluation.measure import measure, predictor_of
from transfer.training.finetune import TrainingData
from transfer.training.recipe import Recipe
from zoo import lineage
from zoo.errors import SlimzooError, UsageError, did_you_mean
from zoo.files.directory import check_free, new_directory
from zoo.files.manifest import CHECKPOINTS
from zoo.files.model_directory import ModelConfig, load_model, save_model
from zoo.files.rehearsal import rehearse
from zoo.progress import Progress

DENSITY = 0.1
ADVICE = "more --epochs (12 unless given), or a larger --density"
CRITERIA = ("lamp", "magnitude", "taylor")
RANKINGS: dict[str, Ranking] = {"network": over_network, "layer": by_layer}


def sparsify(
    directory: str | Path,
    *,
    data: str | Path,
    out: str | Path,
    density: float | None = None,
    pattern: str | None = None,
    criterion: str | None = None,
    ranking: str | None = None,
    epochs: int = 12,
    seed: int = 0,
    overwrite: bool = False,
    resume: bool = False,
    progress: Progress | None = None,
) -> Step:
    """`slimzoo sparsify`: make weights zero one by one while the others are trained, taught by the model as it was.

    Args:
        directory: a model directory.
        data: the data of the fit.
        density: share of the weights of convolutions and linear layers that stay, in (0, 1]; a tenth by default.
        pattern: instead, "2:4", or any N:M, in every layer whose inputs M divides, by magnitude.
        criterion: "lamp", the default, "magnitude" or "taylor".
        ranking: over the "network", the default, or the same density for each "layer".
        epochs: of the one training loop.

    Raises:
        UsageError: a value that is none of these; a density above the model's; data of other classes; an int8 model.
        SlimzooError: no weight became zero, or zeros were lost.
    """
    out = Path(out)
    check_free(out, overwrite=overwrite, resume=resume)
    _check(density, pattern, criterion, ranking)
    _check_epochs(epochs, seed)
    arguments = {
        "directory": located(directory), "data": located(data), "out": str(out), "density": density, "pattern": pattern,
        "criterion": criterion, "ranking": ranking, "epochs": epochs, "seed": seed,
    }  # fmt: skip
    began = time.monotonic()
    loaded = load_model(directory)
    check_reachable(loaded.model, _goal(density, pattern, magnitude, ranking))
    source = open_for(loaded.config, data)
    record = partial(lineage.step, "sparsify", arguments, seed=seed, data=source.record())
    with new_directory(
        out, run={"verb": "sparsify", "arguments": arguments}, overwrite=overwrite, resume=resume
    ) as work:
        rehearse(work, loaded.model, loaded.config, record(seconds=0.0))
        pixels = read_pixels(source, loaded.config.preprocess, progress)
        before = measure(predictor_of(loaded.model, loaded.config), loaded.model, loaded.config, pixels, progress)
        wanted = _pattern(density, pattern, criterion, ranking, pixels.train, loaded.config, seed)
        recipe = recovery_recipe(loaded.config, mirror=source.mirror, epochs=epochs, seed=seed)
        sparse = sparsify_weights(
            loaded.model, TrainingData(pixels.train, pixels.val, loaded.config.preprocess),
            recipe, wanted, loss_fn=taught_by(loaded.model), checkpoints=work / CHECKPOINTS, progress=progress,
        )  # fmt: skip
        reached = density_of(sparse)
        if not reached < density_of(loaded.model) and density != 1:
            raise SlimzooError(f"{directory}: no weight became zero; its density stays {reached:.2%}")
        after = measure(predictor_of(sparse, loaded.config), sparse, loaded.config, pixels, progress)
        before["density"] = density_of(loaded.model)
        after["density"] = reached
        done = record(
            seconds=time.monotonic() - began, before=before, after=after, recipe=recipe.to_dict(),
            large_loss=large_loss(before, after, ADVICE),
        )  # fmt: skip
        config = save_model(work, sparse, loaded.config.with_step(done, seen_in(source, pixels)))
    return Step(out, config, done)


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


def explain(
    directory: str | Path,
    *,
    data: str | Path,
    density: float | None = None,
    pattern: str | None = None,
    criterion: str | None = None,
    ranking: str | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> dict[str, Thinned]:
    """`slimzoo sparsify --explain`: each layer's part in a cut made at once; nothing is written.

    Raises:
        see `sparsify`.
    """
    _check(density, pattern, criterion, ranking)
    loaded = load_model(directory)
    check_reachable(loaded.model, _goal(density, pattern, magnitude, ranking))
    source = open_for(loaded.config, data)
    train = read_pixels(source, loaded.config.preprocess, progress).train
    scores, masks = cut_at_once(
        loaded.model, _pattern(density, pattern, criterion, ranking, train, loaded.config, seed)
    )
    found = {}
    for name, alive in nonzeros(loaded.model).items():
        kept = masks[name] & alive
        lost = 1 - float(scores[name][kept].double().sum() / scores[name].double().sum().clamp(min=1e-30))
        found[name] = Thinned(alive.numel(), int(alive.sum()), int(kept.sum()), lost)
    return found


def is_sparse(records: list[dict[str, Any]]) -> bool:
    """Whether the model of this lineage was made sparse: steps after that hold its zeros."""
    return any(record["verb"] == "sparsify" for record in records)


def pattern_of(records: list[dict[str, Any]]) -> NOfM | None:
    """The N:M pattern that the model of this lineage was given last; None without one."""
    sparse = [record for record in records if record["verb"] == "sparsify"]
    given = sparse[-1]["arguments"]["pattern"] if sparse else None
    return None if given is None else parse_pattern(given)


def _check(density: float | None, pattern: str | None, criterion: str | None, ranking: str | None) -> None:
    if density is not None:
        kept_count(1, density)
    for name, value, known in (("criterion", criterion, CRITERIA), ("ranking", ranking, tuple(RANKINGS))):
        if value is not None and value not in known:
            near = did_you_mean(value, known, "it must be one of " + ", ".join(known))
            raise UsageError(f"unknown {name} {value!r}; {near}")
    if pattern is not None:
        parse_pattern(pattern)
        for name, given in (("density", density), ("criterion", criterion), ("ranking", ranking)):
            if given is not None:
                raise UsageError(
                    f"--pattern {pattern} says which weights stay, the largest of each run: leave out --{name} {given}"
                )


def parse_pattern(text: str) -> NOfM:
    """ "2:4" as a pattern.

    Raises:
        UsageError: it is no such text.
    """
    if not re.fullmatch(r"\d+:\d+", text):
        raise UsageError(f"pattern={text!r} must be N:M, such as 2:4 for two of every four weights")
    n, _, m = text.partition(":")
    check_n_of_m(int(n), int(m))
    return NOfM(n=int(n), m=int(m))


def _pattern(
    density: float | None, pattern: str | None, criterion: str | None, ranking: str | None, train: LabelledPixels,
    config: ModelConfig, seed: int,
) -> Pattern:  # fmt: skip
    if criterion == "taylor":
        chosen: Criterion = Taylor(gradient_batches(train, config.preprocess, seed))
    else:
        chosen = {"lamp": lamp, "magnitude": magnitude}[criterion or "lamp"]
    return _goal(density, pattern, chosen, ranking)


def _goal(density: float | None, pattern: str | None, criterion: Criterion, ranking: str | None) -> Pattern:
    if pattern is not None:
        return parse_pattern(pattern)
    return Unstructured(
        density=DENSITY if density is None else density, criterion=criterion, ranking=RANKINGS[ranking or "network"]
    )


def _check_epochs(epochs: int, seed: int) -> None:
    check_epochs(epochs)
    Recipe(epochs=epochs, seed=seed)
