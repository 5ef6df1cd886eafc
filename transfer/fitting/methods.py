"""The methods of a fit: from a pretrained (or fresh) network and pixels to a trained model.

Each is a function of one Task and leaves the task's network alone, so that `auto` can try one after the other.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import nn

from transfer.data.dataset import FEW_IMAGES
from transfer.fitting.plan import planned
from transfer.fitting.settings import Method
from transfer.fitting.tail import passes_of, train_tail
from transfer.fitting.task import Outcome, Task, Trains, Unseen, calibrated_loss
from transfer.frozen.features import frozen_features
from transfer.frozen.probe import LinearClassifier, fit_probe, folds_of, lift_classifier_, set_classifier_
from transfer.frozen.prototype import fit_prototype
from transfer.training.distributed import copy_from_main_, from_main, main_first
from transfer.training.finetune import finetune
from transfer.training.trunk import Trunk, split
from zoo.classifier import classifier
from zoo.cost import count_macs
from zoo.files.model_directory import ModelConfig
from zoo.models.registry import is_users
from zoo.models.tapped import Tapped, tap

SHARES = (0.5, 0.75, 1.0)  # of the way from the probe to what was trained; validation images choose
# Multiply-accumulates of a training of all layers, up to which few images train them all: EfficientNet-Lite0 on
# 65 batches of 32 images of 144 px; forward, and twice as many back.
WHOLE_MACS, PASSES = 1e12, 3


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
    return Outcome(
        method="probe",
        model=network.eval(),
        config=config,
        notes=notes,
        unseen=Unseen(found.out_of_fold, found.out_of_fold_loss, folds_of(len(train))),
    )


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
    return Outcome(
        method="prototype",
        model=network.eval(),
        config=config,
        notes=notes,
        unseen=Unseen(found.left_out, found.left_out_loss, len(found.left_out)),
    )


def finetune_all(task: Task) -> Outcome:
    """Train all layers, or those that so few images can teach, the classifier starting from the probe."""
    return _finetuned(task, probe(task))


def finetune_or_probe(task: Task) -> Outcome:
    """`finetune_all`, or the probe that it started from, where that has less loss on the validation images."""
    started = probe(task)
    outcome = _finetuned(task, started)
    if task.pixels.val is None:
        task.tell(
            "finetune: without validation images nothing says whether it is better than the probe that it started "
            "from; give some with --val"
        )
        return outcome
    with main_first():
        found = [each.evaluate(task.pixels.val, task.progress) for each in (started, outcome)]
        losses = [calibrated_loss(each) for each in found]
    before, after = (each.top1 for each in found)
    notes = {"val_top1": {"probe": round(before, 6), "finetune": round(after, 6)}}
    if not from_main(lambda: losses[1] > losses[0]):
        return replace(outcome, notes={**outcome.notes, **notes})
    task.tell(
        f"finetune: {after:.1%} on validation images, loss {losses[1]:.3f}, the probe that it started from "
        f"{before:.1%}, {losses[0]:.3f}: the probe is kept; more --epochs, a tenth of --lr or a larger --size may help"
    )
    return replace(started, history=outcome.history, notes={**started.notes, **notes, "finetune": outcome.notes})


def _finetuned(task: Task, started: Outcome) -> Outcome:
    own = replace(task, config=started.config)
    trunk = _trunk(own, started.model)
    outcome = _train(own, started.model, "finetune") if trunk is None else _train_tail(own, trunk)
    outcome = replace(
        outcome, start=started.model, unseen=started.unseen, notes={**outcome.notes, "probe": started.notes}
    )
    if task.pixels.val is None:
        return outcome
    val = task.pixels.val
    with main_first():
        averages = [outcome.averaged(share) for share in SHARES]
        losses = [calibrated_loss(each.evaluate(val, task.progress)) for each in averages]
    return averages[from_main(lambda: int(np.argmin(losses)))]


def scratch(task: Task) -> Outcome:
    """Train all layers from random weights."""
    return _train(task, task.network, "scratch")


METHODS: dict[Method, Callable[[Task], Outcome]] = {
    "prototype": prototype,
    "probe": probe,
    "finetune": finetune_or_probe,
    "scratch": scratch,
}
PLAIN = {**METHODS, "finetune": finetune_all}  # where the caller compares it with the probe


def _give_classifier_(network: nn.Module, found: LinearClassifier, task: Task) -> None:
    set_classifier_(network, found)
    head = classifier(network)
    if isinstance(head, nn.Conv2d) and head.bias is not None:
        lift_classifier_(network, task.pixels.train, task.config.preprocess)


def _train(task: Task, network: nn.Module, method: Trains) -> Outcome:
    data = task.training_data
    copy_from_main_(network)
    recipe, notes = task.decided, dict[str, Any]()
    if recipe is None:
        recipe, notes = planned(
            network,
            data,
            task.recipe(method),
            checkpoints=task.checkpoints,
            deadline=task.deadline,
            find_lr=task.find_lr,
            begins="probe" if method == "finetune" else "fresh",
            progress=task.progress,
            tell=task.tell,
        )
    trained = finetune(network, data, recipe, checkpoints=task.checkpoints, progress=task.progress, title=method)
    notes |= {"recipe": recipe.to_dict()}
    return Outcome(
        method=method,
        model=trained.model,
        config=task.config,
        history=trained.history,
        notes=notes,
        recipe=replace(recipe, epochs=trained.epochs),
    )


def _trunk(task: Task, network: nn.Module) -> Trunk | None:
    """Where training all layers on few images takes long, and the network has a tail that can be trained alone."""
    recipe, count = task.recipe("finetune") if task.decided is None else task.decided, len(task.pixels.train)
    if count > FEW_IMAGES or recipe.frozen_stages or recipe.cutmix or not recipe.epochs:
        return None
    if task.tail is False:
        return None
    if task.tail is None and PASSES * recipe.epochs * count * count_macs(network, task.config.input_size) <= WHOLE_MACS:
        return None
    return split(
        network.eval(), torch.zeros(1, *task.config.input_size).normal_(generator=torch.Generator().manual_seed(0))
    )


def _train_tail(task: Task, trunk: Trunk) -> Outcome:
    recipe = task.decided
    if recipe is None:
        recipe = task.recipe("finetune")
        recipe = recipe if task.asked else passes_of(recipe, len(task.pixels.train))
    model, trained, recipe, notes = train_tail(
        trunk,
        task.training_data,
        recipe,
        task.views,
        decided=task.decided is not None,
        checkpoints=task.checkpoints,
        deadline=task.deadline,
        find_lr=task.find_lr,
        begins="probe",
        progress=task.progress,
        tell=task.tell,
    )
    return Outcome(
        method="finetune", model=model, config=task.config, history=trained.history, notes=notes, recipe=recipe
    )


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
