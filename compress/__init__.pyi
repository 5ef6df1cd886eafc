"""Written by benchmarks/stubs.py: do not edit."""

from collections.abc import Callable
from collections.abc import Sequence
from compress.benchmark.harness import bench as bench
from compress.benchmark.table import Benchmark as Benchmark
from compress.clustering.cluster import share_weights as share_weights
from compress.clustering.settings import Cluster as Cluster
from compress.clustering.step import ClusteredStep as ClusteredStep
from compress.demonstration import demo as demo
from compress.dependency.group import Group as Group
from compress.dependency.group import Grouping as Grouping
from compress.dependency.groups import find_groups as find_groups
from compress.deployment.export import ExportedStep as ExportedStep
from compress.deployment.settings import Export as Export
from compress.distillation.settings import Distill as Distill
from compress.distillation.step import DistilledStep as DistilledStep
from compress.graph.network import export_network as export_network
from compress.plan.outcome import Compressed as Compressed
from compress.plan.settings import Budgets as Budgets
from compress.plan.settings import Compress as Compress
from compress.pruning.importance import l2_norm as l2_norm
from compress.pruning.settings import Prune as Prune
from compress.pruning.step import PrunedStep as PrunedStep
from compress.pruning.structured import Pruned as Pruned
from compress.pruning.structured import prune_channels as prune_channels
from compress.quantization.calibrate import Histogram as Histogram
from compress.quantization.calibrate import Images as Images
from compress.quantization.converted import Converted as Converted
from compress.quantization.cpu import Scheme as Scheme
from compress.quantization.ptq import Quantized as Quantized
from compress.quantization.ptq import quantize_static as quantize_static
from compress.quantization.settings import Quantize as Quantize
from compress.quantization.step import QuantizedStep as QuantizedStep
from compress.report.report import Report as Report
from compress.report.report import build_report as build_report
from compress.resuming import resume as resume
from compress.sparsity.settings import Sparsify as Sparsify
from compress.sparsity.sparsify import sparsify_weights as sparsify_weights
from compress.sparsity.step import SparsifiedStep as SparsifiedStep
from pathlib import Path
from transfer.data.sources import Data
from typing import Any
from typing import Literal
from zoo.files.model_directory import LoadedModel
from zoo.progress import Progress

HOMES: dict[str, str]
__all__: list[str]


def cluster(
    directory: str | Path | LoadedModel,
    whole: Cluster | None = None,
    /,
    *,
    data: str | Path | Data,
    seed: int = 0,
    bits: float = 4.0,
    bit_price: float = 0.0,
    epochs: int = 4,
    out: str | Path | None = None,
    overwrite: bool = False,
    resume: bool = False,
    progress: Progress | None = None,
    tell: Callable[[str], None] = ...,
    arch: str | Path | None = None,
    preprocess: str | Path | None = None,
    classes: str | Path | None = None,
    offline: bool = False,
) -> ClusteredStep:
    """Let each layer's weights share a few values, more where it is sensitive, and train the values."""

def compress(
    source: str | Path | Data,
    whole: Compress | None = None,
    /,
    *,
    data: str | Path | Data | None = None,
    seed: int = 0,
    max_drop: float = 1.0,
    metric: Literal['top1', 'balanced'] = 'top1',
    latency: float | str | None = None,
    latency_from: Sequence[str] = (),
    answer: float | str | None = None,
    size: float | str | None = None,
    macs: float | str | None = None,
    memory: float | str | None = None,
    time_s: float | str | None = None,
    shares: tuple[float, ...] | str = (),
    student: Sequence[str] = (),
    trials: int = 0,
    runtime: tuple[Literal['onnxruntime', 'openvino'], ...] = (),
    model: str | Path = 'tf_efficientnet_lite0',
    threads: int | None = None,
    plan: str | Path | None = None,
    study: str | None = None,
    finish: bool = False,
    out: str | Path | None = None,
    overwrite: bool = False,
    resume: bool = False,
    progress: Progress | None = None,
    tell: Callable[[str], None] = ...,
    offline: bool = False,
) -> Compressed:
    """Fit if SOURCE is images, search for the model that meets the budgets, and write it with what was tried."""

