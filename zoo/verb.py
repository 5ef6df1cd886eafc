"""Verbs: what slimzoo can be told to do, each written once as a record that the command line, `resume` and reports
read.

A verb that makes a model directory is a step. Its function takes a source, keywords for its settings, and what all
steps take; the command of its name takes the same words.
"""

from __future__ import annotations

import functools
import inspect
import sys
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from zoo.lazy import load

if TYPE_CHECKING:
    from zoo.settings import Settings

T = TypeVar("T")
ADOPTED = ("arch", "preprocess", "classes")  # what weights from elsewhere do not say of themselves
Presence = Literal["needed", "optional", "none"]


@dataclass(frozen=True, kw_only=True)
class Verb:
    """
    Attributes:
        name: the command, and the function.
        help: one line.
        panel: of `slimzoo --help`.
        command: "module:function", whose parameters are the command line's; those of a step are made of its settings.
    """

    name: str
    help: str
    panel: str
    command: str = ""


@dataclass(frozen=True, kw_only=True)
class Step(Verb):
    """A verb that makes a model directory.

    Attributes:
        function: "module:function", the directory form: what Python users call, and the command too.
        settings: "module:class".
        source: name of its first argument, which is "data" of a step that starts from images.
        metavar, source_help: of that argument.
        data, out: whether it takes images, and the name of a directory.
        data_help: of the first.
        adopt: "module:function" that makes a model directory of weights from elsewhere, which need `arch`, `preprocess`
            and `classes`; "" where the source is no model.
        explain, dry_run: "module:function" with the same arguments, which say what the step would do; "" without.
        console: "module:context manager" in which the command speaks.
        distributed: whether a launcher may start it in several processes.
        resumes: whether it keeps checkpoints.
        needs, gives: what the source must be, and what becomes of it.
    """

    function: str
    settings: str
    source: str = "directory"
    metavar: str = "DIR"
    source_help: str = "A model directory, of slimzoo's or timm's, or a file of weights with --arch."
    data: Presence = "needed"
    data_help: str = "The data of the fit."
    out: Presence = "needed"
    adopt: str = "zoo.files.adopt:adopt_source"
    explain: str = ""
    dry_run: str = ""
    console: str = "zoo.console:Console"
    distributed: bool = False
    resumes: bool = True
    needs: str = ""
    gives: str = ""

    def load_function(self) -> Callable[..., Any]:
        found: Callable[..., Any] = load(self.function)
        return found

    def load_settings(self) -> type[Settings]:
        found: type[Settings] = load(self.settings)
        return found

    def arguments(
        self, source: object, settings: Settings, locate: Callable[[Any], Any], *, out: object, **places: object
    ) -> dict[str, Any]:
        """What a lineage record keeps, and what `resume` calls the function with.

        Args:
            locate: makes a path absolute, to mean the same from everywhere.
            out: the directory to make, which stays as it was named.
            places: `data`, and whatever else names a place.
        """
        named = {self.source: source, **places}
        return {name: locate(value) for name, value in named.items()} | {"out": str(out)} | settings.arguments(locate)


def takes(step: Step) -> Callable[[Callable[..., T]], Callable[..., T]]:
    """Give a step's function of (source, settings, ...) keywords for the fields of its settings.

    Callers may hand over the settings whole as a second argument. Weights from elsewhere are adopted on the way, and
    `offline=True` forbids downloads for the time of the call. Progress and messages are shown where somebody looks, and
    not with `progress=None`.
    """
    settings = step.load_settings()

    def wrap(function: Callable[..., T]) -> Callable[..., T]:
        parameters = inspect.signature(function).parameters

        @functools.wraps(function)
        def called(source: Any, given: Settings | None = None, /, *, offline: bool = False, **keywords: Any) -> T:
            own = {name: keywords.pop(name) for name in settings.model_fields if name in keywords}
            if "progress" not in keywords:
                keywords |= {k: v for k, v in _speaking().items() if k in parameters and k not in keywords}
            if given is None or own:
                given = settings(**{**({} if given is None else dict(given)), **own})
            from zoo.pretrained.download import forbidden_downloads

            with forbidden_downloads() if offline else nullcontext():
                if step.adopt:
                    source, given = load(step.adopt)(source, given, keywords)
                return function(source, given, **keywords)

        called.__signature__ = signature(function, step)  # type: ignore[attr-defined]
        return called

    return wrap


def _speaking() -> dict[str, Any]:
    """On a terminal and in a notebook, what shows the progress and tells a person what to know, unless it is given."""
    if not (sys.stdout.isatty() or "ipykernel" in sys.modules):
        return {}
    from zoo.console import Console

    console = Console()
    return {"progress": console.progress, "tell": console.say}


def signature(function: Callable[..., Any], step: Step) -> inspect.Signature:
    """The function's own, with keywords for the fields of its settings instead of the settings."""
    own = inspect.signature(function)
    first, _, *rest = own.parameters.values()

    def keyword(name: str, default: Any, annotation: Any) -> inspect.Parameter:
        return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)

    keywords = [keyword(o.name, o.default, o.annotation) for o in step.load_settings().options()]
    adopted = [keyword(name, None, str | None) for name in ADOPTED if step.adopt and name not in own.parameters]
    return own.replace(parameters=[first, *keywords, *rest, *adopted, keyword("offline", False, bool)])
