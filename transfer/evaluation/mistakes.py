"""The most confident mistakes, as pictures: wrong labels, odd images and missing classes show here first."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path, PurePath

import numpy as np

from transfer.data.contact_sheet import Tile, save_contact_sheet
from transfer.data.loader import LabelledPixels
from transfer.evaluation.evaluate import Evaluation

WRONG = "#d62728"


def most_confident_mistakes(evaluation: Evaluation, limit: int) -> list[int]:
    """Indices of wrongly answered images, the most confident answer first; of equals, the first image first."""
    wrong = np.flatnonzero(~evaluation.correct)
    return [int(i) for i in wrong[np.argsort(-evaluation.confidences[wrong], kind="stable")][:limit]]


def save_mistakes(
    evaluation: Evaluation, pixels: LabelledPixels, classes: Sequence[str], path: Path, *, limit: int = 32
) -> None:
    """Write the most confident mistakes as a PNG: the image as the network sees it, both labels, and the file's name.

    A model without mistakes gets the page of the answers that it was least sure of, under a title that says so.

    Args:
        pixels: what `evaluation` was made on.
        limit: images on the page.
    """
    chosen = most_confident_mistakes(evaluation, limit)
    count = int((~evaluation.correct).sum())
    if chosen:
        shown = "most confident first" if count == len(chosen) else f"the {len(chosen)} most confident"
        title = f"{count} {'mistake' if count == 1 else 'mistakes'} among {evaluation.n} images: {shown}"
    else:
        chosen = [int(i) for i in np.argsort(evaluation.confidences, kind="stable")[:limit]]
        title = f"no mistakes among {evaluation.n} images; the answers with the least confidence"
    tiles = []
    for i in chosen:
        image = np.asarray(pixels.pixels[i])
        answer, truth = (classes[int(of[i])] for of in (evaluation.predictions, evaluation.labels))
        name = PurePath(pixels.keys[i]).name if pixels.keys else f"image {i}"
        said = f"{evaluation.confidences[i]:.1%} {answer}"
        caption = f"{said}\nis {truth}\n{name}" if answer != truth else f"{said}\n{name}"
        colour = WRONG if answer != truth else ""
        tiles.append(Tile(np.broadcast_to(image, (*image.shape[:2], 3)).copy(), caption, colour))
    save_contact_sheet(tiles, path, title=title)
