"""What a student loses against its teacher: logits softened by a temperature, and which images look alike to it."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from compress.recovery.distillation import Distillation
from transfer.device import training_device
from transfer.training.finetune import AfterStep, Finetuned, TrainingData, finetune
from transfer.training.recipe import Recipe
from transfer.training.step import LossFn, smoothed_cross_entropy
from zoo.classifier import classifier
from zoo.errors import UsageError
from zoo.folding import folded
from zoo.layout import layout_of
from zoo.preprocess import Preprocess
from zoo.progress import Progress


def train_student(
    student: nn.Module,
    data: TrainingData,
    recipe: Recipe,
    *,
    teacher: nn.Module,
    seen_by_teacher: Preprocess,
    how: Distillation,
    after_step: AfterStep | None = None,
    checkpoints: Path | None = None,
    progress: Progress | None = None,
    title: str = "distillation",
) -> Finetuned:
    """`finetune` a copy of the student on the labels and on the teacher's answers; both models are left alone.

    Teacher and student see the same augmented and mixed images (Beyer et al. 2022, arXiv 2106.05237, sec. 3.1), each at
    its own size and in its own normalization.

    Raises:
        UsageError: one of the two sees colours and the other does not.
        see `finetune`.
    """
    translate = Translation(data.preprocess, seen_by_teacher)
    with _distilling(student, teacher, how, recipe.label_smoothing, translate) as (loss_fn, hook):
        found = finetune(
            student,
            data,
            recipe,
            loss_fn=loss_fn,
            after_step=after_step,
            checkpoints=checkpoints,
            progress=progress,
            title=title,
        )
        classifier(found.model)._forward_pre_hooks.pop(hook)  # it was copied with the student
    return found


@contextmanager
def _distilling(
    student: nn.Module, teacher: nn.Module, how: Distillation, label_smoothing: float, translate: Translation
) -> Iterator[tuple[LossFn, int]]:
    """The loss, and the number of the hook that the student's classifier has within."""
    master = _Answers(teacher)
    on_labels = smoothed_cross_entropy(label_smoothing)
    students, teachers = _Watch(), _Watch()
    handle = classifier(student).register_forward_pre_hook(students)
    classifier(master.model).register_forward_pre_hook(teachers)

    def loss_fn(logits: Tensor, targets: Tensor, inputs: Tensor) -> Tensor:
        features = students.seen
        wanted = master(translate(inputs))
        loss = _mixed(on_labels(logits, targets, inputs), logits, wanted, how)
        if how.features:
            assert features is not None
            assert teachers.seen is not None
            loss = loss + how.features * similarity_loss(features.float(), teachers.seen.float())
        return loss

    try:
        yield loss_fn, handle.id
    finally:
        handle.remove()
        students.seen = teachers.seen = None


def taught_by(teacher: nn.Module, how: Distillation | None = None) -> LossFn:
    """The loss on labels and logits alone, for a student that is its teacher with zeros or shared values.

    The teacher is copied, and sees the very inputs that the student sees; labels are not smoothed.
    """
    master, how = _Answers(teacher), how or Distillation()

    def loss_fn(logits: Tensor, targets: Tensor, inputs: Tensor) -> Tensor:
        return _mixed(F.cross_entropy(logits, targets), logits, master(inputs), how)

    return loss_fn


def _mixed(on_labels: Tensor, logits: Tensor, wanted: Tensor, how: Distillation) -> Tensor:
    return (1 - how.weight) * on_labels + how.weight * softened_divergence(logits, wanted, how.temperature)


class _Answers:
    """Those of a copy in eval mode, on the device of training; a CPU has BatchNorm folded from the first images on."""

    def __init__(self, teacher: nn.Module) -> None:
        self.model = copy.deepcopy(teacher).to(training_device()).to(memory_format=layout_of(teacher)).eval()
        self._folded = False

    @torch.no_grad()
    def __call__(self, inputs: Tensor) -> Tensor:
        if not self._folded and inputs.device.type == "cpu":
            self.model, self._folded = folded(self.model, inputs[:2]), True
        logits: Tensor = self.model(inputs)
        return logits.float()


def softened_divergence(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """T^2 times the mean KL divergence of the student's softened answers from the teacher's.

    Args:
        student, teacher: (B, K) logits.
    """
    ours, theirs = (F.log_softmax(logits / temperature, dim=1) for logits in (student, teacher))
    return temperature**2 * F.kl_div(ours, theirs, reduction="batchmean", log_target=True)


def similarity_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """Mean squared difference of the two's similarities of each image with the others (Tung and Mori 2019, eq. 4).

    Args:
        student, teacher: (B, F) features of the same images, of any two widths.
    """
    ours, theirs = (F.normalize(features @ features.T, dim=1) for features in (student, teacher))
    return (ours - theirs).square().mean()


class Translation:
    """The student's inputs as the teacher would have had them."""

    def __init__(self, student: Preprocess, teacher: Preprocess) -> None:
        if student.channels != teacher.channels:
            raise UsageError(
                f"the student sees {student.channels} channels and the teacher {teacher.channels}: both must see "
                "colours, or neither"
            )
        self._same = (student.mean, student.std) == (teacher.mean, teacher.std)
        # x * std_s + mean_s is a pixel in 0..1
        self._scale = [ours / theirs for ours, theirs in zip(student.std, teacher.std, strict=True)]
        means = zip(student.mean, teacher.mean, teacher.std, strict=True)
        self._offset = [(ours - theirs) / std for ours, theirs, std in means]
        self._size = teacher.size

    def __call__(self, inputs: Tensor) -> Tensor:
        """(B, C, H, W) to (B, C, H', W')."""
        if not self._same:
            scale, offset = (inputs.new_tensor(values).view(1, -1, 1, 1) for values in (self._scale, self._offset))
            inputs = inputs * scale + offset
        if tuple(inputs.shape[2:]) != self._size:
            inputs = F.interpolate(inputs, self._size, mode="bilinear", align_corners=False, antialias=True)
        return inputs


class _Watch:
    """A hook that keeps (B, F) what last entered a classifier; `finetune`'s copy of the model reports here too."""

    def __init__(self) -> None:
        self.seen: Tensor | None = None

    def __call__(self, module: nn.Module, args: tuple[Any, ...]) -> None:
        entered = args[0]
        self.seen = entered.mean(dim=(2, 3)) if entered.ndim == 4 else entered

    def __deepcopy__(self, memo: dict[int, Any]) -> _Watch:
        return self
