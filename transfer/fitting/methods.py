"""The methods of a fit: from a pretrained (or fresh) network and pixels to a trained model.

Each is a function of one Task and leaves the task's network alone, so that `auto` can try one after the other.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from transfer.data.loader import LabelledPixels
from transfer.data.parts import Pixels
from transfer.evaluation.evaluate import Evaluation, evaluate_pixels
from transfer.evaluation.measure import predictor_of
from transfer.fitting.plan import planned
from transfer.fitting.settings import Method
from transfer.frozen.features import frozen_features
from transfer.frozen.probe import LinearClassifier, fit_probe, lift_classifier_, set_classifier_
from transfer.frozen.prototype import fit_prototype
from transfer.training.distributed import copy_from_main_, from_main, main_first
from transfer.training.finetune import Epoch, TrainingData, finetune
from transfer.training.recipe import Recipe
from zoo.classifier import classifier
from zoo.files.model_directory import ModelConfig
from zoo.models.registry import is_users
from zoo.models.tapped import Tapped, tap
from zoo.progress import Progress

Trains = Literal["finetune", "scratch"]


@dataclass(frozen=True, kw_only=True)
class Task:
    """What a method works on.

    Attributes:
        network: its classifier fresh; methods work on copies.
        config: of that network.
        recipe: what a method that trains by gradients does; `find_lr` replaces its rates by a range test's.
        deadline: of `time.monotonic`, by which such a method ends with what it has learned by then; None sets none.
        checkpoints: where training keeps its state, and resumes from.
        tell: told one line at a time what a person should know.
        taps: let the classifier see several depths of the network, where a method can (`zoo.models.tapped`).
    """

    network: nn.Module
    config: ModelConfig
    pixels: Pixels
    recipe: Callable[[Trains], Recipe]
    find_lr: bool
    deadline: float | None
    seed: int
    checkpoints: Path
    progress: Progress | None
    tell: Callable[[str], None]
    taps: bool = True

    @property
    def classes(self) -> int:
        assert self.config.classes is not None
        return len(self.config.classes)

    @property
    def training_data(self) -> TrainingData:
        return TrainingData(self.pixels.train, self.pixels.val, self.config.preprocess)


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What a method made.

    Attributes:
        model: in eval mode, on the CPU.
        config: of that model, which may differ from the task's: prototypes see more of the network.
        history: of the epochs, where there were any.
        notes: for the lineage record.
    """

    method: Method
    model: nn.Module
    config: ModelConfig
    history: list[Epoch] = field(default_factory=list)
    notes: dict[str, Any] = field(default_factory=dict)

    def evaluate(self, images: LabelledPixels, progress: Progress | None) -> Evaluation:
        """The model's answers; those of a linear classifier on frozen features are made from the cached features."""
        if self.method in ("prototype", "probe") and isinstance(classifier(self.model), nn.Linear):
            found = frozen_features(self.model, images, self.config.preprocess, progress=progress)
            with torch.inference_mode():
                return Evaluation(images.labels, classifier(self.model)(torch.tensor(found)).numpy())
        predictor = predictor_of(self.model, self.config)
        return evaluate_pixels(predictor, images, len(self.config.classes or ()), progress=progress)


def probe(task: Task) -> Outcome:
    """Train the classifier alone, over several depths: logistic regression on frozen features (see `frozen.probe`)."""
    network, config = tapped(task.network, task.config, taps=task.taps)
    train, val = task.pixels.train, task.pixels.val
    with main_first():
        features = frozen_features(network, train, config.preprocess, progress=task.progress)
        held_out = None
        if val is not None:
            held_out = (frozen_features(network, val, config.preprocess, progress=task.progress), val.labels)
        found = fit_probe(
            features,
            train.labels,
            classes=task.classes,
            val=held_out,
            groups=train.groups or None,
            seed=task.seed,
            progress=task.progress,
        )
    _give_classifier_(network, found, task)
    notes = {"alpha": found.alpha, "cross_validated_top1": found.cross_validated_top1}
    return Outcome(method="probe", model=network.eval(), config=config, notes=notes)


