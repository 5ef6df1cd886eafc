"""What commands of compression share: `--explain`, and the lines before and after."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from transfer.cli import describe_metrics
from zoo.console import Console
from zoo.errors import UsageError

if TYPE_CHECKING:
    from compress.step import Step

Temperature = Annotated[float, typer.Option(help="That the logits of teacher and student are divided by.")]
Weight = Annotated[float, typer.Option(min=0, max=1, help="Share of the teacher in the loss; labels have the rest.")]
Features = Annotated[
    float, typer.Option(min=0, help="Weight of a loss on which images look alike to the teacher; 0 is none.")
]
Patience = Annotated[
    int,
    typer.Option(
        min=0,
        help="Stop after this many epochs without a better validation accuracy, and take the best; 0 never stops.",
    ),
]
Explain = Annotated[bool, typer.Option("--explain", help="Print what would go, and what it costs, and stop.")]
DataOption = Annotated[str, typer.Option("--data", help="The data of the fit.")]
OutUnlessExplained = Annotated[
    Path | None, typer.Option("--out", help="The directory to write; it appears when the work is done.")
]


def needed(out: Path | None) -> Path:
    """Raises:
    UsageError: there is none.
    """
    if out is None:
        raise UsageError("--out DIR is needed: where the model goes; --explain needs none")
    return out


def say_large_loss(console: Console, record: dict[str, Any]) -> None:
    """Where the step cost more than 5 points (`compress.step.large_loss`), that and what to do; for the last lines."""
    if lost := record.get("large_loss"):
        images = {"val": "validation", "test": "test"}[lost["part"]]
        console.say(
            f"WARN: {lost['points']:.1f} points fewer of the {images} images are right than {lost['than']}; "
            f"{lost['advice']}"
        )


def say_before_and_after(console: Console, step: Step) -> None:
    for when in ("before", "after"):
        console.say(f"{when + ':':7} {describe_metrics(step.record['metrics'][when])}")
