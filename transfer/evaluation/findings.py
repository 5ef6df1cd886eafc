"""What an evaluation found: a few lines for people, one JSON document, a folder of pictures and answers."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from transfer.data.contact_sheet import printable
from transfer.data.split import VAL
from transfer.evaluation.calibration import chance_error
from transfer.evaluation.evaluate import ClassScore, Evaluated, Evaluation, rounded
from transfer.evaluation.images import ALL, HELD_OUT
from transfer.evaluation.mistakes import save_mistakes
from transfer.evaluation.plots import save_confusion, save_reliability, short_names

CLASSES_SHOWN = 10
CONFUSIONS_SHOWN, CONFUSIONS_LISTED = 3, 20  # to people, and in JSON


def describe(evaluation: Evaluation, classes: Sequence[str]) -> list[str]:
    """Lines for people: accuracy, calibration, the worst classes first, the most frequent confusions."""
    lines = [f"top-1             {_share(evaluation.top1, evaluation.top1_ci)}, {evaluation.n:,} images"]
    if evaluation.top5 is not None and evaluation.top5_ci is not None:
        lines.append(f"top-5             {_share(evaluation.top5, evaluation.top5_ci)}")
    scores = worst_first(evaluation.per_class(classes))
    seen = [score for score in scores if score.n]
    unseen = f", {len(scores) - len(seen)} more have no images" if len(seen) < len(scores) else ""
    balanced = _share(evaluation.balanced, evaluation.balanced_ci)
    lines.append(f"balanced accuracy {balanced}, mean recall of {len(seen)} classes{unseen}")
    sure = float(evaluation.confidences.mean())
    lines.append(
        f"calibration error {evaluation.ece:6.1%}  (up to {chance_error(evaluation.confidences):.1%} is chance), "
        f"mean confidence {sure:.1%}, negative log-likelihood {evaluation.nll:.3f}"
    )
    lines += ["", "Classes, the worst first:" if len(seen) <= CLASSES_SHOWN else f"The {CLASSES_SHOWN} worst classes:"]
    names = dict(zip(classes, short_names(classes), strict=True))
    width = max(len(names[score.name]) for score in seen[:CLASSES_SHOWN])
    for score in seen[:CLASSES_SHOWN]:
        assert score.recall is not None
        assert score.ci is not None
        images = "1 image" if score.n == 1 else f"{score.n:,} images"
        lines.append(f"  {names[score.name]:{width}} {_share(score.recall, score.ci)}, {images}")
    found = confusions(evaluation)[:CONFUSIONS_SHOWN]
    if found:
        lines += ["", "Most often taken for another:"]
    for truth, answer, count in found:
        of_all = int(evaluation.confusion[truth].sum())
        lines.append(f"  {names[classes[truth]]} for {names[classes[answer]]}: {count:,} of {of_all:,}")
    return lines


def describe_images(evaluated: Evaluated, model: str) -> list[str]:
    """A line for people about what the model had met before of the images given; none where it met none."""
    left_out, included = evaluated.left_out, evaluated.included
    if left_out is None or included is None:
        return [f"which images {model} was trained on is not recorded: those of them that are here, if any, flatter it"]
    if evaluated.part == HELD_OUT:
        return [
            f"{model} was trained on all {left_out.trained:,} of these images in the end; answered are those that had "
            "been held out until then, by its judge, which was trained without them"
        ]
    if evaluated.part == VAL:
        return [
            f"left out: {left_out.trained:,} images that it was trained on; what is left are validation images, by "
            "which it was chosen: new ones will be answered no better"
        ]
    if included.trained or included.chose:
        return [
            f"among them are {included.trained:,} images that it was trained on and {included.chose:,} that it was "
            "chosen by: this is no accuracy on new images"
        ]
    if left_out.trained or left_out.chose:
        return [
            f"left out: {left_out.trained:,} images that it was trained on and {left_out.chose:,} that it was chosen "
            "by (--all measures on them too)"
        ]
    return []


def document(evaluated: Evaluated) -> dict[str, Any]:
    """The JSON document of `slimzoo eval`."""
    evaluation, classes = evaluated.evaluation, evaluated.data.classes
    return {
        **evaluation.record(),
        "part": evaluated.part,
        "left_out": None if evaluated.left_out is None else vars(evaluated.left_out),
        "included": None if evaluated.included is None else vars(evaluated.included),
        "ece_by_chance": rounded(chance_error(evaluation.confidences)),
        "per_class": {
            score.name: {"recall": rounded(score.recall), "ci": rounded(score.ci), "n": score.n}
            for score in evaluation.per_class(classes)
        },
        "confusions": [
            {"true": classes[truth], "predicted": classes[answer], "n": count}
            for truth, answer, count in confusions(evaluation)[:CONFUSIONS_LISTED]
        ],
    }


def write_findings(evaluated: Evaluated, folder: Path) -> None:
    """Write confusion.png, reliability.png, mistakes.png and predictions.csv into an existing folder."""
    evaluation, classes = evaluated.evaluation, evaluated.data.classes
    part = "" if evaluated.part == ALL else f"{evaluated.part} "
    title = f"{printable(Path(evaluated.data.name).name)}: {evaluation.n:,} {part}images"
    save_confusion(evaluation.confusion, classes, folder / "confusion.png", title=title)
    save_reliability(evaluation.reliability(), folder / "reliability.png", title=title)
    save_mistakes(evaluation, evaluated.pixels, classes, folder / "mistakes.png")
    save_predictions(evaluated, folder / "predictions.csv")


def save_predictions(evaluated: Evaluated, path: Path) -> None:
    """Write a CSV file with a line for each image: path, label, predicted, and the answer's confidence in 0..1."""
    evaluation, classes = evaluated.evaluation, evaluated.data.classes
    keys = evaluated.pixels.keys or range(evaluation.n)
    with path.open("w", newline="", encoding="utf-8", errors="backslashreplace") as file:  # paths may be any bytes
        writer = csv.writer(file)
        writer.writerow(["path", "label", "predicted", "confidence"])
        answers = (evaluation.labels, evaluation.predictions, evaluation.confidences)
        for key, label, answer, confidence in zip(keys, *answers, strict=True):
            writer.writerow([key, classes[label], classes[answer], f"{confidence:.6f}"])


def worst_first(scores: Sequence[ClassScore]) -> list[ClassScore]:
    """Sort by recall; of equals, first the one with more images, which says it with more weight; those without last."""
    return sorted(scores, key=lambda score: (score.recall is None, score.recall, -score.n))


def confusions(evaluation: Evaluation) -> list[tuple[int, int, int]]:
    """(true class, class answered, images) of every pair that was confused, the most frequent first."""
    wrong = evaluation.confusion - np.diag(evaluation.confusion.diagonal())
    pairs = [(int(i), int(j), int(wrong[i, j])) for i, j in np.argwhere(wrong)]
    return sorted(pairs, key=lambda pair: -pair[2])


def _share(share: float, ci: tuple[float, float]) -> str:
    return f"{share:6.1%}  (95% interval {ci[0]:.1%} to {ci[1]:.1%})"
