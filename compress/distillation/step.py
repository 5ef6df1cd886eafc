"""`slimzoo distill`: a student, any model, learns from a teacher's answers on the data of the teacher's fit."""

from __future__ import annotations

import time
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import nn

from compress.recovery.distillation import Distillation
from compress.recovery.masks import attach_masks_, detach_masks_, hold_zeros
from compress.recovery.teacher import Translation, train_student
from compress.sparsity.step import is_sparse
from compress.step import Step, large_loss
from transfer.data.dataset import located, open_for, reopen
from transfer.data.parts import read_pixels, seen_in
from transfer.data.sources import Data
from transfer.data.split import TRAIN
from transfer.evaluation.measure import measure, metrics, predictor_of
from transfer.fitting.start import Method, check, start
from transfer.fitting.step import recipe_for
from transfer.training.finetune import TrainingData
from transfer.training.recipe import Recipe
from zoo import lineage
from zoo.errors import UsageError
from zoo.files.directory import check_free, new_directory
from zoo.files.manifest import CHECKPOINTS
from zoo.files.model_directory import ModelConfig, is_model_directory, load_model, read_config, save_model
from zoo.files.rehearsal import rehearse
from zoo.pretrained.weights import WEIGHTS
from zoo.progress import Progress

ADVICE = "more --epochs, or a larger student"


def distill(
    student: str | Path,
    *,
    teacher: str | Path,
    data: str | Path,
    out: str | Path,
    epochs: int | None = None,
    size: int | None = None,
    temperature: float = Distillation.temperature,
    weight: float = Distillation.weight,
    features: float = 0.0,
    patience: int = 0,
    seed: int = 0,
    overwrite: bool = False,
    resume: bool = False,
    progress: Progress | None = None,
) -> Step:
    """Train a student on labels and on a teacher's answers, and write it to `out`.

    Args:
        student: a model directory of the same classes, or the name of a model, which starts from its pretrained weights
            where it has some and from random ones otherwise.
        teacher: a model directory.
        data: what the teacher was fitted to; trained on are the images that it was trained on.
        epochs: by default those of the recipe for so many images.
        size: side of the student's input, where it is a name; by default as `fit` chooses it.
        temperature, weight, features: see `Distillation`.
        patience: see `Recipe`.

    Raises:
        UsageError: other classes, an int8 model, a student fitted on another split of the data.
        SlimzooError: see `finetune`.
    """
    out, how = Path(out), Distillation(temperature=temperature, weight=weight, features=features)
    check_free(out, overwrite=overwrite, resume=resume)
    Recipe(epochs=0 if epochs is None else epochs, patience=patience, seed=seed)
    arguments = {
        "student": located(student), "teacher": located(teacher), "data": located(data), "out": str(out),
        "epochs": epochs, "size": size, **vars(how), "patience": patience, "seed": seed,
    }  # fmt: skip
    began = time.monotonic()
    master = load_model(teacher)
    _check_student(student, size, master.config)
    source = open_for(master.config, data)
    torch.manual_seed(seed)
    network, config, trained_before = _student(student, data, source, size, progress)
    Translation(config.preprocess, master.config.preprocess)
    record = partial(lineage.step, "distill", arguments, seed=seed, data=source.record())
    with new_directory(
        out, run={"verb": "distill", "arguments": arguments}, overwrite=overwrite, resume=resume
    ) as work:
        rehearse(work, network, config, record(seconds=0.0, after=metrics(network, config, {})))
        pixels = read_pixels(source, config.preprocess, progress)
        seen = pixels if config.preprocess == master.config.preprocess else read_pixels(
            source, master.config.preprocess, progress
        )  # fmt: skip
        recipe = recipe_for(
            network, pixels, config, "finetune" if trained_before else "scratch", mirror=source.mirror, epochs=epochs,
            seed=seed,
        )  # fmt: skip
        recipe = replace(recipe, patience=patience)
        before = (
            measure(predictor_of(network, config), network, config, pixels, progress)
            if is_model_directory(Path(student))
            else None
        )
        sparse = is_sparse(config.lineage)
        if sparse:
            attach_masks_(network)
        found = train_student(
            network, TrainingData(pixels.train, pixels.val, config.preprocess), recipe, teacher=master.model,
            seen_by_teacher=master.config.preprocess, how=how, after_step=hold_zeros if sparse else None,
            checkpoints=work / CHECKPOINTS, progress=progress,
        )  # fmt: skip
        detach_masks_(found.model)
        its = measure(predictor_of(master.model, master.config), master.model, master.config, seen, progress)
        after = measure(predictor_of(found.model, config), found.model, config, pixels, progress)
        done = record(
            seconds=time.monotonic() - began, before=before, after=after, teacher=its, recipe=recipe.to_dict(),
            large_loss=large_loss(before or its, after, ADVICE, than="before" if before else "by its teacher"),
        )  # fmt: skip
        config = save_model(work, found.model, config.with_step(done, seen_in(source, pixels)))
    return Step(out, config, done)


def _check_student(student: str | Path, size: int | None, teacher: ModelConfig) -> None:
    """Refuse, before any image is read, a student that is not for these classes or not of this size."""
    if not is_model_directory(Path(student)):
        check(str(student), _method(student), size)
        return
    classes = read_config(Path(student)).classes or ()
    if classes != teacher.classes:
        raise UsageError(
            f"{student} has the classes {', '.join(classes[:4])}, its teacher "
            f"{', '.join((teacher.classes or ())[:4])}: both must be fitted to the same data"
        )
    if size is not None:
        raise UsageError(f"--size {size}: {student} has its own; leave it out, or name a model to start from")


def _method(student: str | Path) -> Method:
    """How a student that is a name starts."""
    return "finetune" if ":" in str(student) or str(student) in WEIGHTS else "scratch"


def _student(
    student: str | Path, data: str | Path, source: Data, size: int | None, progress: Progress | None
) -> tuple[nn.Module, ModelConfig, bool]:
    """The network to train, its config, and whether it has learned something already."""
    if not is_model_directory(Path(student)):
        network, config = start(str(student), source, _method(student), size, progress)
        return network, config, _method(student) == "finetune"
    loaded = load_model(student)
    if _judged_by_its_own(loaded.config, data, source):
        raise UsageError(
            f"{student} was fitted to another split of {data} than its teacher, so that images it was trained on would "
            "judge it: fit it again with the teacher's --val, --test and --seed"
        )
    return loaded.model, loaded.config, True


def _judged_by_its_own(student: ModelConfig, data: str | Path, source: Data) -> bool:
    """Whether held-out images of the teacher's are among those that the student was trained on."""
    if student.seen is not None:
        held_out = np.flatnonzero(source.parts != TRAIN).tolist()
        own = set(source.hashes[i] for i in source.indices(TRAIN))  # a copy in two parts is the data's way
        return any(student.seen.part_of(source.hashes[i]) == TRAIN and source.hashes[i] not in own for i in held_out)
    again = reopen(student.lineage, data)
    return again is not None and again.fingerprint() != source.fingerprint()
