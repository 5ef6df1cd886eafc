"""`compress --worker URL`: help a search that another process has begun, here or on another machine."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from compress.plan.beginning import begin, fit_of, sources_of
from compress.plan.elsewhere import Target
from compress.plan.ledger import joined
from compress.plan.pipeline import Pipeline, code
from compress.plan.promises import interpolated
from compress.plan.searching import TRYING, Search
from compress.plan.settings import Compress
from compress.plan.timing import machine
from compress.quantization.cpu import best_scheme
from zoo.errors import UsageError
from zoo.lineage import BUILT_IN
from zoo.progress import Progress


@dataclass(frozen=True, kw_only=True)
class Worked:
    """
    Attributes:
        tried: names of what this worker has tried.
        said: what a person should know.
    """

    tried: Sequence[str]
    said: Sequence[str]

    def lines(self) -> list[str]:
        return [f"tried here: {', '.join(self.tried) or 'nothing'}; the search has nothing more to do now", *self.said]

    def document(self) -> dict[str, Any]:
        """Ready for JSON."""
        return {"tried": list(self.tried)}


def help_search(
    url: str,
    source: str | Path | None = None,
    *,
    data: str | Path | None = None,
    progress: Progress | None = None,
    tell: Callable[[str], None] = lambda line: None,
) -> Worked:
    """Try candidates of the search at `url` until there is nothing more to do.

    Args:
        url: that `compress` says when it begins, or of its `study`.
        source, data: those of the search, where they lie elsewhere on this machine.

    Raises:
        UsageError: no such search; other images, another slimzoo, or steps that are not kept where this worker sees
            them.
    """
    with closing(joined(url)) as ledger:
        about = ledger.about
        _check_source(about, source, data)
        sources = sources_of(source or about["source"], data or about["data"], Compress(**about["settings"]))
        pipeline = Pipeline(sources.images, progress=progress)
        _check(about, pipeline, sources.first)
        tried: list[str] = []

        def told(line: str) -> None:
            tried.extend([line.removeprefix(TRYING)] if line.startswith(TRYING) else [])
            tell(line)

        search = Search(pipeline, sources.settings, tuple(about["runtimes"]), told, None)
        search.shares, search.times = tuple(about["shares"]), about["machine"] == machine()
        search.networks, search.overhead_ms = about["networks"], about["overhead_ms"]
        search.target = None if about["target"] is None else Target.of(about["target"])
        search.promise(interpolated(search.networks, search.shares, search.overhead_ms))
        search.run(begin(search, sources.first, fit_of(None, sources.settings) if sources.fits else None), ledger)
    return Worked(tried=tried, said=search.said)


def _check_source(about: dict[str, Any], source: str | Path | None, data: str | Path | None) -> None:
    for named, given, kind in (("source", source, "SOURCE"), ("data", data, "--data")):
        place = about[named]
        if given is None and place and place not in BUILT_IN and not Path(place).exists():
            raise UsageError(f"the search is of {place} on {about['host']}, which is not here: name it with {kind}")


def _check(about: dict[str, Any], pipeline: Pipeline, source: str | Path) -> None:
    if about["code"] != code():
        raise UsageError("the search was begun by another version of slimzoo: install the same here")
    if about["content"] != pipeline.content:
        raise UsageError(f"{pipeline.data} holds other images than the search was begun with: name the same")
    if about["model"] is not None and about["model"] != pipeline.begin(source).key:
        raise UsageError(f"{source} is another model than the search was begun with: name the same")
    if about["int8"] != str(best_scheme()):
        raise UsageError(
            f"the search makes int8 of {about['int8']} for the processor of {about['host']}, and this one sums others "
            "exactly: help it from a machine of the same kind"
        )
    if not (pipeline.folder / about["name"]).exists():
        raise UsageError(
            f"the search keeps its steps in {about['steps']} on {about['host']}, and this worker in {pipeline.folder}: "
            "set SLIMZOO_CACHE to a folder that both share"
        )
