"""The commands `data check`, `eval` and `predict`."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from transfer.data.options import TEST_HELP, VAL_HELP, DataArgument, Layout
from zoo.console import MODEL_HELP, Arch, ClassesOption, Console, Json, Offline, Overwrite, PreprocessOption
from zoo.errors import DataError, UsageError
from zoo.lineage import LARGEST_SEED

if TYPE_CHECKING:
    from transfer.data.listing import Ignored
    from transfer.prediction import Prediction, PredictionTable, Unread

data = typer.Typer(no_args_is_help=True, add_completion=False, help="Look at a dataset before training on it.")


@data.callback()
def look() -> None:
    """Look at a dataset before training on it."""


@data.command(name="check")
def check(
    data: DataArgument,
    val: Annotated[str | None, typer.Option(help=VAL_HELP)] = None,
    test: Annotated[str | None, typer.Option(help=TEST_HELP)] = None,
    seed: Annotated[int, typer.Option(min=0, max=LARGEST_SEED, help="Of the split, as for `fit`.")] = 0,
    layout: Layout = "auto",
    sheet: Annotated[Path | None, typer.Option(help="Write a picture of the images in question: FILE.png.")] = None,
    offline: Offline = False,
    json: Json = False,
) -> None:
    """Find what is wrong with a dataset: unreadable files, duplicates, leaks, odd classes. Exit code 3 for errors."""
    from transfer.data.check import check_data
    from transfer.data.check_sheets import save_check_sheet
    from zoo.disk import check_file

    if sheet is not None and Path(data).resolve() in sheet.resolve().parent.parents:
        raise UsageError(f"--sheet {sheet} would be an image of the dataset: name a file outside of {data}")
    with Console(as_json=json) as console:
        if sheet is not None:
            check_file(sheet, "--sheet")
        checked = check_data(data, val=val, test=test, seed=seed, layout=layout, progress=console.progress)
        for line in checked.describe():
            console.say(line)
        if sheet is not None:
            save_check_sheet(checked, sheet)
            console.say(f"{sheet}: the images in question")
        if checked.ok:
            given = (
                ("--val", val),
                ("--test", test),
                ("--seed", seed or None),
                ("--layout", None if layout == "auto" else layout),
            )
            options = [str(word) for name, value in given if value is not None for word in (name, value)]
            console.next(["slimzoo", "fit", data, *options, "--out", "mine"])
        console.document(checked.to_dict() | ({} if sheet is None else {"sheet": str(sheet)}))
    if not checked.ok:
        raise typer.Exit(DataError.exit_code)


def evaluate(
    model: Annotated[str, typer.Argument(metavar="DIR", help=MODEL_HELP)],
    data: DataArgument,
    out: Annotated[
        Path | None, typer.Option(help="Write confusion, calibration and mistakes as pictures, answers as CSV, here.")
    ] = None,
    layout: Layout = "auto",
    known_only: Annotated[
        bool, typer.Option("--known-only", help="Leave out images of classes that the model does not know.")
    ] = False,
    all: Annotated[bool, typer.Option("--all", help="Measure on images that the model was trained on too.")] = False,
    arch: Arch = None,
    preprocess: PreprocessOption = None,
    classes: ClassesOption = None,
    offline: Offline = False,
    overwrite: Overwrite = False,
    json: Json = False,
) -> None:
    """Measure a model's accuracy on labelled images, leaving out those that it was trained on."""
    from transfer.data.contact_sheet import printable
    from transfer.data.remarks import files_left_out
    from transfer.evaluation.evaluate import evaluate as run
    from transfer.evaluation.findings import describe, describe_images, document, write_findings
    from zoo.files.adopt import adopt
    from zoo.files.directory import check_free, new_directory

    with Console(as_json=json) as console:
        model = adopt(model, arch=arch, preprocess=preprocess, classes=classes)
        if out is not None:
            check_free(out, overwrite=overwrite)
        evaluated = run(model, data, all=all, layout=layout, known_only=known_only, progress=console.progress)
        for line in [*evaluated.data.notes, *files_left_out(evaluated.data)]:
            console.say(printable(line))
        which = "all" if evaluated.part == "all" else f"the {evaluated.part}"
        console.say(f"{model} on {which} images of {data}")
        for line in describe_images(evaluated, model):
            console.say(line)
        for line in describe(evaluated.evaluation, evaluated.data.classes):
            console.say(line)
        if out is not None:
            arguments = {"model": model, "data": data, "out": str(out)}
            with new_directory(out, run={"verb": "eval", "arguments": arguments}, overwrite=overwrite) as work:
                write_findings(evaluated, work)
            console.say(f"{out}: confusion.png, reliability.png, mistakes.png, predictions.csv")
        console.document(document(evaluated) | ({} if out is None else {"out": str(out)}))


