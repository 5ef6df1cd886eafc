"""Verbs: what slimzoo can be told to do, each written once as a record that the command line, `resume` and reports
read.

A verb that makes a model directory is a step. Its function takes a source, keywords for its settings, and what all
steps take (zoo/call.py); the command of its name takes the same words.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from zoo.lazy import load

if TYPE_CHECKING:
    from zoo.settings import Settings

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
        worker: "module:function" that helps a run of the step, which has a URL; "" where nothing can be helped.
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
    worker: str = ""
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
