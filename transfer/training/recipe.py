"""Recipe: everything about a training run that one could wish to change, as one frozen value."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal, get_args

from transfer.data.augment import NONE, Augment, augment_for
from zoo.errors import UsageError, did_you_mean
from zoo.lineage import LARGEST_SEED
from zoo.settings import MOST_EPOCHS

OptimizerName = Literal["sgd", "adagrad", "rmsprop", "adam", "adamw"]
ScheduleName = Literal["constant", "step", "exponential", "cosine", "one-cycle"]


USUAL_BATCH = 32


@dataclass(frozen=True)
class Rates:
    """An optimizer's usual peak rates, for 32 images a step; a rate says nothing without its optimizer.

    Other batches scale them by the square root of their size (Malladi et al. 2022, arXiv 2205.10287), SGD's by their
    size itself (Goyal et al. 2017, arXiv 1706.02677, sec. 2.1).

    Attributes:
        lr: of the classifier, in fine-tuning; the backbone takes half of it.
        scratch_lr: of everything, from random weights.
        linear: whether they scale with the batch itself.
        weight_decay: decoupled for "adamw", added to the gradient (an L2 penalty) for the others.
    """

    lr: float
    scratch_lr: float
    weight_decay: float
    linear: bool = False

    def at(self, batch: int) -> Rates:
        """The rates for that many images a step."""
        share = batch / USUAL_BATCH
        factor = share if self.linear else math.sqrt(share)
        return replace(self, lr=self.lr * factor, scratch_lr=self.scratch_lr * factor)


# Rates called best, better or diverging below were tried once each: tf_efficientnet_lite0 from a probe, on 160 digits
# of scikit-learn at 48 px, 12 epochs.
STANDARD_RATES: dict[OptimizerName, Rates] = {
    # Goyal et al. 2017 (arXiv 1706.02677) sec. 2.1 and 5.1: 0.1 for 256 images, linear in the batch, decay 1e-4. For
    # fine-tuning 5e-3 was the best of 1.25e-3, 5e-3 and 2e-2.
    "sgd": Rates(lr=5e-3, scratch_lr=1.25e-2, weight_decay=1e-4, linear=True),
    # Duchi et al. 2011 leave the rate open; PyTorch's default is 1e-2, at which fine-tuning diverged: its first step is
    # the rate itself, whatever the gradient. A penalty would enter the sum of squares: none.
    "adagrad": Rates(lr=3e-3, scratch_lr=1e-2, weight_decay=0.0),
    # Hinton, Srivastava and Swersky 2012, lecture 6e: 1e-3; its first steps are up to 1 / sqrt(1 - 0.9) = 3.2 times as
    # long as Adam's, so fine-tuning takes a third (better than the whole by far). The penalty is scaled away: none.
    "rmsprop": Rates(lr=3e-4, scratch_lr=1e-3, weight_decay=0.0),
    # Kingma and Ba 2015 (arXiv 1412.6980), algorithm 1: 1e-3. A penalty in the gradient is scaled away by the second
    # moment (Loshchilov and Hutter 2019, arXiv 1711.05101, sec. 2): none.
    "adam": Rates(lr=1e-3, scratch_lr=3e-3, weight_decay=0.0),
    # ibid. for the decay; 0.05 is ConvNeXt's and Swin's (Liu et al. 2022, arXiv 2201.03545, table 5)
    "adamw": Rates(lr=1e-3, scratch_lr=3e-3, weight_decay=0.05),
}

# Of the rate from random weights, where a network normalizes each image by itself, with LayerNorm. ViT-Tiny on digits
# at 64 px, 30 epochs, validation: 23% at 3e-3 (one seed), 91, 89 and 92% at 3e-4 (seeds 0, 1, 2).
LAYER_NORM_SHARE = 0.1

# Fine-tuning's length. BiT-HyperRule (Kolesnikov et al. 2020, arXiv 1912.11370, sec. 3.3) gives every set of fewer than
# 20k images 500 steps of 512; here the classifier is a fitted probe, so that less is enough: on emoji 8, 10 and 12
# epochs are equal within a point (two seeds).
FINETUNE_EPOCHS = 9
# 13 epochs of 150 images. Emoji, 16 images a class to train on, one seed: 48.3, 49.3, 50.6, 50.0 and 51.3% after 8,
# 12, 16, 22 and 30 epochs.
FEWEST_STEPS = 65
# A quarter of them. Adam's first steps are as long as the rate, whatever the gradient, and at the peak two or three of
# them undo the probe. Pictures of 3 coloured shapes at 32 px, 33 to train on, one seed, 180 test images of which the
# probe has 100%: after 1 and 6 epochs of 2 steps 34 and 72% at full rates, 100% at the share; of 12 shapes, 96 to train
# on, probe 99%: after one epoch of 3 steps 78 and 98%. Its square, since 3 steps at the share, on 45 digits in noise,
# still made 47% of the probe's 70%.
LEAST_RISE = 16
MOST_STEPS = 2500  # 9 epochs of 8,900 images
# Fine-tuning's rates stay at their peak, and its result is the weights' average over the last steps, a tenth of all:
# polynomial-decay averaging (Shamir and Zhang 2013, arXiv 1212.1824, sec. 4), by which `Ema` begins whatever its decay
# is. Averages along a trajectory lie in flatter minima than its end and carry over to other domains better (Cha et al.
# 2021, SWAD, arXiv 2102.08604). Emoji, trained on one drawing style and tested on another (one seed, last features
# alone): 66.4% after 10 epochs, where one cycle over 12 had 64.6% by then; on validation images 83.6% against 81.4%.
FINETUNE_EMA = 0.9999
EPOCHS_RANGE = (3, 30)  # fewer do not show each image often enough under augmentation; more only memorize
SCRATCH_EPOCHS = 30
MIXUP_FROM = 20_000  # images; BiT-HyperRule: mixup of 0.1 for medium and large sets, none below
MIXUP_ALPHA = 0.1
SMALL_BATCH = 32  # in smaller ones BatchNorm's own statistics cost accuracy: Wu and He 2018, arXiv 1803.08494, fig. 1
# Of new statistics, which take over by a tenth a step: after 44, 1% of the old ones is left. In fewer, a network is
# trained by its batches' statistics and answers by a mixture: of the 12 shapes above, in batches of 64, 2 epochs of 2
# steps make 94% of the probe's 99% of the test images, 98% with statistics that stay.
STATISTICS_STEPS = 44
MOVED_FURTHER_UP_TO = 500  # from here down, colours and places are moved further: there is more to make up for
SMALL_SIDE = 48  # px; tiny images are shifted by 4 of 32 pixels (He et al. 2016, arXiv 1512.03385, sec. 4.2)

LARGEST_BATCH = 65_536  # beyond it is a slip of the finger


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How `finetune` trains. What it takes by itself for a dataset is `Recipe.for_data`.

    Attributes:
        epochs: passes over the training images.
        batch: images a step.
        optimizer: "sgd" with Nesterov momentum (Sutskever et al. 2013), "adagrad" (Duchi et al. 2011), "rmsprop"
            (Hinton 2012, lecture 6e), "adam" (Kingma and Ba 2015), "adamw" (Loshchilov and Hutter 2019, the default).
        schedule: how the rates move after the warm-up, see optim.py; "one-cycle" (Smith and Topin 2018,
            https://arxiv.org/abs/1708.07120) falls to zero along a cosine.
        lr: peak rate of the classifier. The default is for AdamW; `STANDARD_RATES` has the others'.
        backbone_lr: peak rate of the backbone's last stage. Smaller, because it starts from good weights.
        layer_decay: each earlier stage's rate is this times the next later one's; 1.0 makes them alike (Howard and
            Ruder 2018, arXiv 1801.06146, sec. 2.2, with 1 / 2.6; Clark et al. 2020, arXiv 2003.10555, with 0.8).
        frozen_stages: how many of the first stages are not trained at all (Yosinski et al. 2014, arXiv 1411.1792).
        warmup: share of the steps in which the rates rise linearly (Goyal et al. 2017, arXiv 1706.02677, sec. 2.2).
        least_rise: steps that they need to rise to their peak; a run with a shorter warm-up reaches the square of that
            share of it.
        momentum: of SGD, and the first beta of Adam and AdamW.
        weight_decay: decoupled for AdamW, an L2 penalty for the others; biases, norms and whatever else is not a
            layer's weight matrix are spared (He et al. 2018, arXiv 1812.01187, sec. 3.1).
        label_smoothing: Szegedy et al. 2016, arXiv 1512.00567, sec. 7.
        freeze_statistics: keep BatchNorm's running statistics as they are and normalize by them while training.
            Batches of a small dataset estimate them badly, and the probe that the classifier starts from needs them.
        clip_norm: the gradient's norm is cut to this (Pascanu et al. 2013, arXiv 1211.5063); inf never cuts.
        ema: decay of the weights' moving average (Polyak and Juditsky 1992), which is then the result; 0 is none.
        mixup: alpha of Zhang et al. 2018 (arXiv 1710.09412); 0 is none.
        cutmix: alpha of Yun et al. 2019 (arXiv 1905.04899); 0 is none. With both on, each step draws one of them.
        patience: stop after this many epochs without a better validation accuracy (Prechelt 1998); 0 never stops.
        augment: see `transfer.data.augment`.
        seed: of the order, the augmentation, the mixing and dropout.

    Raises:
        UsageError: a value out of its range, or an unknown optimizer or schedule.
    """

    epochs: int = FINETUNE_EPOCHS
    batch: int = 32
    optimizer: OptimizerName = "adamw"
    schedule: ScheduleName = "one-cycle"
    lr: float = 1e-3
    backbone_lr: float = 5e-4
    layer_decay: float = 1.0
    frozen_stages: int = 0
    warmup: float = 0.25
    least_rise: int = 1
    momentum: float = 0.9
    weight_decay: float = 0.05
    label_smoothing: float = 0.1
    freeze_statistics: bool = True
    clip_norm: float = 5.0
    ema: float = 0.0
    mixup: float = 0.0
    cutmix: float = 0.0
    patience: int = 0
    augment: Augment = field(default_factory=Augment)
    seed: int = 0

    def __post_init__(self) -> None:
        for name, (holds, wanted) in _RANGES.items():
            value = getattr(self, name)
            if not holds(value):
                raise UsageError(f"{name}={value!r} must be {wanted}")
        for name, known in (("optimizer", get_args(OptimizerName)), ("schedule", get_args(ScheduleName))):
            value = getattr(self, name)
            if value not in known:
                near = did_you_mean(str(value), known, "it must be one of " + ", ".join(known))
                raise UsageError(f"unknown {name} {value!r}; {near}")

    def steps(self, images: int) -> int:
        """How many its epochs take over that many images."""
        return self.epochs * -(-images // self.batch)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready, for run.json and checkpoints."""
        return asdict(self)

    @classmethod
    def for_data(
        cls,
        images: int,
        size: int,
        *,
        classes: int,
        mirror: bool,
        method: Literal["finetune", "scratch"] = "finetune",
        optimizer: OptimizerName = "adamw",
        epochs: int | None = None,
        batch: int = USUAL_BATCH,
        lr: float | None = None,
        layer_norm: bool = False,
        seed: int = 0,
    ) -> Recipe:
        """The recipe for a dataset, from what is known before training.

        Args:
            images: how many there are to train on.
            size: the shorter side of the network's input, in pixels.
            mirror: whether a mirrored image is still one of its class; written signs are not.
            method: "finetune" starts from pretrained weights and a fitted probe, "scratch" from random weights.
            epochs: by default as many as so many images need.
            batch: images a step.
            lr: peak rate of the classifier; by default the optimizer's own (`STANDARD_RATES`) for that batch.
            layer_norm: whether the network has LayerNorm and no BatchNorm; from scratch it then takes a tenth of that.

        Raises:
            UsageError: see `Recipe`; fewer than one image or class.
        """
        if images < 1 or classes < 1 or size < 1:
            raise UsageError(f"images={images}, classes={classes} and size={size} must be at least 1")
        if optimizer not in STANDARD_RATES:
            return cls(optimizer=optimizer)  # says which there are
        fresh = method == "scratch"
        standard = STANDARD_RATES[optimizer].at(batch)
        usual = standard.scratch_lr * (LAYER_NORM_SHARE if layer_norm else 1) if fresh else standard.lr
        rate = usual if lr is None else lr
        if epochs is None:
            epochs = SCRATCH_EPOCHS if fresh else _epochs(images, batch)
        short = epochs * -(-images // batch) < STATISTICS_STEPS
        return cls(
            epochs=epochs,
            batch=batch,
            optimizer=optimizer,
            lr=rate,
            backbone_lr=rate if fresh else rate / 2,
            schedule="one-cycle" if fresh else "constant",
            least_rise=1 if fresh else LEAST_RISE,
            ema=0.0 if fresh else FINETUNE_EMA,
            weight_decay=standard.weight_decay,
            freeze_statistics=not fresh and (batch <= SMALL_BATCH or short),
            mixup=MIXUP_ALPHA if images >= MIXUP_FROM else 0.0,
            augment=augment_for(mirror, few=images <= MOVED_FURTHER_UP_TO, tiny=size <= SMALL_SIDE),
            seed=seed,
        )


def _epochs(images: int, batch: int) -> int:
    """9, more where that makes fewer than 65 steps, fewer where it makes more than 2,500; in 3..30."""
    per_epoch = -(-images // batch)
    fewest, most = EPOCHS_RANGE
    wanted = max(FINETUNE_EPOCHS, -(-FEWEST_STEPS // per_epoch))
    return max(fewest, min(most, wanted, max(1, MOST_STEPS // per_epoch)))


def _at_least(least: float) -> tuple[Callable[[float], bool], str]:
    return lambda value: least <= value < math.inf, f"at least {least:g}"


def _share(*, one: bool) -> tuple[Callable[[float], bool], str]:
    if one:
        return lambda value: 0 <= value <= 1, "in [0, 1]"
    return lambda value: 0 <= value < 1, "in [0, 1)"


def _between(least: int, most: int) -> tuple[Callable[[float], bool], str]:
    return lambda value: least <= value <= most, f"from {least} to {most}"


_RANGES: dict[str, tuple[Callable[[float], bool], str]] = {
    "epochs": _between(0, MOST_EPOCHS),
    "batch": _between(1, LARGEST_BATCH),
    "lr": (lambda value: 0 < value < math.inf, "above 0"),
    "backbone_lr": _at_least(0),
    "layer_decay": (lambda value: 0 < value <= 1, "in (0, 1]"),
    "frozen_stages": _at_least(0),
    "warmup": _share(one=True),
    "least_rise": _at_least(1),
    "momentum": _share(one=False),
    "weight_decay": _at_least(0),
    "label_smoothing": _share(one=False),
    "clip_norm": (lambda value: value > 0, "above 0"),
    "ema": _share(one=False),
    "mixup": _at_least(0),
    "cutmix": _at_least(0),
    "patience": _at_least(0),
    "seed": _between(0, LARGEST_SEED),
}


__all__ = ["NONE", "STANDARD_RATES", "Augment", "OptimizerName", "Rates", "Recipe", "ScheduleName"]