def predict(
    model: Annotated[str, typer.Argument(metavar="DIR_OR_ONNX", help=MODEL_HELP)],
    images: Annotated[
        list[str],
        typer.Argument(metavar="IMAGE...", help="Image files, folders of them, patterns, or - for names on stdin."),
    ],
    top: Annotated[int, typer.Option(min=1, help="How many classes to show.")] = 3,
    csv: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write a line for each image to this CSV file instead.")
    ] = None,
    arch: Arch = None,
    preprocess: PreprocessOption = None,
    classes: ClassesOption = None,
    offline: Offline = False,
    json: Json = False,
) -> None:
    """Classify images, one by one. Exit code 3 where some cannot be read; the others are answered."""
    from transfer.data.image_names import check_names
    from transfer.prediction import Unread, predictions
    from zoo.files.adopt import adopt
    from zoo.files.predictor import open_predictor

    check_names(images)
    with Console(as_json=json, aside=True) as console, _table(csv, top) as table:
        predictor = open_predictor(adopt(model, arch=arch, preprocess=preprocess, classes=classes))
        names, total = _named(images, console)
        unread: list[Unread] = []
        answered: list[Prediction] = []
        done = 0
        for done, answer in enumerate(predictions(predictor, names, top=top), start=1):
            if isinstance(answer, Unread):
                unread.append(answer)
            elif json:
                answered.append(answer)
            _give(answer, console, table, alone=total == 1)
            if total and (json or table or not sys.stdout.isatty()):
                console.progress("predicting", done, total)
        if not done:
            raise DataError("standard input names no images; wanted one per line")
        if csv is not None:
            console.say(f"{csv}: {done} {'line' if done == 1 else 'lines'}")
        console.document(_document(answered, unread))
        if unread:
            raise unread[0].error if total == 1 else DataError(f"{len(unread)} of {done} images cannot be read")


def _named(images: Sequence[str], console: Console) -> tuple[Iterable[str], int]:
    """The files that are meant, and how many they are; 0 where names come on standard input."""
    from transfer.data.image_names import STANDARD_INPUT, named_images
    from transfer.data.left_out import left_out

    ignored: list[Ignored] = []
    names = named_images(images, ignored)
    if STANDARD_INPUT in images:
        return names, 0
    found = list(names)
    lines = [line for kind in left_out(ignored) for line in kind.describe()]
    if not found:
        raise DataError(f"{' '.join(images)}: no images" + "".join(f"; {line}" for line in lines))
    for line in lines:
        console.complain(line)
    return found, len(found)


@contextmanager
def _table(path: Path | None, top: int) -> Iterator[PredictionTable | None]:
    if path is None:
        yield None
        return
    from transfer.prediction import PredictionTable

    try:
        # line by line, so that what is answered is there whatever happens next
        file = path.open("w", newline="", encoding="utf-8", errors="backslashreplace", buffering=1)
    except OSError as error:
        raise UsageError(f"--csv {path}: {error.strerror}; name a file that can be written") from error
    with file:
        yield PredictionTable(file, top=top)


def _give(answer: Prediction | Unread, console: Console, table: PredictionTable | None, *, alone: bool) -> None:
    from transfer.data.contact_sheet import printable
    from transfer.prediction import Unread

    if table is not None:
        table.write(answer)
    if isinstance(answer, Unread):
        if not alone:  # else it is the last line anyway
            console.complain(printable(str(answer.error)))
    elif table is None:
        console.say(f"{printable(answer.path)}: " + "  ".join(f"{label} {score:.1%}" for label, score in answer.top))


def _document(answered: Sequence[Prediction], unread: Sequence[Unread]) -> dict[str, Any]:
    return {
        "predictions": [
            {"path": p.path, "top": [{"label": label, "score": score} for label, score in p.top]} for p in answered
        ],
        "unread": [{"path": u.path, "reason": str(u.error)} for u in unread],
    }
