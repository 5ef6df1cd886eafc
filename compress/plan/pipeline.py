"""Steps that are done once: each is kept under the hash of all that it depends on, and found there the next time.

A step's key is made of its verb and settings, of the files that these name, of its source (the key of the step that
made it, or the files of a model directory), of its images' content and parts, of our own code and the versions of what
computes, and of this machine where that decides what is made. What is kept lies in
$SLIMZOO_CACHE/steps/KEY/, a model directory as any, for every later run of whatever name; the oldest go when all
together are larger than MOST_BYTES. A step that was interrupted goes on from its checkpoint. Several processes may
share the folder: one works on a step, the others wait for it.
"""

from __future__ import annotations

import functools
import hashlib
import importlib.util
import json
import os
import re
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from compress.deployment.export import export
from compress.deployment.float_model import is_onnx_file
from compress.distillation.settings import Taught
from compress.plan.plan import PlannedStep
from compress.plan.timing import Device, machine
from compress.quantization.cpu import THIS, best_scheme
from compress.verbs import QUANTIZE, STEPS
from transfer.data.sources import list_source
from zoo.disk import cache_directory, json_bytes, read_json, replace_text, sha256
from zoo.errors import SlimzooError, UsageError
from zoo.files.directory import has_checkpoint, partial_of
from zoo.files.manifest import MANIFEST, verify_manifest
from zoo.files.model_directory import ONNX, is_model_directory, is_own_directory
from zoo.lineage import BUILT_IN, versions
from zoo.pretrained.upstream import place_of
from zoo.progress import Progress
from zoo.settings import Settings

MOST_BYTES = 4e9  # of all that is kept
PACKAGES = ("zoo", "transfer", "compress")
GONE = ".gone"  # ends the name of a directory that is being deleted
OWN = re.compile(r"[\w.]+:[\w.]+")  # a setting that is imported from somebody's own module


@dataclass(frozen=True)
class Kept:
    """A model directory that a step has made.

    Attributes:
        key: of the step.
        seconds: that it took, when it was done.
        reused: whether that was before.
    """

    path: Path
    key: str
    seconds: float
    reused: bool


