"""What every command line of slimzoo has in common: one line per error, exit codes, --json, progress, next commands."""

from __future__ import annotations

import errno
import io
import json
import os
import signal
import sys
import time
import traceback
import warnings
from collections.abc import Sequence
from pathlib import Path
from types import FrameType, TracebackType
from typing import IO, TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from zoo.errors import Interrupted, SlimzooError, first_line
from zoo.shell import pasteable

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

LINE_EVERY_S = 10.0  # where the output is not a terminal
BROKEN_PIPE = 128 + 13  # SIGPIPE, which Windows has no name for

Json = Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout, text for people on stderr.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Say what would happen, and do nothing.")]


def _forbid_downloads(asked: bool) -> None:
    from zoo.pretrained import download

    if asked:
        download.forbid()


Offline = Annotated[
    bool, typer.Option("--offline", callback=_forbid_downloads, help="Download nothing: weights must be here already.")
]
MODEL_HELP = "A model directory, of slimzoo's or timm's, an exported .onnx file, or a file of weights with --arch."
Arch = Annotated[
    str | None,
    typer.Option(
        "--arch",
        metavar="NAME",
        help="Of a file of weights (.pth, .pt, .safetensors): a model of `slimzoo models`, "
        "timm:NAME or torchvision:NAME.",
    ),
]
PreprocessOption = Annotated[
    str | None,
    typer.Option(
        "--preprocess",
        metavar="P",
        help="Of a file of weights or an .onnx file from elsewhere: a JSON file with the keys of config.json's "
        "`preprocess`, or a model that shares it: timm:NAME, NAME or DIR.",
    ),
]
ClassesOption = Annotated[
    str | None,
    typer.Option("--classes", metavar="FILE", help="Of a model from elsewhere: names, one a line, or a JSON list."),
]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace the output directory if slimzoo made it.")]
Out = Annotated[Path, typer.Option("--out", help="The directory to write; it appears when the work is done.")]


class Console:
    """Where text for people, the JSON document and the progress go."""

    def __init__(self, *, as_json: bool = False, silent: bool = False, aside: bool = False) -> None:
        """
        Args:
            silent: nothing is shown, as in all but the main one of several processes.
            aside: progress goes to stderr, where it does not mix with answers that come one by one on stdout.
        """
        self.as_json, self.silent = as_json, silent
        self._stream = sys.stderr if as_json else sys.stdout
        self._progress_stream = sys.stderr if aside else self._stream
        self._bar: Progress | None = None
        self._task: TaskID | None = None
        self._title = ""
        self._began = self._spoke = 0.0

    def __enter__(self) -> Console:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._end_bar()

    def say(self, text: str = "") -> None:
        if self._stream is self._progress_stream:
            self._end_bar()
        if not self.silent:
            print(encodable(text, self._stream), file=self._stream, flush=True)

    def complain(self, text: str) -> None:
        """A line on stderr, of what goes wrong and does not stop the command."""
        self._end_bar()
        if not self.silent:
            print(encodable(text, sys.stderr), file=sys.stderr, flush=True)

    def document(self, record: dict[str, Any]) -> None:
        """The one JSON document of this command, if it was asked for; its strings as `as_text` makes them."""
        if self.as_json and not self.silent:
            unicode = (getattr(sys.stdout, "encoding", None) or "utf-8").lower().startswith("utf")
            print(json.dumps(as_text(record), ensure_ascii=not unicode), flush=True)

    def next(self, *commands: Sequence[str | Path]) -> None:
        """The commands that one would want to type now, ready to paste."""
        self.say("Next:")
        for command in commands:
            self.say("  " + pasteable([str(word) for word in command]))

    def progress(self, title: str, done: int, total: int, note: str = "") -> None:
        """Show that `done` of `total` is done: a live bar on a terminal, a line every 10 s elsewhere."""
        if self.silent:
            return
        now = time.monotonic()
        if title != self._title:
            self._end_bar()
            self._title, self._began, self._spoke = title, now, now
        rate = done / (now - self._began) if now > self._began else 0.0
        if self._progress_stream.isatty():
            self._show_bar(title, done, total, f"{rate:.1f}/s  {note}" if rate and total > 1 else note)
        elif now - self._spoke >= LINE_EVERY_S and done and total > 1:
            self._spoke = now
            left_s = (total - done) / rate
            line = f"{title} {done}/{total}  {rate:.1f}/s  {left_s:.0f} s left  {note}"
            print(encodable(line, self._progress_stream), file=self._progress_stream, flush=True)

    def _show_bar(self, title: str, done: int, total: int, note: str) -> None:
        from rich import progress as rich_progress
        from rich.console import Console as RichConsole

        if self._bar is None:
            self._bar = rich_progress.Progress(
                rich_progress.TextColumn("{task.description}"),
                rich_progress.BarColumn(),
                rich_progress.MofNCompleteColumn(),
                rich_progress.TimeRemainingColumn(),
                rich_progress.TextColumn("{task.fields[note]}"),
                console=RichConsole(file=self._progress_stream),
                transient=True,
            )
            self._bar.start()
            self._task = self._bar.add_task(title, total=total, note=note)
        assert self._task is not None
        self._bar.update(self._task, completed=done, total=total, note=note)
        if done >= total:
            self._end_bar()

    def _end_bar(self) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None
        self._title = ""


