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
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock

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
from zoo.files.model_directory import ONNX, is_model_directory
from zoo.lineage import BUILT_IN, versions
from zoo.progress import Progress
from zoo.settings import Settings

MOST_BYTES = 4e9  # of all that is kept
PACKAGES = ("zoo", "transfer", "compress")
MODEL = "model"  # a setting that is a name or a directory


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
        key = content_of(source)[:24]
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
            _note_seconds(place, seconds)
        self._make_room()
        return Kept(place, key, seconds, False)

    def key(self, step: PlannedStep, source: Kept | None) -> str:
        terms = [step.document(), None if source is None else source.key, self.content, code(), versions()]
        terms += [inputs_of(step.settings), made_for(step)]
        return hashlib.sha256(json.dumps(terms, sort_keys=True).encode()).hexdigest()[:24]

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

    def _made_once(self, place: Path, make: Callable[[], None]) -> None:
        """A directory that is no step of its own."""
        with self._alone(place):
            if self._kept(place) is None:
                make()
                _note_seconds(place, 0.0)

    def is_done(self, step: PlannedStep, source: Kept | None) -> bool:
        return self._kept(self.folder / self.key(step, source)) is not None

    def remembered(
        self, kind: str, terms: Any, make: Callable[[], Any], *, keeps: Callable[[Any], bool] = lambda found: True
    ) -> Any:
        """What `make` gives, ready for JSON, for these terms; it is not asked again.

        Args:
            kind: what it is, in a word.
            keeps: whether what was found is worth it.
        """
        key = hashlib.sha256(json.dumps([kind, terms, code(), versions()], sort_keys=True).encode()).hexdigest()[:24]
        file = self.folder / f"{kind}-{key}.json"
        self.folder.mkdir(parents=True, exist_ok=True)
        with FileLock(file.with_suffix(".lock")):
            if file.exists():
                return read_json(file)
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
        """The seconds that it took; None where it is not there, or not whole."""
        try:
            verify_manifest(place)
            return float(json.loads(place.with_suffix(".json").read_text(encoding="utf-8"))["seconds"])
        except (SlimzooError, OSError, ValueError, KeyError):
            return None

    @contextmanager
    def _alone(self, place: Path) -> Iterator[None]:
        self.folder.mkdir(parents=True, exist_ok=True)
        with FileLock(place.with_suffix(".lock")):
            yield

    def _make_room(self) -> None:
        """Take away what was of use longest ago, and not in this run."""
        places = [path.parent for path in self.folder.glob(f"*/{MANIFEST}")]
        kept = [found for place in places if (found := _age_and_bytes(place)) is not None]
        room = MOST_BYTES - sum(size for _, size, _ in kept)
        for _, size, path in sorted(each for each in kept if each[2] not in self._used):
            if room >= 0:
                break
            room += size
            shutil.rmtree(path, ignore_errors=True)


def _age_and_bytes(place: Path) -> tuple[float, int, Path] | None:
    """When a step was last of use, and its size; None where another process is at work on it, or took it away."""
    if place.suffix:
        return None
    try:
        size = sum(file.stat().st_size for file in place.rglob("*") if file.is_file())
        return place.stat().st_mtime, size, place
    except OSError:
        return None


def inputs_of(settings: Settings) -> dict[str, str]:
    """Hashes of the files and folders that settings name: what lies there may be another by the next time."""
    given = settings.arguments()
    values = [given[option.name] for option in settings.options() if option.path or option.name == MODEL]
    words = {str(word) for value in values for word in (value if isinstance(value, list) else [value])}.difference(
        BUILT_IN
    )
    return {word: _hash_of(Path(word)) for word in sorted(words) if word and os.path.exists(word)}


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


def _note_seconds(place: Path, seconds: float) -> None:
    """By which a directory that is whole is told from one that was interrupted."""
    place.with_suffix(".json").write_text(json.dumps({"seconds": seconds}), encoding="utf-8")


def content_of(source: str | Path) -> str:
    """A hash of a model directory's files, of an ONNX file, or of images, their classes and parts."""
    if str(source) in BUILT_IN:
        return str(source)
    if is_onnx_file(source):
        return sha256(Path(source))
    if is_model_directory(Path(source)):
        return hashlib.sha256((Path(source) / MANIFEST).read_bytes()).hexdigest()
    listing = list_source(source)
    lines = sorted(f"{item.digest} {item.class_name} {item.part}" for item in listing.items)
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