class Pipeline:
    """
    Args:
        data: of all steps; None for steps that take none.
        folder: where steps are kept.

    Attributes:
        content: a hash of the data.
        device: this machine, of which measurements have all.
        progress: what was given, which waits while another process measures.
    """

    def __init__(
        self,
        data: str | Path | None,
        *,
        folder: Path | None = None,
        progress: Progress | None = None,
        tell: Callable[[str], None] = lambda line: None,
    ) -> None:
        self.data, self._tell = data, tell
        self.folder = cache_directory() / "steps" if folder is None else folder
        self._used = set[Path]()  # which this run may come back to
        self.device = Device(self.folder)
        self.progress = self.device.paused(progress)
        self.content = None if data is None else content_of(data)

    def begin(self, source: str | Path) -> Kept:
        """A model that is there, to take steps from: a directory, or an ONNX file, of which one is made.

        Raises:
            UsageError: a file that does not say how it takes pictures.
        """
        if not is_onnx_file(source):
            return Kept(Path(source), content_of(source), 0.0, True)
        key = _key_of([content_of(source), code(), versions()])
        place = self.folder / f"{key}-adopted"

        def make() -> None:
            try:
                export(source, out=place, overwrite=place.exists(), progress=self.progress)
            except UsageError as error:
                made = f"`slimzoo export {source} --preprocess P --out DIR` makes a directory that compress takes"
                raise UsageError(f"{error}; {made}") from error

        self._made_once(place, make)
        return Kept(place, key, 0.0, True)

    def done(self, step: PlannedStep, source: Kept | None = None) -> Kept:
        """The model directory that the step makes of its source; of the images, where it is a fit.

        Raises:
            SlimzooError: what the step raises.
        """
        key = self.key(step, source)
        place = self.folder / key
        self._used.add(place)
        with self._alone(place):
            began = time.monotonic()
            for used in (place, None if source is None else source.path):
                if used is not None and used.parent == self.folder and used.exists():
                    os.utime(used)  # it is of use
            if (found := self._kept(place)) is not None:
                return Kept(place, key, found, True)
            self._do(step, source, place)
            seconds = time.monotonic() - began
            with suppress(OSError):  # such as of a full disk; what was made is whole without
                replace_text(place.with_suffix(".json"), json.dumps({"seconds": seconds}))
        self._make_room()
        return Kept(place, key, seconds, False)

    def key(self, step: PlannedStep, source: Kept | None) -> str:
        terms = [step.verb, inputs_of(step.settings), None if source is None else source.key, self.content]
        return _key_of([*terms, code(), versions(), made_for(step)])

    def exported(self, kept: Kept) -> Path:
        """A copy of it that has its ONNX file and deploy/, made once."""
        if (kept.path / ONNX).exists():
            return kept.path
        place = self.folder / f"{kept.key}-exported"
        self._used.add(place)

        def make() -> None:
            shutil.rmtree(place, ignore_errors=True)
            shutil.copytree(kept.path, place)
            export(place, progress=self.progress)

        self._made_once(place, make)
        return place

    def spare(self, *kept: Kept) -> None:
        """Models that others have made, and this run may come back to."""
        for each in kept:
            self._used |= {each.path, self.folder / f"{each.key}-exported"}

    def _made_once(self, place: Path, make: Callable[[], None]) -> None:
        """A directory that is no step of its own, whole once it has its ONNX file."""
        with self._alone(place):
            if self._kept(place) is None or not (place / ONNX).exists():
                make()

    def is_done(self, step: PlannedStep, source: Kept | None) -> bool:
        return self._kept(self.folder / self.key(step, source)) is not None

    def remembered(
        self, kind: str, terms: Any, make: Callable[[], Any], *, keeps: Callable[[Any], bool] = lambda found: True
    ) -> Any:
        """What `make` gives, ready for JSON, for these terms; it is not asked again.

        Args:
            kind: what it is, in a word.
            keeps: whether what was found is worth it; what another has kept that is not, is asked again.
        """
        file = self.folder / f"{kind}-{_key_of([kind, terms, code(), versions()])}.json"
        self.folder.mkdir(parents=True, exist_ok=True)
        with FileLock(file.with_suffix(".lock")):
            if file.exists() and keeps(found := read_json(file)):
                return found
            content = json_bytes(make()).decode()
            if keeps(found := json.loads(content)):
                replace_text(file, content)
            return found

    def _do(self, step: PlannedStep, source: Kept | None, place: Path) -> None:
        verb, settings = STEPS[step.verb], step.settings
        first: Any = self.data if source is None else source.path
        if isinstance(settings, Taught):
            first, settings = settings.student, settings.by(first)
        data = {} if verb.source == "data" else {"data": self.data}
        going_on = has_checkpoint(partial_of(place)) if partial_of(place).is_dir() else False
        verb.load_function()(
            first,
            settings,
            **data,
            out=place,
            overwrite=place.exists(),
            **({"resume": going_on} if verb.resumes else {}),
            progress=self.progress,
            tell=self._tell,
        )

    @staticmethod
    def _kept(place: Path) -> float | None:
        """The seconds that it took, 0 where nobody could note them; None where it is not there, or damaged."""
        try:
            verify_manifest(place)
        except (SlimzooError, OSError):
            return None
        try:
            return float(json.loads(place.with_suffix(".json").read_text(encoding="utf-8"))["seconds"])
        except (OSError, ValueError, KeyError):
            return 0.0

    @contextmanager
    def _alone(self, place: Path) -> Iterator[None]:
        self.folder.mkdir(parents=True, exist_ok=True)
        with FileLock(place.with_suffix(".lock")):
            yield

    def _make_room(self) -> None:
        """Take away what was of use longest ago, not in this run, and nobody is at."""
        for gone in self.folder.glob(f"*{GONE}"):  # of a process that was killed meanwhile
            shutil.rmtree(gone, ignore_errors=True)
        places = [path.parent for path in self.folder.glob(f"*/{MANIFEST}")]
        kept = [found for place in places if (found := _age_and_bytes(place)) is not None]
        room = MOST_BYTES - sum(size for _, size, _ in kept)
        for _, size, path in sorted(each for each in kept if each[2] not in self._used):
            if room >= 0:
                break
            with suppress(Timeout, OSError), FileLock(path.with_suffix(".lock"), timeout=0):
                gone = path.with_suffix(GONE)
                os.rename(path, gone)  # so that none is ever there in part
                room += size
                shutil.rmtree(gone, ignore_errors=True)


