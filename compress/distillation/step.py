"""`distill`: a student, any model, learns from a teacher's answers on the data of the teacher's fit."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from compress.distillation.settings import Distill
from compress.recovery.distillation import Distillation
from compress.recovery.masks import attach_masks_, detach_masks_, hold_zeros
from compress.recovery.teacher import Translation, train_student
from compress.recovery.unlabeled import joining
from compress.sparsity.lineage import is_sparse
from compress.step import Made, Start, Work, as_judged, judge_of, load_editable, run_step
from compress.verbs import DISTILL
from transfer.data.fitted_data import open_for, reopen
from transfer.data.parts import read_pixels
from transfer.data.sources import Data
from transfer.data.split import TRAIN, VAL
from transfer.evaluation.measure import measure, predictor_of
from transfer.evaluation.metrics import Metrics
from transfer.fitting.recipe import recipe_for
from transfer.fitting.settings import Method
from transfer.fitting.start import check, start
from transfer.result import ModelResult
from transfer.training.finetune import Finetuned, TrainingData
from transfer.training.recipe import Recipe
from zoo.call import Call, takes
from zoo.errors import UsageError
from zoo.files.model_directory import LoadedModel, ModelConfig, is_model_directory, load_model, read_config
from zoo.pretrained.weights import WEIGHTS
from zoo.progress import Progress

ADVICE = "more --epochs, or a larger student"


@dataclass(frozen=True, kw_only=True)
class DistilledStep(ModelResult):
    def lines(self) -> list[str]:
        teacher, after = self.record["teacher"], self.record["metrics"]["after"]
        shares = [after[key] / teacher[key] for key in ("macs", "params")]
        return [
            f"teacher: {Metrics.of(teacher)}",
            f"student: {self.after}",
            f"{self.name}: {shares[0]:.1%} of its teacher's MACs, {shares[1]:.1%} of the parameters",
        ]

    def next(self) -> list[list[str | Path]]:
        teacher = self.record["arguments"]["teacher"]
        return [["slimzoo", "export", self.name], ["slimzoo", "bench", teacher, self.name]]


@takes(DISTILL)
def distill(student: str | Path | LoadedModel, settings: Distill, call: Call) -> DistilledStep:
    """Train a student on labels and on a teacher's answers, and write it to `out`.

    Args:
        student: a model directory of the same classes, or the name of a model, which starts from its pretrained weights
            where it has some and from random ones otherwise.
        settings: see `Distill` and `Distillation`.
        call: `data` are what the teacher was fitted to; trained on are the images that it was trained on.

    Raises:
        UsageError: other classes, an int8 model, a student fitted on another split of the data.
        SlimzooError: see `finetune`.
    """
    run, data = call.run(), call.data
    master = load_model(settings.teacher, judge=True)
    _check_student(student, settings.size, master.config)
    source = open_for(master.config, data)
    if judge_of(master, source) is None:
        source = source.whole() if source.refit else source
    torch.manual_seed(settings.seed)
    pupil, trained_before = _student(student, data, source, settings.size, call.progress)
    Translation(pupil.config.preprocess, master.config.preprocess)
    fitted = _is_trained(student)

    def work(at: Work) -> Made:
        assert at.pixels is not None
        assert at.start.source is not None
        teacher = as_judged(master, at.start.source)
        recipe = recipe_for(
            at.model,
            at.pixels,
            at.config,
            "finetune" if trained_before else "scratch",
            mirror=source.mirror,
            epochs=settings.epochs if at.judged is None else at.judged.decided,
            seed=settings.seed,
        )
        trained = _taught(at, replace(recipe, patience=settings.patience), teacher, settings)
        alike = at.config.preprocess == teacher.config.preprocess
        seen = at.pixels if alike else read_pixels(at.start.source, teacher.config.preprocess, at.progress)
        its = measure(predictor_of(teacher.model, teacher.config), teacher.model, teacher.config, seen, at.progress)
        its |= {} if at.judged is None else {VAL: at.judged.notes["teacher"][VAL]}
        than = None if fitted else (its, "by its teacher")
        return Made(
            trained.model, notes={"teacher": its, "recipe": recipe.to_dict()}, than=than, decided=trained.epochs
        )

    begun = Start(pupil, source, measured=fitted)
    if settings.unlabeled is not None:
        teacher = as_judged(master, source)
        more = joining(settings.unlabeled, source, teacher, seed=settings.seed, progress=call.progress)
        begun = replace(begun, more=more)
    return run_step(run, begun, work, DistilledStep, advice=ADVICE, progress=call.progress)


def _taught(at: Work, recipe: Recipe, master: LoadedModel, how: Distillation) -> Finetuned:
    """The training of a copy of the student, whose zeros stay zeros."""
    assert at.pixels is not None
    sparse = is_sparse(at.config.lineage)
    if sparse:
        attach_masks_(at.model)
    trained = train_student(
        at.model,
        TrainingData(at.pixels.train, at.pixels.val, at.config.preprocess),
        recipe,
        teacher=master.model,
        seen_by_teacher=master.config.preprocess,
        how=how,
        after_step=hold_zeros if sparse else None,
        checkpoints=at.checkpoints,
        progress=at.progress,
    )
    detach_masks_(trained.model)
    return trained


def _is_trained(student: str | Path | LoadedModel) -> bool:
    """Whether it comes with weights of its own, and is no name."""
    return isinstance(student, LoadedModel) or is_model_directory(Path(student))


def _check_student(student: str | Path | LoadedModel, size: int | None, teacher: ModelConfig) -> None:
    """Refuse, before any image is read, a student that is not for these classes or not of this size."""
    if not isinstance(student, LoadedModel) and not _is_trained(student):
        check_name(str(student), size)
        return
    config = student.config if isinstance(student, LoadedModel) else read_config(Path(student))
    classes = config.classes or ()
    if classes != teacher.classes:
        raise UsageError(
            f"{student} has the classes {', '.join(classes[:4])}, its teacher "
            f"{', '.join((teacher.classes or ())[:4])}: both must be fitted to the same data"
        )
    if size is not None:
        raise UsageError(f"--size {size}: {student} has its own; leave it out, or name a model to start from")


def check_name(student: str, size: int | None = None) -> None:
    """Refuse a student that is a name, before anything is fetched.

    Raises:
        UsageError: see `transfer.fitting.start.check`.
    """
    check(student, _method(student), size)


def untaught(student: str, source: Data, size: int | None = None, progress: Progress | None = None) -> LoadedModel:
    """A student that is a name, as it begins: with pretrained weights where it has some."""
    return LoadedModel(*start(student, source, _method(student), size, progress))


def _method(student: str | Path) -> Method:
    """How a student that is a name starts."""
    return "finetune" if ":" in str(student) or str(student) in WEIGHTS else "scratch"


def _student(
    student: str | Path | LoadedModel,
    data: str | Path | Data,
    source: Data,
    size: int | None,
    progress: Progress | None,
) -> tuple[LoadedModel, bool]:
    """The model to train, and whether it has learned something already."""
    if not isinstance(student, LoadedModel) and not _is_trained(student):
        return untaught(str(student), source, size, progress), _method(student) == "finetune"
    loaded = load_editable(student, "distill")
    if _judged_by_its_own(loaded.config, data, source):
        raise UsageError(
            f"{student} was fitted to another split of {data} than its teacher, so that images it was trained "
            "on would judge it: fit it again with the teacher's --val, --test and --seed"
        )
    return loaded, True


def _judged_by_its_own(student: ModelConfig, data: str | Path | Data, source: Data) -> bool:
    """Whether held-out images of the teacher's are among those that the student was trained on."""
    if student.seen is not None:
        held_out = np.flatnonzero(source.parts != TRAIN).tolist()
        own = set(source.hashes[i] for i in source.indices(TRAIN))  # a copy in two parts is the data's way
        return any(student.seen.part_of(source.hashes[i]) == TRAIN and source.hashes[i] not in own for i in held_out)
    again = None if isinstance(data, Data) else reopen(student.lineage, data)
    return again is not None and again.fingerprint() != source.fingerprint()
