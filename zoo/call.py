"""How a step is called: the keywords that all steps take, in one object, beside those of its settings."""

from __future__ import annotations

import functools
import inspect
import sys
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from zoo.errors import UsageError
from zoo.lazy import load
from zoo.lineage import IN_MEMORY, located, names_a_model
from zoo.progress import Progress
from zoo.run import Run
from zoo.tensors import fingerprint
from zoo.verb import ADOPTED, Step

if TYPE_CHECKING:
    from zoo.settings import Settings

T = TypeVar("T")
EMPTY = inspect.Parameter.empty


@dataclass(frozen=True, kw_only=True)
class Call:
    """What a step is called with beside its source and settings.

    Attributes:
        data: labelled images, where the step takes some; None where they are optional and there are none.
        out: the directory to make; None keeps what is made in memory.
        overwrite, resume: see `zoo.files.directory.new_directory`.
        progress: told how far the work is.
        tell: told one line at a time what a person should know.
        preprocess, classes: what an ONNX file from elsewhere does not say of itself.
    """

    step: Step
    source: Any
    settings: Settings
    data: Any = None
    out: str | Path | None = None
    overwrite: bool = False
    resume: bool = False
    progress: Progress | None = None
    tell: Callable[[str], None] = lambda line: None
    preprocess: str | Path | None = None
    classes: str | Path | None = None

    def run(self, *, makes: bool = True) -> Run:
        """The run of this call, whose directory is refused at once where it is taken.

        Args:
            makes: whether it is this process that makes the directory, of several.
        """
        out = None if self.out is None else str(self.out)
        named = {self.step.source: self.source} | ({} if self.step.data == "none" else {"data": self.data})
        named |= {name: getattr(self, name) for name in ADOPTED[1:] if getattr(self, name) is not None}
        arguments = {name: located(value) for name, value in named.items()} | {"out": out}
        if self.step.adopt and isinstance(self.source, str | Path) and not names_a_model(str(self.source)):
            arguments[self.step.source] = str(self.source)  # a name, whatever folder of that name lies here
        if out is not None and str(arguments[self.step.source]).startswith(IN_MEMORY) and hasattr(self.source, "model"):
            arguments[self.step.source] += f" {fingerprint(self.source.model)}"
        return Run(
            self.step.name,
            arguments | self.settings.arguments(located),
            out=out,
            seed=getattr(self.settings, "seed", 0),
            overwrite=self.overwrite,
            resume=self.resume,
            makes=makes,
        )


def takes(step: Step, *, writes: bool = True) -> Callable[[Callable[[Any, Any, Call], T]], Callable[..., T]]:
    """Make a step's function of (source, settings, call) one of keywords: the fields of its settings, and a `Call`'s.

    Callers may hand over the settings whole as a second argument. Weights from elsewhere are adopted on the way, and
    `offline=True` forbids downloads for the time of the call. Progress and messages are shown where somebody looks, and
    not with `progress=None`.

    Args:
        writes: whether it makes a directory, and does not only say what the step would do.
    """
    settings = step.load_settings()

    def wrap(function: Callable[[Any, Any, Call], T]) -> Callable[..., T]:
        known = _signature(function, step, writes=writes)

        @functools.wraps(function)
        def called(source: Any, given: Settings | None = None, /, **keywords: Any) -> T:
            whole = {} if given is None else {o.name: o.default for o in settings.options() if o.required}
            known.bind(source, **{**whole, **keywords})  # the interpreter's own words for what is missing or unknown
            for value in (keywords.get("data"), *((source,) if step.source == "data" else ())):
                _check_data(value)
            own = {name: keywords.pop(name) for name in settings.model_fields if name in keywords}
            offline = keywords.pop("offline", False)
            if "progress" not in keywords:
                keywords = _speaking() | keywords
            if given is None or own:
                given = settings(**{**({} if given is None else dict(given)), **own})
            from zoo.pretrained.download import forbidden_downloads

            with forbidden_downloads() if offline else nullcontext():
                if step.adopt:
                    source, given = load(step.adopt)(source, given, keywords)
                return function(source, given, Call(step=step, source=source, settings=given, **keywords))

        called.__signature__ = known  # type: ignore[attr-defined]
        return called

    return wrap


def _check_data(given: Any) -> None:
    if not isinstance(given, str | Path | None) and not hasattr(given, "fingerprint"):
        kind = type(given).__name__
        raise UsageError(f"data: a {kind}, where a path or a name is wanted; slimzoo.from_arrays makes data of arrays")


def _speaking() -> dict[str, Any]:
    """On a terminal and in a notebook, what shows the progress and tells a person what to know, unless it is given."""
    if not (sys.stdout.isatty() or "ipykernel" in sys.modules):
        return {}
    from zoo.console import Console

    console = Console()
    return {"progress": console.progress, "tell": console.say}


def _signature(function: Callable[..., Any], step: Step, *, writes: bool) -> inspect.Signature:
    """A name for each thing that a caller can say."""

    def keyword(name: str, annotation: Any, default: Any = None) -> inspect.Parameter:
        return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)

    source = "str | Path | LoadedModel" if step.adopt else "str | Path | Data"
    found = [inspect.Parameter(step.source, inspect.Parameter.POSITIONAL_ONLY, annotation=source)]
    if step.data != "none":
        needed = step.data == "needed"
        found.append(keyword("data", f"str | Path | Data{'' if needed else ' | None'}", EMPTY if needed else None))
    found += [keyword(o.name, o.annotation, EMPTY if o.required else o.default) for o in step.load_settings().options()]
    found += [keyword("out", "str | Path | None"), keyword("overwrite", "bool", False)] if writes else []
    found += [keyword("resume", "bool", False)] if writes and step.resumes else []
    found += [keyword("progress", "Progress | None"), keyword("tell", "Callable[[str], None]", Call.tell)]
    found += [keyword(name, "str | Path | None") for name in ADOPTED if step.adopt]
    return inspect.Signature(
        [*found, keyword("offline", "bool", False)], return_annotation=inspect.signature(function).return_annotation
    )
