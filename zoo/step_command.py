"""The command of a step: its options are the fields of its settings, and what every step takes."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from zoo.console import Arch, ClassesOption, Console, DryRun, Json, Offline, Out, Overwrite, PreprocessOption
from zoo.errors import UsageError
from zoo.lazy import load
from zoo.verb import Step

if TYPE_CHECKING:
    from zoo.settings import Option, Settings

Explain = Annotated[bool, typer.Option("--explain", help="Say what the step would do and what it costs, and stop.")]
WorkerUrl = Annotated[
    str | None,
    typer.Option("--worker", metavar="URL", help="Help the search whose trials are there; SOURCE may be left out."),
]
OutUnlessExplained = Annotated[
    Path | None, typer.Option("--out", help="The directory to write; it appears when the work is done.")
]


def command_of(step: Step) -> Callable[..., None]:
    """A function with the parameters of the step's command, as Typer reads them."""

    def command(**given: Any) -> None:
        as_json, explain, dry_run = (given.pop(name, False) for name in ("json", "explain", "dry_run"))
        source, url = given.pop(step.source), given.pop("worker", None)
        del given["offline"]  # its option has seen to it
        defaults = {o.name: o.default for o in step.load_settings().options()}
        given = {name: value for name, value in given.items() if value not in (None, [], defaults.get(name))}
        with load(step.console)(as_json=as_json) as console:
            if url is not None and dry_run:
                raise UsageError(
                    "--dry-run shows what a search would do, and --worker helps one: leave out one of them"
                )
            if url is not None:
                _help(step, console, url, source, given)
            elif source is None:
                raise UsageError(f"{step.metavar} is needed: {step.source_help[0].lower()}{step.source_help[1:]}")
            elif explain:
                _explain(step, console, source, given)
            elif dry_run:
                _dry_run(step, console, source, given)
            else:
                _run(step, console, source, given)

    command.__signature__ = inspect.Signature(_parameters(step))  # type: ignore[attr-defined]
    command.__annotations__ = {}
    command.__name__, command.__doc__ = step.name, step.help
    return command


def _run(step: Step, console: Console, source: str, given: dict[str, Any]) -> None:
    if step.out == "needed" and "out" not in given:
        raise UsageError("--out DIR is needed: where the model goes; --explain needs none")
    settings = _settings(step, given)
    done = step.load_function()(source, settings, **given, progress=console.progress, tell=console.say)
    for line in (*done.lines(), *done.lost()):
        console.say(line)
    console.next(*done.next())
    made = done.file if hasattr(done, "file") else given.get("out")
    console.document(({} if made is None else {"out": str(made)}) | done.record)
    if code := getattr(done, "exit_code", 0):
        raise typer.Exit(code)


def _settings(step: Step, given: dict[str, Any]) -> Settings:
    """Taken out of what was given, and checked before anything heavy is imported."""
    made = step.load_settings()
    return made(**{name: given.pop(name) for name in made.model_fields if name in given})


def _explain(step: Step, console: Console, source: str, given: dict[str, Any]) -> None:
    given = {name: value for name, value in given.items() if name not in ("out", "overwrite")}
    settings = _settings(step, given)
    found = load(step.explain)(source, settings, **given, progress=console.progress, tell=console.say)
    for line in found.lines():
        console.say(line)
    console.document(found.document())


def _help(step: Step, console: Console, url: str, source: str | None, given: dict[str, Any]) -> None:
    data = given.pop("data", None)
    if flags := ", ".join("--" + name.replace("_", "-") for name, value in given.items() if value is not False):
        raise UsageError(f"a worker goes by what the search was begun with: leave out {flags}")
    found = load(step.worker)(url, source, data=data, progress=console.progress, tell=console.say)
    for line in found.lines():
        console.say(line)
    console.document(found.document())


def _dry_run(step: Step, console: Console, source: str, given: dict[str, Any]) -> None:
    settings = _settings(step, given)
    found = load(step.dry_run)(source, settings, **given, progress=console.progress, tell=console.say)
    for line in found.lines():
        console.say(line)
    console.document({"dry_run": True, **found.document()})


def _parameters(step: Step) -> list[inspect.Parameter]:
    """Typer's, in the order of the help."""

    def parameter(name: str, annotation: Any, default: Any = inspect.Parameter.empty) -> inspect.Parameter:
        return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)

    about = typer.Argument(metavar=step.metavar, help=step.source_help)
    if step.worker:
        found = [parameter(step.source, Annotated[str | None, about], None)]
    else:
        found = [parameter(step.source, Annotated[str, about])]
    if step.data == "needed":
        found.append(parameter("data", Annotated[str, typer.Option("--data", help=step.data_help)]))
    if step.data == "optional":
        found.append(parameter("data", Annotated[str | None, typer.Option("--data", help=step.data_help)], None))
    if step.out == "needed" and not step.explain:
        found.append(parameter("out", Out))
    else:
        found.append(parameter("out", OutUnlessExplained, None))
    for o in step.load_settings().options():
        found.append(parameter(o.name, _annotation(o), *([] if o.required else [_default(o)])))
    if step.adopt:
        found += [parameter("arch", Arch, None), parameter("preprocess", PreprocessOption, None)]
        found.append(parameter("classes", ClassesOption, None))
    if step.explain:
        found.append(parameter("explain", Explain, False))
    found += [parameter("overwrite", Overwrite, False), parameter("offline", Offline, False)]
    if step.worker:
        found.append(parameter("worker", WorkerUrl, None))
    if step.dry_run:
        found.append(parameter("dry_run", DryRun, False))
    return [*found, parameter("json", Json, False)]


def _annotation(option: Option) -> Any:
    kind: Any = list[option.kind] if option.many else option.kind  # type: ignore[name-defined]
    about = typer.Option(*option.flags, metavar=option.metavar, help=option.help)
    return Annotated[kind if option.required else kind | None, about]


def _default(option: Option) -> Any:
    """What the help says; of several values and of a switch that is off, nothing."""
    return None if option.many or option.default is False else option.default