def distill(
    student: str | Path | LoadedModel,
    whole: Distill | None = None,
    /,
    *,
    data: str | Path | Data,
    teacher: str | Path | LoadedModel,
    temperature: float = 4.0,
    weight: float = 0.9,
    features: float = 0.0,
    patience: int = 0,
    unlabeled: str | Path | None = None,
    seed: int = 0,
    epochs: int | None = None,
    size: int | None = None,
    out: str | Path | None = None,
    overwrite: bool = False,
    resume: bool = False,
    progress: Progress | None = None,
    tell: Callable[[str], None] = ...,
    arch: str | Path | None = None,
    preprocess: str | Path | None = None,
    classes: str | Path | None = None,
    offline: bool = False,
) -> DistilledStep:
    """Train a student on labels and on a teacher's answers, and write it to `out`."""

def export(
    directory: str | Path | LoadedModel,
    whole: Export | None = None,
    /,
    *,
    coded: bool = False,
    out: str | Path | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
    tell: Callable[[str], None] = ...,
    arch: str | Path | None = None,
    preprocess: str | Path | None = None,
    classes: str | Path | None = None,
    offline: bool = False,
) -> ExportedStep:
    """Write model.onnx and deploy/, in the model directory or a new one, and a record in its lineage."""

def prune(
    directory: str | Path | LoadedModel,
    whole: Prune | None = None,
    /,
    *,
    data: str | Path | Data | None = None,
    macs: float | None = None,
    latency: float | str | None = None,
    size: int | None = None,
    blocks: int = 0,
    criterion: Any = None,
    allocation: Any = None,
    rounds: int = 1,
    round_to: int = 8,
    floor: float = 0.1,
    normalized: bool = False,
    threads: int | None = None,
    temperature: float = 4.0,
    weight: float = 0.9,
    features: float = 0.0,
    patience: int = 0,
    unlabeled: str | Path | None = None,
    seed: int = 0,
    recover: int = 8,
    sparse_epochs: int = 0,
    penalty: Literal['group-lasso', 'bn-scale'] = 'group-lasso',
    out: str | Path | None = None,
    overwrite: bool = False,
    resume: bool = False,
    progress: Progress | None = None,
    tell: Callable[[str], None] = ...,
    arch: str | Path | None = None,
    preprocess: str | Path | None = None,
    classes: str | Path | None = None,
    offline: bool = False,
) -> PrunedStep:
    """Cut channels, measure BatchNorm afresh, train again, and write `out`."""

def quantize(
    directory: str | Path | LoadedModel,
    whole: Quantize | None = None,
    /,
    *,
    data: str | Path | Data,
    seed: int = 0,
    to: Any = 'int8',
    machine: Literal['this', 'any', 'x86', 'x86-vnni', 'arm'] = 'this',
    max_drop: float | None = None,
    ranges: Any = 'auto',
    bits: int = 8,
    epochs: int = 0,
    keep: Sequence[str] = (),
    out: str | Path | None = None,
    overwrite: bool = False,
    resume: bool = False,
    progress: Progress | None = None,
    tell: Callable[[str], None] = ...,
    arch: str | Path | None = None,
    preprocess: str | Path | None = None,
    classes: str | Path | None = None,
    offline: bool = False,
) -> QuantizedStep:
    """Export, calibrate on training images, quantize, measure, and write `out`."""

def sparsify(
    directory: str | Path | LoadedModel,
    whole: Sparsify | None = None,
    /,
    *,
    data: str | Path | Data,
    seed: int = 0,
    density: float | None = None,
    pattern: str | None = None,
    criterion: Any = None,
    ranking: Any = None,
    epochs: int = 12,
    out: str | Path | None = None,
    overwrite: bool = False,
    resume: bool = False,
    progress: Progress | None = None,
    tell: Callable[[str], None] = ...,
    arch: str | Path | None = None,
    preprocess: str | Path | None = None,
    classes: str | Path | None = None,
    offline: bool = False,
) -> SparsifiedStep:
    """Make weights zero one by one while the others are trained, taught by the model as it was."""
