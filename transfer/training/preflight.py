"""The practitioner's checklist before a training: cheap trials on a copy, and the likely cause of each that fails.

After Karpathy 2019, "A Recipe for Training Neural Networks" (https://karpathy.github.io/2019/04/25/recipe/), sec. 2.
The trials cost about as much as twenty steps of 16 images.
"""

from __future__ import annotations

import copy
import math
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from transfer.evaluation.statistics import wilson
from transfer.training.batch import TrainingData
from transfer.training.recipe import Recipe
from transfer.training.trial import STEPS, Overfitted, finite, network_inputs, on_a_copy, overfit, set_mode_
from zoo.classifier import classifier, has_classifier, reset_classifier_
from zoo.errors import DataError, SlimzooError
from zoo.files.predictor import TorchPredictor
from zoo.progress import Progress
from zoo.tensors import load_tensors_

LOOKED_AT = 32  # training images whose inputs and first loss are looked at
SMALL_BATCH = 16  # images that are overfitted
HELD_OUT = 64  # validation images that a fitted probe is tried on
# logits of standard deviation s raise the loss of an undecided classifier by s^2 / 2 above ln(K): s = 1
Begins = Literal["fresh", "probe", "cut"]
INITIAL_TOLERANCE = 0.5
LEAST_FALL = 1e-3  # of the first loss: what 8 steps must bring even to a deep network without normalization
LEARNED = 0.05  # of ln(K): a batch whose loss is so low is known already
LARGEST_NORM = 1e3  # of the first gradient; clipped to the usual 5, such a step keeps half a percent of itself
MEAN_WITHIN, SPREAD_WITHIN = 3.0, (0.1, 5.0)  # normalized images have mean 0 and deviation 1, within a dataset's ways
NEARLY_ALL = 0.9  # share of one class from which accuracy says little


@dataclass(frozen=True)
class Check:
    """One line of the list.

    Attributes:
        value: what was measured; inf where it was no finite number.
        wanted: in words.
        cause: the likely one, in one line; "" where the check passed.
    """

    name: str
    passed: bool
    value: float
    wanted: str
    cause: str = ""