def _key_of(terms: Any) -> str:
    return hashlib.sha256(json.dumps(terms, sort_keys=True).encode()).hexdigest()[:24]


def _age_and_bytes(place: Path) -> tuple[float, int, Path] | None:
    """When a step was last of use, and its size; None where another process is at work on it, or took it away."""
    if place.suffix:
        return None
    try:
        size = sum(file.stat().st_size for file in place.rglob("*") if file.is_file())
        return place.stat().st_mtime, size, place
    except OSError:
        return None


def inputs_of(settings: Settings) -> dict[str, Any]:
    """Settings as a key has them: files, folders and modules that they name by what is in them, wherever they lie."""
    values = settings.arguments()
    return {
        o.name: _own_code(o.located(values[o.name], lambda value: [_input_of(str(value))])) for o in settings.options()
    }


def _input_of(word: str) -> str:
    return _hash_of(Path(word)) if word not in BUILT_IN and os.path.exists(word) else word


def _own_code(value: Any) -> Any:
    """A "module:object" with a hash of the module's file, a place of timm's with one of what lies there."""
    if not isinstance(value, str):
        return value
    place = place_of(value)
    if place is not None:
        return [value, _input_of(place[1])]
    if not OWN.fullmatch(value):
        return value
    with suppress(ImportError, ValueError):
        found = importlib.util.find_spec(value.partition(":")[0])
        if found is not None and found.origin is not None and os.path.isfile(found.origin):
            return [value, sha256(Path(found.origin))]
    return value


def _hash_of(path: Path) -> str:
    """Of a file its content, of a model directory its files', of another folder the names, sizes and times in it."""
    if path.is_file():
        return sha256(path)
    if is_model_directory(path):
        return content_of(path)
    found = hashlib.sha256()
    for file in sorted(path.rglob("*")):
        about = file.lstat()  # a link may lead nowhere
        found.update(
            f"{file.relative_to(path).as_posix()} {about.st_size} {about.st_mtime_ns}\n".encode(errors="replace")
        )
    return found.hexdigest()


def made_for(step: PlannedStep) -> Any:
    """What of this machine decides what the step makes: which int8 its processor sums exactly, how fast it is."""
    given = step.settings.arguments()
    if step.verb == QUANTIZE.name and given["machine"] == THIS:
        return str(best_scheme())
    return machine() if given.get("latency") is not None else None


def content_of(source: str | Path) -> str:
    """A hash of a model directory's files, of an ONNX file, or of images, their classes and parts, in the order by
    which they are divided."""
    if str(source) in BUILT_IN:
        return str(source)
    if is_onnx_file(source):
        return sha256(Path(source))
    if is_own_directory(Path(source)):
        return sha256(Path(source, MANIFEST))
    if is_model_directory(Path(source)):  # timm's
        lines = [f"{sha256(file)} {file.name}" for file in sorted(Path(source).iterdir()) if file.is_file()]
    else:
        lines = [f"{item.digest} {item.class_name} {item.part}" for item in list_source(source).items]
    return hashlib.sha256("\n".join(lines).encode(errors="surrogateescape")).hexdigest()


@functools.cache
def code() -> str:
    """A hash of our own source files: a step of other code is another step."""
    root, found = Path(__file__).parents[2], hashlib.sha256()
    for package in PACKAGES:
        for path in sorted((root / package).rglob("*.py")):
            found.update(path.relative_to(root).as_posix().encode())
            found.update(path.read_bytes())
    return found.hexdigest()
