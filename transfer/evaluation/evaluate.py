"""What a model's answers on labelled images are worth."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import softmax
from torch import nn

from transfer.data.loader import LabelledPixels
from transfer.data.sources import Data
from transfer.evaluation.calibration import Bin, calibration_error, negative_log_likelihood, reliability
from transfer.evaluation.images import Met, measured_images
from transfer.evaluation.statistics import mean_share, wilson
from zoo.errors import DataError, SlimzooError, UsageError
from zoo.files.adopt import path_of
from zoo.files.judge import JUDGE
from zoo.files.model_directory import (
    CODED,
    ELSEWHERE,
    ONNX,
    LoadedModel,
    ModelConfig,
    is_model_directory,
    is_own_directory,
    load_model,
    read_config,
)
from zoo.files.predictor import BATCH, OnnxPredictor, Predictor, TorchPredictor, open_predictor
from zoo.progress import Progress

TOP = 5  # the second figure that ImageNet's results are given in (Russakovsky et al. 2015, arXiv 1409.0575, sec. 4.1)


@dataclass(frozen=True)
class ClassScore:
    """What became of the images of one class.

    Attributes:
        n: how many they are; where there are none, the next two are None.
        recall: the share of them that was recognized.
        ci: its 95% Wilson interval.
    """

    name: str
    n: int
    recall: float | None
    ci: tuple[float, float] | None


@dataclass(frozen=True)
class Evaluation:
    """A model's answers to n images, and what they are worth. Shares are in 0..1, intervals are 95% ones.

    Attributes:
        labels: (n,) class indices.
        logits: (n, K); the answer is the class of the largest.
    """

    labels: NDArray[np.int64]
    logits: NDArray[np.float32]

    @cached_property
    def predictions(self) -> NDArray[np.int64]:
        """(n,) class indices."""
        return np.asarray(self.logits.argmax(axis=1))

    @cached_property
    def probabilities(self) -> NDArray[np.float64]:
        """(n, K), by softmax."""
        return np.asarray(softmax(self.logits.astype(np.float64), axis=1))

    @cached_property
    def confidences(self) -> NDArray[np.float64]:
        """(n,) the probability of each answer."""
        return np.asarray(self.probabilities[np.arange(self.n), self.predictions])

    @cached_property
    def confusion(self) -> NDArray[np.int64]:
        """(K, K) counts, rows true classes, columns predicted ones."""
        classes = self.logits.shape[1]
        counts = np.bincount(self.labels * classes + self.predictions, minlength=classes**2)
        return counts.reshape(classes, classes)

    @property
    def n(self) -> int:
        return len(self.labels)

    @property
    def correct(self) -> NDArray[np.bool_]:
        return np.equal(self.labels, self.predictions)

    @property
    def top1(self) -> float:
        return float(self.correct.mean())

    @property
    def top1_ci(self) -> tuple[float, float]:
        """Wilson's."""
        return wilson(int(self.correct.sum()), self.n)

    @property
    def top5(self) -> float | None:
        """The share of images whose class is among the five largest logits; None of five classes or fewer."""
        return None if self.logits.shape[1] <= TOP else float(self._in_top.mean())

    @property
    def top5_ci(self) -> tuple[float, float] | None:
        """Wilson's."""
        return None if self.top5 is None else wilson(int(self._in_top.sum()), self.n)

    @property
    def balanced(self) -> float:
        """The mean recall of the classes that have images: each class counts the same, however few its images."""
        return self._mean_recall[0]

    @property
    def balanced_ci(self) -> tuple[float, float]:
        """See `mean_share`; for these classes, the images being the sample."""
        return self._mean_recall[1]

    @property
    def ece(self) -> float:
        """Expected calibration error."""
        return calibration_error(self.confidences, self.correct)

    @property
    def nll(self) -> float:
        """Mean negative log-likelihood of the true class, in nats."""
        return negative_log_likelihood(self.logits, self.labels)

    def reliability(self) -> tuple[Bin, ...]:
        """The reliability table."""
        return reliability(self.confidences, self.correct)

    def per_class(self, classes: Sequence[str]) -> tuple[ClassScore, ...]:
        """Each class in order, named by `classes`."""
        totals, right = self.confusion.sum(axis=1).tolist(), self.confusion.diagonal().tolist()
        return tuple(
            ClassScore(name, n, correct / n, wilson(correct, n)) if n else ClassScore(name, 0, None, None)
            for name, n, correct in zip(classes, totals, right, strict=True)
        )

    def record(self) -> dict[str, Any]:
        """What a lineage record keeps; `correct`, one character an image, allows paired comparisons later.

        `by_class` says of each class how many of how many are right.
        """
        return {
            "top1": rounded(self.top1),
            "top1_ci": rounded(self.top1_ci),
            "n": self.n,
            "top5": rounded(self.top5),
            "top5_ci": rounded(self.top5_ci),
            "balanced": rounded(self.balanced),
            "balanced_ci": rounded(self.balanced_ci),
            "ece": rounded(self.ece),
            "nll": rounded(self.nll),
            "correct": "".join("1" if right else "0" for right in self.correct),
            "by_class": np.stack([self.confusion.diagonal(), self.confusion.sum(axis=1)], axis=1).tolist(),
        }

    @cached_property
    def _mean_recall(self) -> tuple[float, tuple[float, float]]:
        return mean_share(self.confusion.diagonal(), self.confusion.sum(axis=1))

    @cached_property
    def _in_top(self) -> NDArray[np.bool_]:
        """(n,) whether fewer than five classes come before the true one; of equal logits the first comes first."""
        own = self.logits[np.arange(self.n), self.labels][:, None]
        earlier = np.arange(self.logits.shape[1]) < self.labels[:, None]
        before = (self.logits > own) | ((self.logits == own) & earlier)
        return np.asarray(before.sum(axis=1) < TOP)


