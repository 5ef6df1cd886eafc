"""The settings of `prune`, and the criteria and allocations that it knows by name.

A criterion or an allocation of your own is an object, or "module:object" on the command line. To add one under a name,
write it in importance.py or allocate.py and add a line here.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, PlainSerializer, model_validator

from compress.recovery.distillation import Distillation
from compress.recovery.settings import Patient, Unlabeled
from zoo.choices import Choices
from zoo.errors import UsageError, argument
from zoo.settings import MOST_EPOCHS, Seeded, Settings, option

CRITERIA = Choices(
    "criterion",
    {
        "l2": "compress.pruning.importance:l2_norm",
        "l1": "compress.pruning.importance:l1_norm",
        "bn-scale": "compress.pruning.importance:bn_scale",
        "random": "compress.pruning.importance:Random",
        "taylor": "compress.pruning.importance:Taylor",
        "obs": "compress.pruning.obs:OptimalBrainSurgeon",
    },
)
ALLOCATIONS = Choices(
    "allocation",
    {
        "global": "compress.pruning.allocate:globally",
        "uniform": "compress.pruning.allocate:uniformly",
        "isomorphic": "compress.pruning.allocate:isomorphically",
        "cost": "compress.pruning.allocate:allocate_by_importance",
        "sensitivity": "compress.pruning.sensitivity:Sensitivity",
    },
)
Criterion = Annotated[Any, BeforeValidator(CRITERIA.checked), PlainSerializer(CRITERIA.name)]
Allocation = Annotated[Any, BeforeValidator(ALLOCATIONS.checked), PlainSerializer(ALLOCATIONS.name)]


def milliseconds(given: object) -> object:
    """ "5ms" or "5" as a number.

    Raises:
        UsageError: a word that is neither.
    """
    if not isinstance(given, str):
        return given
    try:
        return float(given.strip().lower().removesuffix("ms"))
    except ValueError as error:
        raise UsageError(f"{argument('latency', given)}: wanted milliseconds, such as 5ms") from error


class Choice(Settings):
    """What is cut.

    criterion: by default "obs" where there are images, "taylor" above 1,000 of them, and "l2" without.

    allocation: by default "cost" for scores that estimate a loss, obs and taylor; "isomorphic" for the others, which
    cannot be compared between layers of other shapes. (ResNet-20 on digits to 1/2 by L2, not recovered: cost 32%,
    global 46%, isomorphic 59%, uniform 61%; EfficientNet-Lite0 on emoji: 23, 37, 38, 38%.)

    round_to, floor: see `allocate`; with several rounds each has its floor.

    Raises:
        UsageError: a name that is not known, or a value out of its range.
    """

    macs: float | None = option(
        None,
        "Share of the multiply-accumulates to keep, in (0, 1]. Unless given, the least of 0.9, 0.8, ... with which the "
        "answers to held-out images hardly change; 0.5 without such images.",
    )
    latency: Annotated[float | None, BeforeValidator(milliseconds)] = option(
        None, "Instead: the most that an image may take in onnxruntime here: 5ms", metavar="MS"
    )
    size: int | None = option(
        None,
        "Side of the images that the pruned network takes, in pixels; its own cuts channels alone. Unless given, the "
        "one with which answers to held-out images change least.",
        metavar="PX",
        ge=1,
    )
    blocks: int = option(
        0,
        "Also leave out so many whole residual blocks: those without which answers to held-out images change least.",
        ge=0,
    )
    criterion: Criterion = option(
        None,
        f"{', '.join(CRITERIA)}, or module:object. Unless given, obs with --data, taylor above 1,000 images, else l2.",
        metavar="NAME",
    )
    allocation: Allocation = option(
        None,
        "cost: what loses least importance for what it saves; sensitivity: the same, by measured loss; global: one "
        "threshold for all; uniform: the same share of every group; isomorphic: one threshold for each shape of layer; "
        "or module:object. Unless given, cost with obs and taylor, else isomorphic.",
        metavar="NAME",
    )
    rounds: int = option(1, "Cuts, each recovered from before the next.", ge=1)
    round_to: int = option(8, "Widths become multiples of this.", ge=1)
    floor: float = option(0.1, "Share of its width that every group keeps.", ge=0, le=1)
    normalized: bool = option(False, "Also cut widths that a LayerNorm or GroupNorm normalizes over.")
    threads: int | None = option(None, "Of the latency; one per physical core unless given.", ge=1)

    @model_validator(mode="after")
    def _check_budget(self) -> Choice:
        if self.macs is not None and self.latency is not None:
            raise UsageError("wanted a share of the MACs or a latency, not both: leave one of them out")
        if self.size is not None and (self.latency is not None or self.rounds > 1):
            raise UsageError(
                f"{argument('size', self.size)} is for one cut to a share of the MACs: leave it out with a latency and "
                "with several rounds"
            )
        if self.blocks and self.rounds > 1:
            raise UsageError(f"{argument('blocks', self.blocks)} is for one cut: leave it out with several rounds")
        if self.macs is not None and not 0 < self.macs <= 1:
            raise UsageError(f"a share of MACs of {self.macs} must be above 0 and at most 1: 0.5 keeps half")
        if self.latency is not None and not 0 < self.latency < float("inf"):
            raise UsageError(f"a latency of {self.latency:g} ms must be above 0 and finite")
        return self

    def check_images(self, given: bool) -> None:
        """Refuse a choice that is made by images where there are none.

        Raises:
            UsageError: see there.
        """
        if self.blocks and not given:
            raise UsageError(
                f"{argument('blocks', self.blocks)} are chosen by images: name the model's with {argument('data')}"
            )
        for choices, value in ((CRITERIA, self.criterion), (ALLOCATIONS, self.allocation)):
            if not given and getattr(choices.value(value), "needs_images", False):
                what = f"{choices.kind} {choices.name(value)}"
                raise UsageError(f"{what} needs images: name the model's with {argument('data')}")


class Prune(Seeded, Unlabeled, Patient, Distillation, Choice):
    """Recovery learns from the labels and from what the unpruned model answers, as far as `Distillation` says."""

    recover: int = option(8, "Epochs of training after the cut, of all rounds together.", ge=0, le=MOST_EPOCHS)
    sparse_epochs: int = option(0, "Epochs before the cut in which unneeded channels shrink.", ge=0, le=MOST_EPOCHS)
    penalty: Literal["group-lasso", "bn-scale"] = option(
        "group-lasso", "What shrinks in them: group-lasso or bn-scale; see compress/pruning/shrink.py."
    )

    def check(self, images: bool) -> None:
        """Refuse what the settings alone rule out.

        Args:
            images: whether there are some.

        Raises:
            UsageError: nothing to cut; images that are needed and not there; fewer epochs than rounds.
        """
        if self.macs == 1:
            raise UsageError("100% of the MACs keeps every channel: nothing to cut; ask for less")
        self.check_images(images)
        if self.threads is not None and self.latency is None:
            raise UsageError(f"threads={self.threads} are for measuring a latency: name one, or leave them out")
        if not images and self.recover:
            raise UsageError(
                f"recovery needs images: name the model's with {argument('data')}, or skip it with "
                f"{argument('recover', 0)}"
            )
        if not images and self.unlabeled is not None:
            raise UsageError(
                f"{argument('unlabeled')} adds to the images of the model: name those with {argument('data')}"
            )
        if not images and self.sparse_epochs:
            raise UsageError(f"sparse training needs images: name the model's with {argument('data')}")
        if self.recover and self.recover < self.rounds:
            raise UsageError(
                f"{self.rounds} rounds share {self.recover} epochs of recovery: wanted at least one for each, "
                f"{argument('recover', self.rounds)}"
            )