@dataclass(frozen=True)
class Preflight:
    checks: tuple[Check, ...]

    @property
    def passed(self) -> bool:
        return all(check.passed for check in self.checks)

    def lines(self) -> list[str]:
        """One line a check for people, and below each that failed its likely cause."""
        width = max(len(check.name) for check in self.checks)
        lines = []
        for check in self.checks:
            lines.append(
                f"{'ok  ' if check.passed else 'WARN'}  {check.name:<{width}}  {check.value:.3g}, wanted {check.wanted}"
            )
            if check.cause:
                lines.append(f"      likely cause: {check.cause}")
        return lines

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready, for the lineage; a value that was not finite is null."""
        checks = [asdict(c) | {"value": c.value if math.isfinite(c.value) else None} for c in self.checks]
        return {"passed": self.passed, "checks": checks}


def preflight(
    model: nn.Module,
    data: TrainingData,
    recipe: Recipe,
    *,
    begins: Begins,
    part: tuple[nn.Module, TrainingData] | None = None,
    progress: Progress | None = None,
) -> Preflight:
    """Try the model on a few images before it is trained; training is tried from a fresh classifier, probe or not.

    Nothing is left behind: the model, its statistics and the global generators are as before. A failed check is a
    warning; training can go on.

    Args:
        begins: with a fresh classifier, of small weights; with a probe, which was fitted on these images; or cut, when
            it may answer anything.
        part: what is trained of the model, where that is not all, on what enters it; training is tried on that.

    Raises:
        DataError: labels that the classifier has no output for.
        SlimzooError: training cannot work: the first loss is not finite, or no gradient reaches any parameter.
    """
    classes = _outputs(model, data)
    with on_a_copy(model, recipe) as tried:
        said = _Said(progress)
        checks = _check_labels(data, classes)
        inputs, labels = _images(data, LOOKED_AT)
        checks += _check_inputs(inputs)
        checks += _check_first_answers(tried, recipe, inputs, labels, begins)
        said("first loss")
        checks.append(_check_majority(tried, data, begins))
        said("majority")
    trained, entering = part or (model, data)
    with on_a_copy(trained, recipe) as tried:
        inputs, labels = _images(entering, SMALL_BATCH)
        if begins != "fresh":  # a probe may know the batch already: no loss could fall
            reset_classifier_(tried, classes, torch.Generator().manual_seed(recipe.seed))
        start = {name: tensor.clone() for name, tensor in tried.state_dict().items()}
        real = overfit(tried, recipe, inputs, labels, said)
        checks += _check_gradients(real)
        checks.append(_check_fall(real, recipe, classes))
        load_tensors_(tried, start)
        blank = overfit(tried, recipe, torch.zeros_like(inputs), labels, said)
        checks.append(_check_baseline(real, blank))
    return Preflight(tuple(checks))


def _outputs(model: nn.Module, data: TrainingData) -> int:
    """How many logits the model has; where no single layer gives them, by its answer to an image."""
    if has_classifier(model):
        return classifier(model).weight.shape[0]
    with torch.no_grad():
        logits = copy.deepcopy(model).eval()(torch.zeros(1, data.preprocess.channels, *data.preprocess.size))
    return int(logits.shape[1])


class _Said:
    """Progress over the two single trials and the two times eight steps."""

    def __init__(self, progress: Progress | None) -> None:
        self.done, self._progress = 0, progress

    def __call__(self, note: str) -> None:
        self.done += 1
        if self._progress is not None:
            self._progress("preflight", self.done, 2 + 2 * STEPS, note)


def _images(data: TrainingData, count: int) -> tuple[Tensor, Tensor]:
    """Inputs and labels of training images from everywhere in the set; a lone one twice, for BatchNorm."""
    indices = _spread(len(data.train), count)
    indices = np.resize(indices, max(2, len(indices)))
    inputs = network_inputs(data, indices)
    return inputs, torch.from_numpy(data.train.labels[indices]).to(inputs.device)


def _spread(total: int, count: int) -> NDArray[np.intp]:
    return np.unique(np.linspace(0, total - 1, min(total, count)).round().astype(np.intp))


def _check_labels(data: TrainingData, classes: int) -> list[Check]:
    for part, images in (("training", data.train), ("validation", data.val)):
        if images is not None and len(images) and not 0 <= images.labels.min() <= images.labels.max() < classes:
            raise DataError(
                f"{part} labels go from {images.labels.min()} to {images.labels.max()}, and the classifier has outputs "
                f"0 to {classes - 1}: give the model as many classes as the data have"
            )
    missing = int((np.bincount(data.train.labels, minlength=classes) == 0).sum())
    cause = "the split left these classes without a training image, or the model has more classes than the data"
    return [Check("classes without training images", not missing, missing, "0", cause if missing else "")]


def _check_inputs(inputs: Tensor) -> list[Check]:
    low, high = SPREAD_WITHIN
    mean, spread = float(inputs.mean()), float(inputs.std())
    centred, scaled = abs(mean) <= MEAN_WITHIN, low <= spread <= high
    scale = "pixels are normalized by the wrong mean and deviation, or in 0..255 where 0..1 is meant"
    flat = "the images are blank or all alike, or were divided by 255 twice"
    return [
        Check("mean of the inputs", centred, finite(mean), f"within ±{MEAN_WITHIN:g}", "" if centred else scale),
        Check(
            "deviation of the inputs",
            scaled,
            finite(spread),
            f"{low:g} to {high:g}",
            "" if scaled else flat if spread < low else scale,
        ),
    ]


@torch.no_grad()
def _check_first_answers(
    model: nn.Module, recipe: Recipe, inputs: Tensor, labels: Tensor, begins: Begins
) -> list[Check]:
    set_mode_(model, recipe, training=False)
    logits = model(inputs)
    loss = float(nn.functional.cross_entropy(logits, labels))
    if not math.isfinite(loss):
        raise SlimzooError(f"the first loss is {loss} before any training: the weights or the inputs hold nan or inf")
    chance = math.log(logits.shape[1])
    sums = float((logits.sum(1) - 1).abs().max())
    probabilities = bool((logits >= 0).all()) and sums < 1e-3 and logits.shape[1] > 1
    soft = Check(
        "outputs are logits",
        not probabilities,
        sums,
        "rows that do not sum to one",
        "the model ends in a softmax and the loss takes another: remove the one in the model" if probabilities else "",
    )
    wanted = cause = "any, of a network that was cut"
    if begins == "cut":
        good = True
    elif begins == "probe":
        good = loss < chance or logits.shape[1] == 1
        wanted = f"below {chance:.3g} = ln({logits.shape[1]}), after the probe"
        cause = "the classes are in another order than the probe's, or its features were of other images or sizes"
    else:
        good = abs(loss - chance) <= INITIAL_TOLERANCE
        wanted = f"{chance:.3g} = ln({logits.shape[1]}), ±{INITIAL_TOLERANCE:g}"
        cause = (
            "the classifier's first weights, or the features before it, are too large"
            if loss > chance
            else "the classifier is not fresh: it knows these labels already"
        )
    return [Check("first loss", good, loss, wanted, "" if good else cause), soft]


@torch.no_grad()
def _check_majority(model: nn.Module, data: TrainingData, begins: Begins) -> Check:
    """The share of the largest class is what an answer without looking reaches; a probe must not do clearly worse."""
    name = "majority baseline"
    if begins != "probe" or data.val is None or not len(data.val):
        share = float(np.bincount(data.train.labels).max() / len(data.train))
        cause = "" if share <= NEARLY_ALL else "nearly all images are of one class: go by the balanced accuracy"
        return Check(name, not cause, share, f"at most {NEARLY_ALL:g} of the images in one class", cause)
    indices = _spread(len(data.val), HELD_OUT)
    predictor = TorchPredictor(model.eval(), data.preprocess, None)
    right = int((predictor.logits(data.val.pixels[indices]).argmax(1) == data.val.labels[indices]).sum())
    share = float(np.bincount(data.val.labels).max() / len(data.val))
    _, most = wilson(right, len(indices))
    good = most >= share
    cause = "the probe's classes are in another order than the labels, or validation images are unlike training images"
    wanted = f"about {share:.3g} or more, the share of the largest class"
    return Check(name, good, right / len(indices), wanted, "" if good else cause)


def _check_gradients(found: Overfitted) -> list[Check]:
    bad = found.unreached or found.zero
    if len(found.unreached) + len(found.zero) == found.trainable:
        raise SlimzooError("no gradient reaches any parameter: all of them are zero (dead units before the loss)")
    cause = ""
    if bad:
        names = ", ".join(bad[:3]) + (f" and {len(bad) - 3} more" if len(bad) > 3 else "")
        why = (
            "cut off from the loss by a detach(), or never called"
            if found.unreached
            else "only zeros arrive: dead units behind them (a ReLU whose inputs are all below zero)"
        )
        cause = f"{names}: {why}"
    tame = found.norm < LARGEST_NORM
    explodes = "inputs are not normalized, or the first weights are too large for the depth"
    return [
        Check(
            "parameters without gradient",
            not bad,
            len(found.unreached) + len(found.zero),
            f"0 of {found.trainable}",
            cause,
        ),
        Check("norm of the first gradient", tame, found.norm, f"below {LARGEST_NORM:g}", "" if tame else explodes),
    ]


def _check_fall(found: Overfitted, recipe: Recipe, classes: int) -> Check:
    falls = found.last < (1 - LEAST_FALL) * found.first or found.last < LEARNED * math.log(max(2, classes))
    wanted = f"below the first, {found.first:.3g}, after {STEPS} steps on one batch"
    if falls:
        cause = ""
    elif found.last > (1 + LEAST_FALL) * found.first:
        cause = f"the rates are too high (lr={recipe.lr:g}, backbone_lr={recipe.backbone_lr:g}): try a tenth of --lr"
    else:
        cause = f"nothing is learned: the rates are too low (lr={recipe.lr:g}), or the classifier gets no signal"
    return Check("loss of an overfitted batch", falls, found.last, wanted, cause)


def _check_baseline(real: Overfitted, blank: Overfitted) -> Check:
    wanted = f"below {blank.last:.3g}, which blank images reach"
    better = real.last < blank.last and not real.alike
    if real.alike:
        cause = "the answer does not depend on the image: the images are blank or all alike, or a layer is dead"
    elif real.last > real.first:
        cause = "the loss of this batch rises: see above"
    else:
        cause = (
            "the images bring no more than their labels' shares: images and labels do not belong together, the "
            "rates are wrong, or the signal is lost on its way through the network"
        )
    return Check("same with the images", better, real.last, wanted, "" if better else cause)