def prototype(task: Task) -> Outcome:
    """No training: the nearest class mean, seen at several depths of the network (see `transfer.frozen.prototype`)."""
    network, config = tapped(task.network, task.config, taps=task.taps)
    train = task.pixels.train
    with main_first():
        features = frozen_features(network, train, config.preprocess, progress=task.progress)
    blocks = (*network.channels, features.shape[1] - sum(network.channels)) if isinstance(network, Tapped) else None
    found = fit_prototype(features, train.labels, classes=task.classes, blocks=blocks, groups=train.groups or None)
    _give_classifier_(network, found, task)
    notes = {"left_out_top1": found.left_out_top1}
    return Outcome(method="prototype", model=network.eval(), config=config, notes=notes)


def finetune_all(task: Task) -> Outcome:
    """Train all layers, the classifier starting from the probe."""
    return _finetuned(task, probe(task))


def finetune_or_probe(task: Task) -> Outcome:
    """`finetune_all`, or the probe that it started from, where that answers more validation images rightly."""
    started = probe(task)
    outcome = _finetuned(task, started)
    if task.pixels.val is None:
        task.tell(
            "finetune: without validation images nothing says whether it is better than the probe that it started "
            "from; give some with --val"
        )
        return outcome
    with main_first():
        before, after = (each.evaluate(task.pixels.val, task.progress).top1 for each in (started, outcome))
    notes = {"val_top1": {"probe": round(before, 6), "finetune": round(after, 6)}}
    if not from_main(lambda: after < before):
        return replace(outcome, notes={**outcome.notes, **notes})
    task.tell(
        f"finetune: {after:.1%} on validation images, the probe that it started from {before:.1%}: the probe is kept; "
        "more --epochs, a tenth of --lr or a larger --size may help"
    )
    return replace(started, history=outcome.history, notes={**started.notes, **notes, "finetune": outcome.notes})


def _finetuned(task: Task, started: Outcome) -> Outcome:
    outcome = _train(replace(task, config=started.config), started.model, "finetune")
    return replace(outcome, notes={**outcome.notes, "probe": started.notes})


def scratch(task: Task) -> Outcome:
    """Train all layers from random weights."""
    return _train(task, task.network, "scratch")


METHODS: dict[Method, Callable[[Task], Outcome]] = {
    "prototype": prototype,
    "probe": probe,
    "finetune": finetune_or_probe,
    "scratch": scratch,
}


def _give_classifier_(network: nn.Module, found: LinearClassifier, task: Task) -> None:
    set_classifier_(network, found)
    head = classifier(network)
    if isinstance(head, nn.Conv2d) and head.bias is not None:
        lift_classifier_(network, task.pixels.train, task.config.preprocess)


def _train(task: Task, network: nn.Module, method: Trains) -> Outcome:
    data = task.training_data
    copy_from_main_(network)
    recipe, notes = planned(
        network,
        data,
        task.recipe(method),
        checkpoints=task.checkpoints,
        deadline=task.deadline,
        find_lr=task.find_lr,
        probe_initialized=method == "finetune",
        progress=task.progress,
        tell=task.tell,
    )
    trained = finetune(network, data, recipe, checkpoints=task.checkpoints, progress=task.progress, title=method)
    notes |= {"recipe": recipe.to_dict()}
    return Outcome(method=method, model=trained.model, config=task.config, history=trained.history, notes=notes)


def tapped(network: nn.Module, config: ModelConfig, *, taps: bool = True) -> tuple[nn.Module, ModelConfig]:
    """A copy with a classifier that sees more of its depths, where it ends in a linear layer, and its config.

    A network that does more with its logits than return them (VOLO adds those of an auxiliary head) stays as it is, and
    so does a module of a user's.
    """
    own, example = copy.deepcopy(network), torch.zeros(1, *config.input_size)
    if not taps or is_users(config.architecture) or not isinstance(classifier(own), nn.Linear):
        return own, config
    places = tap(own, example)
    if not places:
        return own, config
    seeing = Tapped(own, places)
    try:
        with torch.no_grad():
            seeing.eval()(example)
    except RuntimeError:
        return copy.deepcopy(network), config
    return seeing, replace(config, model_args={**config.model_args, "taps": places})
