"""Recovery: a model that was cut learns its answers back from the labels and from the model as it was before."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import nn

from compress.pruning.depth import HeldOut
from compress.recovery.distillation import Distillation
from compress.recovery.masks import attach_masks_, detach_masks_, hold_zeros
from compress.recovery.recipe import from_scratch, recovery_recipe
from compress.recovery.teacher import train_student
from transfer.data.dataset import FEW_IMAGES
from transfer.evaluation.divergence import clearly_less, mean_nats
from transfer.fitting.plan import planned
from transfer.training.average import averaged
from transfer.training.finetune import Finetuned, TrainingData
from transfer.training.recipe import STANDARD_RATES, Recipe
from zoo.files.model_directory import LoadedModel, ModelConfig
from zoo.preprocess import Preprocess
from zoo.progress import Progress

# Times the rate that the fit's own method takes. Validation images, rates of 3e-3 / 6e-3 / 1e-2:
#   ResNet-20 trained from scratch on digits, 1/8 of its MACs, 297 steps: 97.8 / 97.8 / 98.9% (seed 0), 98.6 / 98.9 /
#   98.9% (seed 1), loss 0.119 / 0.076 / 0.046 and 0.068 / 0.049 / 0.045; 1/4 of them: 99.7% at 3e-3 and 1e-2;
#   a pretrained EfficientNet-Lite0 on emoji, 1/4 of its MACs: 77.5 / 76.9 / 76.4% (one seed).
# With 1e-3, and BatchNorm's statistics frozen, ResNet-20 at 1/4 had 97.5%.
FASTER = 3.0


# The rate where a pretrained network has few images, and its statistics stay as the cut has set them: 32 to 40 steps at
# three times the fit's rate undo what the least-squares fit has saved. EfficientNet-Lite0 to half of the MACs by
# Gauss-Newton's scores, images that were kept back, one seed, before and after 8 epochs, at 3e-3 with new statistics /
# 1e-3 / 3e-4 / 1e-4 with the old ones: photographs of things (122 images) 79.2, 74.0 / 74.0 / 81.6%; emoji (180) 42.8,
# 41.2 / - / 42.5 / 42.1%; materials (159) 66.2, 63.6 / - / 65.6%. (With the old statistics, images were moved further,
# as `augment_for` does for few; for materials the teacher had all of the loss.)
FEW_IMAGES_LR = 3e-4
SHARES = (0.25, 0.5, 0.75, 1.0)  # of the way from the cut network to the trained one


def recipe_after_cut(config: ModelConfig, *, images: int, mirror: bool, epochs: int, seed: int) -> Recipe:
    """`recovery_recipe`, but faster, and BatchNorm learns the statistics of the smaller network; few images less so."""
    recipe = recovery_recipe(config, mirror=mirror, epochs=epochs, seed=seed)
    if images <= FEW_IMAGES and not from_scratch(config):
        return replace(recipe, lr=FEW_IMAGES_LR, backbone_lr=FEW_IMAGES_LR, freeze_statistics=True)
    usual = STANDARD_RATES[recipe.optimizer].at(recipe.batch)
    lr = FASTER * (usual.scratch_lr if from_scratch(config) else usual.lr)
    return replace(recipe, lr=lr, backbone_lr=lr, freeze_statistics=False)


def recover(
    network: nn.Module,
    taught_by: LoadedModel,
    data: TrainingData,
    recipe: Recipe,
    *,
    how: Distillation,
    sparse: bool = False,
    checkpoints: Path,
    progress: Progress | None = None,
    tell: Callable[[str], None] = lambda line: None,
) -> tuple[Finetuned, dict[str, Any]]:
    """The training of a copy of `network`, and notes for the lineage: the recipe and what the preflight found.

    Args:
        taught_by: the model before it was cut.
        data: at the size of the images that `network` takes.
        how: what is learned from it.
        sparse: whether what is zero stays zero.
        checkpoints: where this training's are kept.
    """
    recipe, notes = planned(network, data, recipe, checkpoints=checkpoints, begins="cut", progress=progress, tell=tell)
    if sparse:
        attach_masks_(network)
    trained = train_student(
        network,
        data,
        recipe,
        teacher=taught_by.model,
        seen_by_teacher=taught_by.config.preprocess,
        how=how,
        after_step=hold_zeros if sparse else None,
        checkpoints=checkpoints,
        progress=progress,
        title="recovery",
    )
    detach_masks_(trained.model)
    return trained, {"recipe": recipe.to_dict(), **notes}


@dataclass(frozen=True)
class Kept:
    """Which share of a training is kept, on the line from the network that was cut.

    Attributes:
        divergences: share -> nats of the answers from the uncut network's.
        images: on which.
    """

    share: float
    divergences: dict[float, float]
    images: int

    def note(self) -> dict[str, Any]:
        """Ready for JSON."""
        found = {f"{share:g}": round(nats, 6) for share, nats in self.divergences.items()}
        return {"share": self.share, "divergences": found, "images": self.images}

    def __str__(self) -> str:
        nats = self.divergences
        said = f"answers to {self.images} held-out images differ by {nats[0]:.3f} nats before it, {nats[1]:.3f} after"
        if not self.share:
            return f"recovery is not kept: {said}"
        if self.share == 1:
            return f"recovery is kept: {said}"
        return f"recovery is kept to {self.share:.0%} of the way: {said}, {nats[self.share]:.3f} there"


def kept_of(start: nn.Module, trained: nn.Module, held: HeldOut, preprocess: Preprocess) -> Kept:
    """The share of the training with which the answers are nearest; none, where they are not clearly nearer by it.

    Args:
        start, trained: before and after it.
        preprocess: of both.
    """
    found = {0.0: held.divergences_of(start, preprocess)}
    for share in SHARES:
        network = trained if share == 1 else averaged(start, trained, share)
        found[share] = held.divergences_of(network, preprocess)
    best = min(found, key=lambda share: float(found[share].mean()))
    kept = best if clearly_less(found[best], found[0.0]) else 0.0
    return Kept(kept, {share: mean_nats(nats) for share, nats in found.items()}, held.images)
