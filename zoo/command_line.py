"""The command line of a table of verbs: `--help` knows their names alone, and a verb is loaded when it is asked for."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Sequence
from typing import Annotated, Any, ClassVar

import typer
from typer.core import TyperCommand, TyperGroup

from zoo.lazy import load
from zoo.step_command import command_of
from zoo.verb import Step, Verb

Version = Annotated[bool, typer.Option("--version", help="Print the version, and stop.")]


def command_line(verbs: Sequence[Verb], *, help: str) -> typer.Typer:
    """What `zoo.console.run` runs, with `--version` and shell completion.

    Args:
        verbs: in the order of the help, whose panels are theirs.
        help: what it is all about.
    """

    class Verbs(_Group):
        table: ClassVar = {verb.name: verb for verb in verbs}

    app = typer.Typer(cls=Verbs, no_args_is_help=True, help=help, invoke_without_command=True)

    @app.callback()
    def start(version: Version = False) -> None:
        if version:
            print(importlib.metadata.version("slimzoo"))
            raise typer.Exit

    return app


class _Group(TyperGroup):
    """Commands that are names and a line of help until one of them is asked for."""

    table: ClassVar[dict[str, Verb]]

    def __init__(self, **attributes: Any) -> None:
        super().__init__(**attributes)
        self.commands = {
            verb.name: TyperCommand(verb.name, help=verb.help, rich_help_panel=verb.panel)
            for verb in self.table.values()
        }

    def list_commands(self, ctx: Any) -> list[str]:
        return list(self.table)  # in their order

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        if args and args[0] in self.table:
            self.commands[args[0]] = _loaded(self.table[args[0]])
        return super().resolve_command(ctx, args)


def _loaded(verb: Verb) -> Any:
    found = command_of(verb) if isinstance(verb, Step) else load(verb.command)
    if isinstance(found, typer.Typer):
        return typer.main.get_command(found)
    app = typer.Typer(add_completion=False)
    app.command(name=verb.name, help=verb.help)(found)
    return typer.main.get_command(app)