def encodable(text: str, stream: IO[str]) -> str:
    """`text`, with escapes for what the stream's encoding has no characters for, as bytes of names that are no text."""
    encoding = getattr(stream, "encoding", None) or "utf-8"
    return text.encode(encoding, "backslashreplace").decode(encoding)


def as_text(record: Any) -> Any:
    """A JSON-ready record, all of its strings valid text: lone surrogates, which not every reader takes, as escapes."""
    if isinstance(record, dict):
        return {as_text(key): as_text(value) for key, value in record.items()}
    if isinstance(record, list | tuple):
        return [as_text(value) for value in record]
    return record.encode("utf-8", "backslashreplace").decode() if isinstance(record, str) else record


def run(app: typer.Typer, name: str, argv: Sequence[str] | None = None) -> NoReturn:
    """Run a Typer app and exit: 0 done, 1 failed, 2 usage, 3 data, 4 gate missed, 130/143 interrupted."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in arguments
    arguments = [argument for argument in arguments if argument != "--debug"]
    signal.signal(signal.SIGTERM, _terminate)
    _speak_any_language()
    warnings.filterwarnings("ignore", module=r"PIL\.")  # of a damaged file; load_image says it in one line
    if not debug:
        warnings.formatwarning = _warning_line
    command = typer.main.get_command(app)
    _complete(command, name)
    try:
        # not command.main(), which would swallow a KeyboardInterrupt together with what it says
        with command.make_context(name, arguments) as context:
            command.invoke(context)
        sys.exit(0)
    except typer.Exit as done:  # --help
        sys.exit(done.exit_code)
    except BrokenPipeError:  # `slimzoo models | head`: whoever read has enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # what is left to flush goes nowhere
        sys.exit(BROKEN_PIPE)
    except (Exception, KeyboardInterrupt) as error:
        if debug:
            traceback.print_exc()
        line = _one_line(error, name)
        if line:
            print(encodable("error: " + line, sys.stderr), file=sys.stderr)
        sys.exit(_exit_code(error))


def _complete(command: Any, name: str) -> None:
    """Answer a shell that asks for completions, as `--install-completion` has told it to."""
    variable = f"_{name.upper()}_COMPLETE"
    if variable in os.environ:
        command._main_shell_completion({}, name, variable)


def _speak_any_language() -> None:
    """Write what the encoding of a stream has no character for as an escape, where it would be an error."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _warning_line(
    message: Warning | str, category: type[Warning], filename: str, lineno: int, line: str | None = None
) -> str:
    return f"warning: {' '.join(str(message).split())}\n"


def _terminate(number: int, frame: FrameType | None) -> None:
    raise Interrupted("terminated; nothing was written", exit_code=128 + number)


def _exit_code(error: BaseException) -> int:
    if isinstance(error, KeyboardInterrupt):
        return getattr(error, "exit_code", 130)
    return int(getattr(error, "exit_code", 1))


def _one_line(error: BaseException, name: str) -> str:
    if isinstance(error, KeyboardInterrupt | typer.Abort):
        return str(error) or "interrupted; nothing was written"
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return f"the disk is full: cannot write {error.filename or 'a file'}; free some space or name another place"
    if isinstance(error, typer.exceptions.TyperException):
        text = " ".join(error.format_message().split())
        if not text:  # no command was given, and the help is on stdout
            return ""
        return f"{text[:1].lower()}{text[1:]} (see `{name} --help`)"
    if isinstance(error, SlimzooError):
        return " ".join(error.on_command_line().split())
    if isinstance(error, OSError) or hasattr(error, "exit_code"):
        return " ".join(str(error).split())
    if isinstance(error, MemoryError) or "out of memory" in str(error) or "not enough memory" in str(error):
        return f"out of memory ({first_line(error)[:200]}): a smaller --size or --batch needs less"
    return f"{type(error).__name__}: {' '.join(str(error).split())[:500]} (--debug shows where)"
