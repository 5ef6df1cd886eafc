"""What `compress` begins with: images that it fits first, or a fitted model and its images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from compress.deployment.float_model import is_onnx_file
from compress.distillation.settings import Taught
from compress.distillation.step import check_name
from compress.plan.pipeline import Kept
from compress.plan.plan import Plan, PlannedStep
from compress.plan.search import SHARES
from compress.plan.searching import Search
from compress.plan.settings import Compress
from compress.plan.trial import Candidate, Trial
from compress.pruning.settings import Prune
from compress.quantization.settings import Quantize
from compress.quantization.step import check_training
from compress.recovery.settings import Unlabeled
from compress.verbs import QUANTIZE
from transfer.data.fitted_data import open_for
from transfer.data.sources import Data, is_dataset, no_dataset
from transfer.data.split import VAL
from transfer.data.torchvision_data import is_of_torchvision
from transfer.fitting.settings import DEFAULT_MODEL, Fit
from transfer.fitting.start import check
from zoo.errors import SlimzooError, UsageError, did_you_mean
from zoo.files.manifest import CHECKPOINTS, TRIALS
from zoo.files.model_directory import ONNX, is_model_directory, read_config
from zoo.lineage import current_metrics, current_record
from zoo.models.registry import is_registered
from zoo.pretrained.upstream import is_upstream

FIT_SHARE = 0.4  # of the time that is given for all
NO_ANSWERS = "no answers to validation images, by which losses are judged: fit it with --val"


@dataclass(frozen=True)
class Sources:
    """
    Attributes:
        images: of the whole run.
        model: a directory or an ONNX file that is fitted to them; None where that is done first.
        settings: as they were given, with the name of the model to fit where that was the source.
    """

    images: str | Path
    model: str | None
    settings: Compress

    @property
    def fits(self) -> bool:
        return self.model is None

    @property
    def is_onnx(self) -> bool:
        """Whether it is fitted, and a program that is neither cut nor trained."""
        return self.model is not None and (is_onnx_file(self.model) or read_config(Path(self.model)).primary == ONNX)

    @property
    def first(self) -> str | Path:
        """What the first step begins with."""
        return self.images if self.model is None else self.model


def sources_of(source: str | Path | Data, data: str | Path | Data | None, settings: Compress) -> Sources:
    """
    Raises:
        UsageError: a model without images, images or models twice, or a source of another kind.
    """
    named = str(source)
    if isinstance(source, Data) or isinstance(data, Data):
        raise UsageError("compress takes images that lie somewhere: steps are kept by what is in the files")
    if not named:
        raise UsageError("SOURCE is needed: a folder of images, or a model with --data")
    if is_onnx_file(named) and not Path(named).exists():
        raise UsageError(f"{named} does not exist: SOURCE is an ONNX file, or another model, or images")
    if is_upstream(named) and not is_of_torchvision(named):
        if data is None:
            raise UsageError(f"{source} is fitted to images first: name them with --data")
        if settings.model not in (DEFAULT_MODEL, named):
            raise UsageError(f"{source} and --model {settings.model} are two models to fit: leave one of them out")
        return Sources(_images(data), None, settings.model_copy(update={"model": named}))
    if is_onnx_file(named) or is_model_directory(Path(named)):
        if data is None:
            raise UsageError(f"{source} is a model: name the images of its fit with --data, by which losses are judged")
        if settings.model != DEFAULT_MODEL:
            raise UsageError(
                f"--model {settings.model} is what images are fitted to, and {source} is fitted already: leave out one"
            )
        return Sources(_images(data), named, settings)
    if data is not None:
        raise _no_model(named, data)
    return Sources(_images(source), None, settings)


def _images(source: str | Path) -> str | Path:
    """
    Raises:
        UsageError: nothing is there that could be images.
    """
    if not is_dataset(source):
        raise no_dataset(source)
    return source


def _no_model(named: str, data: str | Path) -> UsageError:
    """What is said of a SOURCE that is named beside images, and is no model."""
    if is_model_directory(Path(named, "model")):
        return UsageError(f"{named} is what `compress` made, of which one model is meant: {Path(named, 'model')}")
    if is_registered(named):
        return UsageError(
            f"{named} is a network that is still to be fitted: `slimzoo compress {data} --model {named}` does both"
        )
    if is_dataset(named):
        return UsageError(f"{named} is taken for images, so that --data {data} is one source too many; leave it out")
    wanted = "wanted a model directory, an ONNX file, timm:NAME or torchvision:NAME"
    beside = [path.name for path in Path(named).absolute().parent.glob("*")]
    return UsageError(f"no model {named!r}: {did_you_mean(Path(named).name, beside, wanted)}")


def check_plan(plan: Plan | None, sources: Sources) -> None:
    """
    Raises:
        UsageError: the plan begins with a fit, and nothing is to be fitted, or another model; an unknown model or
            student; what a step would refuse later.
    """
    settings = sources.settings
    for step in plan.after_fit if plan is not None else ():
        if sources.is_onnx and step.verb != QUANTIZE.name:
            raise UsageError(f"{sources.model} is an ONNX model, which only `quantize` takes: leave `{step.verb}` out")
        _check_step(step)
    if plan is not None and "fit" in plan.verbs:
        if not sources.fits:
            raise UsageError(
                "the plan begins with a fit, and SOURCE is fitted already: leave out the fit, or name images"
            )
        planned = plan.steps[0].settings.arguments()["model"]
        if settings.model not in (DEFAULT_MODEL, planned):
            raise UsageError(
                f"the plan fits {planned}, and {settings.model} was asked for: name that in the plan, or leave it out"
            )
    if sources.fits:
        fitted: Any = fit_of(plan, settings).settings
        check(fitted.model, fitted.method, fitted.size)
    for student in settings.student:
        check_name(student)
    for step in plan.steps if plan is not None else ():
        if isinstance(step.settings, Taught):
            check_name(step.settings.student, step.settings.size)


def _check_step(step: PlannedStep) -> None:
    """By its settings alone, so that it does not end what took hours before it.

    Raises:
        UsageError: see the step's own.
    """
    try:
        if isinstance(step.settings, Prune):
            step.settings.check(images=True)
        if isinstance(step.settings, Quantize) and step.settings.epochs:
            check_training()
        if isinstance(step.settings, Unlabeled) and step.settings.unlabeled is not None:
            _images(step.settings.unlabeled)
    except UsageError as error:
        raise UsageError(f"the plan's `{step.verb}`: {error}") from error


def fit_of(plan: Plan | None, settings: Compress) -> PlannedStep:
    time_s = None if settings.time_s is None else FIT_SHARE * settings.time_s
    if plan is not None and "fit" in plan.verbs:
        planned: Any = plan.steps[0].settings
        return PlannedStep("fit", planned.model_copy(update={"time_s": planned.time_s or time_s}))
    return PlannedStep("fit", Fit(model=settings.model, seed=settings.seed, time_s=time_s))


def shares_of(sources: Sources) -> tuple[float, ...]:
    """Of the MACs, to choose from; none of an ONNX file, which is not cut.

    Raises:
        UsageError: some are asked for.
    """
    model, settings = sources.model, sources.settings
    if not sources.is_onnx:
        return settings.shares or SHARES
    if settings.shares or settings.trials or settings.student or settings.macs is not None:
        raise UsageError(
            f"{model} is an ONNX model, of which only int8 is made: leave out --shares, --student, --trials and --macs"
        )
    return ()


def check_images(search: Search, source: str) -> dict[str, Any]:
    """What `--data` gives a fitted model: {"fingerprint", "sizes"}, opened once.

    Raises:
        UsageError: they have other classes than it; none is left to judge losses by.
    """
    kept, data = search.pipeline.begin(source), search.pipeline.data
    assert data is not None

    def opened() -> dict[str, object]:
        return open_for(read_config(kept.path), data).record()

    found: dict[str, Any] = search.pipeline.remembered("images", [kept.key, search.pipeline.content], opened)
    if not found["sizes"][VAL]:
        raise UsageError(f"{source} has {NO_ANSWERS}")
    return found


def begin(search: Search, source: str | Path, fitted: PlannedStep | None) -> Trial:
    """The fitted model, as the first trial; a run that is interrupted before there is one can be resumed.

    Args:
        fitted: the step that makes it, where `source` is images.
    """
    marker = None if search.work is None else search.work / CHECKPOINTS / TRIALS
    if marker is None or marker.exists():
        return _begun(search, source, fitted)
    search.keep()
    try:
        return _begun(search, source, fitted)
    except SlimzooError as error:
        if not isinstance(error.__cause__, OSError):  # such as of a full disk
            marker.unlink(missing_ok=True)  # the same again would fail again
        raise


def _begun(search: Search, source: str | Path, fitted: PlannedStep | None) -> Trial:
    if fitted is None:
        kept: Kept = search.pipeline.begin(source)
    else:
        if not search.pipeline.is_done(fitted, None):
            search.tell(f"fitting {fitted.settings.arguments()['model']} to {source}")
        kept = search.timed(fitted, None)
    lineage = read_config(kept.path).lineage
    metrics = current_metrics(lineage)
    if fitted is None and (VAL not in metrics or not _are_of(check_images(search, str(source)), lineage)):
        step = Candidate(int8=True).plan(search.settings.seed).steps[0]  # which measures what it is made of
        record = read_config(search.timed(step, kept).path).lineage[-1]
        metrics = {**metrics, **record["metrics"]["before"]}
        if why := record["unmeasured"]:
            raise UsageError(f"what {source} loses cannot be measured: {why}")
    if not metrics.get(VAL, {}).get("correct"):
        raise UsageError(f"{kept.path} has {NO_ANSWERS}")
    return search.base(kept, metrics)


def _are_of(images: dict[str, Any], lineage: Sequence[dict[str, Any]]) -> bool:
    """Whether what is known of the model's accuracy is of these images; others may have come or gone since."""
    return bool(images["fingerprint"] == (current_record(lineage).get("data") or {}).get("fingerprint"))
