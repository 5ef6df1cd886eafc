"""Written by benchmarks/stubs.py: do not edit."""

from collections.abc import Callable
from collections.abc import Mapping
from pathlib import Path
from transfer.data.dataset import open_data as open_data
from transfer.data.loader import LabelledPixels as LabelledPixels
from transfer.data.loader import load_pixels as load_pixels
from transfer.data.own_arrays import from_arrays as from_arrays
from transfer.data.sources import Data as Data
from transfer.data.split import stratified_split as stratified_split
from transfer.evaluation.evaluate import Evaluated as Evaluated
from transfer.evaluation.evaluate import evaluate as evaluate
from transfer.evaluation.metrics import Accuracy as Accuracy
from transfer.evaluation.metrics import Metrics as Metrics
from transfer.fitting.settings import Fit as Fit
from transfer.fitting.step import Fitted as Fitted
from transfer.prediction import Prediction as Prediction
from transfer.prediction import predict as predict
from transfer.result import StepResult as StepResult
from transfer.training.batch import TrainingData as TrainingData
from transfer.training.finetune import Finetuned as Finetuned
from transfer.training.finetune import finetune as finetune
from transfer.training.recipe import Recipe as Recipe
from typing import Any
from typing import Literal
from zoo.files.model_directory import LoadedModel
from zoo.progress import Progress

HOMES: dict[str, str]
__all__: list[str]


def fit(
    data: str | Path | Data,
    whole: Fit | None = None,
    /,
    *,
    seed: int = 0,
    model: str | Path | LoadedModel = 'tf_efficientnet_lite0',
    method: Literal['auto', 'prototype', 'probe', 'finetune', 'scratch'] = 'auto',
    time_s: float | str | None = None,
    epochs: int | None = None,
    size: int | None = None,
    batch: int | None = None,
    lr: float | str | None = None,
    flip: bool | None = None,
    settings: Mapping[str, Any] = {},
    val: float | str | None = None,
    test: float | str | None = None,
    layout: Literal['auto', 'parts', 'classes'] = 'auto',
    taps: bool = True,
    tensorboard: bool = False,
    out: str | Path | None = None,
    overwrite: bool = False,
    resume: bool = False,
    progress: Progress | None = None,
    tell: Callable[[str], None] = ...,
    offline: bool = False,
) -> Fitted:
    """Fit a model to labelled images and write `out`."""
