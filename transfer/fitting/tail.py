"""Fine-tuning with few images: the tail of the network alone, on views of the images that its trunk has seen once."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from torch import nn

from transfer.data.augment import NONE
from transfer.data.loader import LabelledPixels
from transfer.fitting.plan import planned
from transfer.training.distributed import copy_from_main_
from transfer.training.finetune import Finetuned, TrainingData, finetune
from transfer.training.recipe import Recipe
from transfer.training.trunk import Trunk
from zoo.preprocess import Preprocess
from zoo.progress import Progress

FEWEST_STEPS = 100
MOST_VIEWS, VIEWS_BYTES = 8, 512 << 20
Views = dict[tuple[str, int], np.ndarray[Any, np.dtype[np.float32]]]  # by images and the place of the first


def passes_of(recipe: Recipe, images: int) -> Recipe:
    """The recipe with at least FEWEST_STEPS steps."""
    return replace(recipe, epochs=max(recipe.epochs, -(-FEWEST_STEPS // -(-images // recipe.batch))))


def train_tail(
    trunk: Trunk,
    data: TrainingData,
    recipe: Recipe,
    known: Views,
    *,
    decided: bool,
    progress: Progress | None = None,
    **planning: Any,
) -> tuple[nn.Module, Finetuned, Recipe, dict[str, Any]]:
    """The network with a trained tail, the training, the recipe by which it has learned, and notes for the lineage.

    Args:
        recipe: its epochs are passes over the images, each on one of the views, which are augmented as it says.
        known: views that have been made before, where those that are made now are kept.
        decided: whether the recipe has been planned before.
        planning: see `planned`.
    """
    count = len(data.train)
    most = min(MOST_VIEWS, VIEWS_BYTES // (4 * count * int(np.prod(trunk.shape))))
    times = -(-recipe.epochs // max(1, most))  # that each view is seen
    views = max(1, -(-recipe.epochs // max(1, times)))
    pixels = _rows(trunk, data.train, data.preprocess, recipe, views, known, progress)
    train = LabelledPixels(pixels.reshape(-1, *pixels.shape[2:]), np.tile(data.train.labels, views))
    val = None
    if data.val is not None:
        seen = trunk.views(data.val, data.preprocess, NONE, [0], progress=progress)[0]
        val = LabelledPixels(seen, data.val.labels)
    on_views = TrainingData(train, val, Preprocess.prepared(trunk.shape))
    own = replace(recipe, epochs=times, augment=NONE)
    notes: dict[str, Any] = {}
    copy_from_main_(trunk.tail)
    if not decided:
        whole = trunk.network, data
        own, notes = planned(trunk.tail, on_views, own, whole=whole, progress=progress, **planning)
    trained = finetune(
        trunk.tail, on_views, own, checkpoints=planning["checkpoints"], progress=progress, title="finetune"
    )
    done = replace(own, epochs=own.epochs * views, augment=recipe.augment)
    notes |= {"recipe": done.to_dict(), "tail": {"from": trunk.first.removeprefix("body."), "views": views}}
    return trunk.joined(trained.model), trained, replace(done, epochs=trained.epochs * views), notes


def _rows(
    trunk: Trunk,
    images: LabelledPixels,
    preprocess: Preprocess,
    recipe: Recipe,
    views: int,
    known: Views,
    progress: Progress | None,
) -> np.ndarray[Any, np.dtype[np.float32]]:
    """(views, N, H, W, C); of images that are joined of pieces those of each piece, which may be known."""
    found, first = [], 0
    for piece in images.pieces or (images,):
        key = piece.pixels_key(), first
        have = known.get(key)
        if have is None or len(have) < views:
            have = trunk.views(
                piece, preprocess, recipe.augment, range(views), first=first, seed=recipe.seed, progress=progress
            )
            known[key] = have
        found.append(have[:views])
        first += len(piece)
    return found[0] if len(found) == 1 else np.concatenate(found, axis=1)