def rounded(value: float | Sequence[float] | None) -> float | list[float] | None:
    """Round for JSON: six digits after the point, an interval as a list."""
    if value is None or isinstance(value, float):
        return None if value is None else round(value, 6)
    return [round(bound, 6) for bound in value]


@dataclass(frozen=True)
class Evaluated:
    """An evaluation and what it was made on.

    Attributes:
        part: of `data`: "test", "val", "all", or "held out" of the images that were at first, by the model's judge.
        pixels: the images of that part as the network saw them.
        left_out, included: see `transfer.evaluation.images`.
    """

    evaluation: Evaluation
    data: Data
    part: str
    pixels: LabelledPixels
    left_out: Met | None = None
    included: Met | None = None


def evaluate_pixels(
    predictor: Predictor, data: LabelledPixels, classes: int, *, progress: Progress | None = None
) -> Evaluation:
    """Run the model over all images of `data`.

    Raises:
        SlimzooError: logits that are not finite numbers.
    """
    logits = np.empty((len(data), classes), dtype=np.float32)
    for start in range(0, len(data), BATCH):
        logits[start : start + BATCH] = predictor.logits(data.pixels[start : start + BATCH])
        if progress is not None:
            progress("evaluating", min(start + BATCH, len(data)), len(data), "")
    lost = int((~np.isfinite(logits)).any(axis=1).sum())
    if lost:
        raise SlimzooError(
            f"the model answers {lost} of {len(data)} images with numbers that are not finite: its training diverged, "
            "or its precision is too low; go back to the model before, or train it again with a tenth of --lr"
        )
    return Evaluation(data.labels, logits)


def evaluate(
    source: str | Path | LoadedModel,
    data: str | Path | Data,
    *,
    layout: str = "auto",
    known_only: bool = False,
    all: bool = False,  # as the option is called
    progress: Progress | None = None,
) -> Evaluated:
    """`slimzoo eval`: a model directory, exported ONNX file or model in memory on labelled images.

    On the data that the model was fitted to, its own test part is used. Of other data, whatever file or folder holds
    them now, the images that it was trained on or chosen by are left out. Where only those remain that it was chosen
    by, the validation images, they are used; where it was trained on those too in the end, its judge, which was not,
    answers them (zoo/files/judge.py).

    Args:
        all: measure on every image instead.
        layout: of other data; see `transfer.data.layout`.
        known_only: of other data, leave out the images of classes that the model does not know.

    Raises:
        UsageError: the model's classes are not known.
        DataError: the model was trained on all of these images.
    """
    if not isinstance(data, str | Path | Data):
        raise UsageError(
            f"data: a {type(data).__name__}, and a path or a name is wanted; slimzoo.from_arrays makes data"
        )
    onnx = getattr(source, "onnx", None)  # of a result that is no network of torch's
    predictor = open_predictor(path_of(source)) if onnx is None else OnnxPredictor(onnx.SerializeToString())
    if predictor.classes is None:
        raise UsageError(
            f"{source} has no class names, so its answers cannot be compared with labels; `slimzoo fit` "
            "first, or name them with --classes FILE where it is timm's or weights"
        )
    config = _past(Path(source), predictor) if isinstance(source, str | Path) else source.config
    found = measured_images(
        config, data, predictor.classes, all=all, layout=layout, known_only=known_only, progress=progress
    )
    if not len(found.pixels):
        judge = _judge(source)
        if judge is None or found.held_out is None:
            raise DataError(
                f"{source} was trained on all images of {data}; name others, which it has not seen, or "
                "measure on these with --all"
            )
        predictor = TorchPredictor(judge, config.preprocess, predictor.classes)
        found = found.by_judge(config.preprocess, progress)
    evaluation = evaluate_pixels(predictor, found.pixels, len(predictor.classes or ()), progress=progress)
    return Evaluated(evaluation, found.data, found.part, found.pixels, found.left_out, found.included)


def _judge(source: str | Path | LoadedModel) -> nn.Module | None:
    """The judge of a model directory, or of a model in memory; files have none."""
    if isinstance(source, LoadedModel):
        return source.judge
    directory = isinstance(source, str | Path) and is_own_directory(Path(source))
    return load_model(source, judge=True).judge if directory and (Path(source) / JUDGE).is_file() else None


def _past(path: Path, predictor: Predictor) -> ModelConfig:
    """The config of the directory that the model is of; of a file elsewhere, what it says itself."""
    if is_model_directory(path):
        return read_config(path)
    if path.name in (ONNX, CODED) and is_model_directory(path.parent):
        return read_config(path.parent)
    seen = predictor.seen if isinstance(predictor, OnnxPredictor) else None
    return ModelConfig(
        architecture=f"{ELSEWHERE}{path.stem}",
        model_args={},
        classes=predictor.classes,
        preprocess=predictor.preprocess,
        seen=seen,
    )
