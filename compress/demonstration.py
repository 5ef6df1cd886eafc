"""`slimzoo demo`: the whole way on built-in data, by one command: a fit, a cut, int8 of both, what each costs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from compress.report.sections import command
from compress.verbs import COMPRESS
from zoo.console import Console

DATA = "digits"
SHARES = [0.4]  # of the MACs


def planned(out: Path) -> list[str]:
    """The command, as one would type it."""
    given = {COMPRESS.source: DATA, "shares": SHARES, "out": str(out)}
    return [command({"verb": COMPRESS.name, "arguments": given})]


def demo(out: str | Path, *, overwrite: bool = False, console: Console | None = None) -> dict[str, Any]:
    """Run it into `out`, and print what it prints, and the next commands.

    Returns:
        {"out"} and the record of `compress`.

    Raises:
        UsageError: `out` is taken.
    """
    out, console = Path(out), console or Console()
    for line in planned(out):
        console.say(line)
    done = COMPRESS.load_function()(
        DATA, shares=SHARES, out=out, overwrite=overwrite, progress=console.progress, tell=console.say
    )
    for line in done.lines():
        console.say(line)
    console.next(["slimzoo", "compress", "FOLDER", "--max-drop", "1", "--out", "mine"], *done.next())
    return {"out": str(out), **done.record}
