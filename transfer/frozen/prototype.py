"""Prototypes: one- and few-shot classification by class means, with no training (SimpleShot).

Wang et al. 2019, https://arxiv.org/abs/1911.04623: features are centred on the training mean and divided by their
length ("CL2N", sec. 3.2), and the nearest class mean wins. By angle rather than by distance, that is a linear
classifier, which ships like any other: for a query f, a training mean m and unit prototypes p_k,
argmax_k cos(f - m, p_k) = argmax_k (f - m) . p_k, because the length of f - m is the same for all classes.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from transfer.frozen.probe import LinearClassifier

# Of cosines, where no class has two images to choose it by: Gidaris & Komodakis 2018 (https://arxiv.org/abs/1804.09458)
# learn one for few-shot cosine classifiers, starting from 10.
UNCHOSEN_SCALE = 10.0
SCALES = tuple(2 ** (step / 2) for step in range(0, 15))  # 1 to 128: from hardly sure of anything to hardly unsure
TINY = 1e-12  # a length of zero stays zero


@dataclass(frozen=True)
class Prototypes(LinearClassifier):
    """
    Attributes:
        scale: of the cosines before the softmax, the inverse temperature.
        left_out: (n,) which training images are answered right with their class mean taken without them and their
            copies, of the images whose class has others.
        left_out_loss: the mean cross-entropy of these answers in nats; NaN of none.
    """

    scale: float
    left_out: NDArray[np.bool_]
    left_out_loss: float

    @property
    def left_out_top1(self) -> float | None:
        return float(self.left_out.mean()) if len(self.left_out) else None


def fit_prototype(
    features: NDArray[np.float32],
    labels: NDArray[np.int64],
    *,
    classes: int,
    blocks: Sequence[int] | None = None,
    groups: Sequence[Hashable] | None = None,
) -> Prototypes:
    """Class means of centred, normalized features as a linear classifier.

    The logits are scale x cosine for a query as far from the mean as the training images are on average.

    Args:
        features: (N, F).
        labels: (N,) class indices.
        classes: K; each has at least one image.
        blocks: widths of the parts that the features are made of, such as depths of a network: each is divided by the
            mean length of its centred part, so that all count alike. By default one.
        groups: of each image; copies of one image are one group. By default each is one of its own.

    Raises:
        ValueError: a class has no image, or the blocks do not add up to F.
    """
    counts = np.bincount(labels, minlength=classes)
    if (counts == 0).any():
        raise ValueError(f"class {int(np.argmin(counts))} of {classes} has no image: a class mean wants at least one")
    if blocks is not None and sum(blocks) != features.shape[1]:
        raise ValueError(f"blocks={tuple(blocks)} add up to {sum(blocks)}, not to the {features.shape[1]} features")
    wide = features.astype(np.float64)
    mean = wide.mean(axis=0)
    factor = _equalizing(wide - mean, (features.shape[1],) if blocks is None else blocks)
    centred = (wide - mean) * factor
    images = _unit(centred)
    sums = np.zeros((classes, images.shape[1]))
    np.add.at(sums, labels, images)
    prototypes = _unit(sums)  # of the sums as of the means
    scale, right, loss = _choose(
        *_left_out(images, labels, sums, range(len(labels)) if groups is None else groups), labels
    )
    weight = prototypes * factor * (scale / max(float(np.linalg.norm(centred, axis=1).mean()), TINY))
    return Prototypes(weight.astype(np.float32), (-weight @ mean).astype(np.float32), scale, right, loss)


def _equalizing(centred: NDArray[np.float64], blocks: Sequence[int]) -> NDArray[np.float64]:
    """(F,) factors that give each block a mean length of 1."""
    parts = np.split(centred, np.cumsum(blocks)[:-1], axis=-1)
    lengths = [max(float(np.linalg.norm(part, axis=-1).mean()), TINY) for part in parts]
    return np.repeat(1 / np.array(lengths), blocks)


def _left_out(
    images: NDArray[np.float64], labels: NDArray[np.int64], sums: NDArray[np.float64], groups: Sequence[Hashable]
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """(N, K) cosines of each image with all prototypes, its own class's taken without its group; (N,) whether that
    class has other images."""
    rows: dict[tuple[Hashable, int], int] = {}  # of the images of one group and one class
    row = np.array([rows.setdefault(key, len(rows)) for key in zip(groups, labels.tolist(), strict=True)])
    alike = np.zeros((len(rows), images.shape[1]))
    np.add.at(alike, row, images)
    cosines: NDArray[np.float64] = images @ _unit(sums).T
    cosines[np.arange(len(labels)), labels] = (images * _unit(sums[labels] - alike[row])).sum(axis=1)
    return cosines, np.bincount(labels)[labels] > np.bincount(row)[row]


def _choose(
    cosines: NDArray[np.float64], has_others: NDArray[np.bool_], labels: NDArray[np.int64]
) -> tuple[float, NDArray[np.bool_], float]:
    """The scale of least cross-entropy on left-out images, which of them are answered right, and that loss."""
    judged = np.flatnonzero(has_others)
    right: NDArray[np.bool_] = cosines[judged].argmax(axis=1) == labels[judged]
    if not len(judged):
        return UNCHOSEN_SCALE, right, float("nan")
    own = cosines[judged, labels[judged]]

    def loss(scale: float) -> float:
        above = scale * (cosines[judged] - own[:, None])
        highest = above.max(axis=1, keepdims=True)
        return float((highest[:, 0] + np.log(np.exp(above - highest).sum(axis=1))).mean())

    best = min(SCALES, key=loss)
    return best, right, loss(best)


def _unit(rows: NDArray[np.float64]) -> NDArray[np.float64]:
    unit: NDArray[np.float64] = rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), TINY)
    return unit
