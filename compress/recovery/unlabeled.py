"""Images that nobody has labelled: a model does, for what is made of it to learn from.

What a smaller network has to learn is the larger one's function, and any images show it (Hinton, Vinyals and Dean 2015,
arXiv 1503.02531, sec. 2; Beyer et al. 2022, arXiv 2106.05237).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np

from transfer.data.dataset import open_unlabelled, some
from transfer.data.loader import joined, load_pixels
from transfer.data.parts import Pixels
from transfer.data.sources import Data
from transfer.data.split import TRAIN
from transfer.evaluation.measure import predictor_of
from zoo.errors import DataError
from zoo.files.model_directory import LoadedModel
from zoo.preprocess import Preprocess
from zoo.progress import Progress

MOST = 1000  # images, drawn by chance where there are more


def joining(
    source: str | Path, known: Data, teacher: LoadedModel, *, seed: int = 0, progress: Progress | None = None
) -> Callable[[Pixels, Preprocess], Pixels]:
    """What joins such images to those to train on, labelled by a teacher; they are listed at once, and read then.

    It is told the preprocessing of the network that learns; the teacher sees them in its own.

    Args:
        known: the images of the data, of which none is taken again.

    Raises:
        UsageError: nothing of that name.
        DataError: no images, or no others than those.
    """
    data = open_unlabelled(source, most=MOST, seed=seed)
    hashes = set(known.hashes)
    others = np.flatnonzero([digest not in hashes for digest in data.hashes])
    if not len(others):
        raise DataError(f"{source}: all of its images are among those of {known.name}; wanted others")
    data = some(data, others, TRAIN)

    def join(pixels: Pixels, preprocess: Preprocess) -> Pixels:
        images, own = load_pixels(data, preprocess, TRAIN, progress), teacher.config.preprocess
        seen = images if own == preprocess else load_pixels(data, own, TRAIN, progress)
        logits = predictor_of(teacher.model, teacher.config).logits(seen.pixels)
        more = replace(images, labels=logits.argmax(axis=1).astype(np.int64))
        return replace(pixels, train=joined(pixels.train, more))

    return join
