"""Predicted latency: networks of many widths are measured on the target runtime, and a cost in milliseconds is fitted.

ms = fixed + sum over operators of t_i x (share of i's products that is left) + sum over groups of u_g x (share of g's
width that is left), t, u >= 0: an operator's time follows what it multiplies, the reading and writing of activations
the widths. There are more operators than measured networks, so that times are held near shares of the MACs, as strongly
as predicts networks best that were left out of the fit. Other tables measure each layer alone (HALP, Shen et al. 2022,
arXiv 2110.10811, sec. 3.2), where the runtime neither fuses nor reorders as it does in the network.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch import nn

from compress.benchmark.harness import bench
from compress.benchmark.machine import default_threads, describe_machine
from compress.dependency.cut import cut_copy
from compress.dependency.group import Grouping, Indices, Product, Width
from compress.deployment.alike import Alike
from compress.pruning.allocate import narrowed
from compress.pruning.budget import Cost
from transfer.data.cache import cached_array, content_key
from zoo.errors import SlimzooError, UsageError
from zoo.lineage import versions
from zoo.progress import Progress

VERSION = 1  # of what is cut and how it is measured
NETWORKS = 24  # measured, the whole one among them
ROUNDS, SECONDS_PER_ROUND = 7, 0.05
NOISE = 1.1  # times a wanted latency that the narrowest network may seem to take; below, the table decides
WIDTHS_PER_BENCH = 8  # networks that wait in memory at a time
SPREAD = 0.35  # of the logarithms of the groups' shares about a network's own
PRIORS = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0)  # weights of the prior that are tried
FOLDS = 6

Array = NDArray[np.float64]


@dataclass(frozen=True)
class LatencyTable:
    """Measured networks and what follows from them.

    Attributes:
        cost: predicted milliseconds after any cut.
        keeps, ms: of the networks that were measured, the whole one first.
        error: median relative error on networks that were left out of the fit.
    """

    cost: Cost
    keeps: list[list[Indices]]
    ms: Array
    error: float


def latency_table(
    model: nn.Module,
    input_size: tuple[int, int, int],
    grouping: Grouping,
    *,
    threads: int | None = None,
    networks: int = NETWORKS,
    round_to: int = 8,
    floor: float = 0.1,
    seed: int = 0,
    wanted_ms: float | None = None,
    progress: Progress | None = None,
) -> LatencyTable:
    """Measure `networks` cuts of the model in onnxruntime, batch 1, and fit; measured once a machine, then read.

    Args:
        grouping: the model's.
        threads: None is one per physical core.
        wanted_ms: what a cut is to reach. Where even the narrowest network takes longer, or the whole one no more, that
            is found out first, before the others are measured.

    Raises:
        UsageError: the model has no groups; the wanted latency is out of their reach, or reached already.
        SlimzooError: a cut network cannot be exported or run.
    """
    threads = threads or default_threads()
    if not grouping.groups:
        raise UsageError("no group of this model can be cut: nothing changes its latency")
    keeps = sampled(grouping, networks, round_to=round_to, floor=floor, seed=seed)
    narrowest = narrowed(grouping, np.zeros(len(grouping.groups)), round_to=round_to, floor=floor)
    wholes: dict[str, float] = {}

    def measure() -> Iterator[Array]:
        blocks = [keeps[first : first + WIDTHS_PER_BENCH] for first in range(0, networks, WIDTHS_PER_BENCH)]
        if wanted_ms is not None:
            blocks.insert(0, [narrowest])
        ticks = _Ticks(sum(_measurements(len(block)) for block in blocks), progress)
        for number, block in enumerate(blocks):
            cut = [cut_copy(model, grouping, keep) for keep in block]
            whole, *ms = measured_ms([model, *cut], input_size, threads=threads, tick=ticks)
            if wanted_ms is not None and number == 0:
                check_within_reach(wanted_ms, whole, ms[0])
                continue
            yield np.array(ms) / whole * wholes.setdefault("first", whole)  # the machine may be slower by now

    machine = describe_machine()
    key = content_key(
        [f"{name} {tuple(tensor.shape)}" for name, tensor in model.state_dict().items()],
        [f"{group.name} {group.width}" for group in grouping.groups],
        f"{VERSION} {input_size} {threads} {networks} {round_to} {floor} {seed}",
        f"{machine['processor']} {machine['flags']}",
        str(versions()),
    )
    ms = np.array(cached_array("tables", key, shape=(networks,), dtype=np.float64, make=measure))
    cost, error = fit_cost(grouping, keeps, ms)
    return LatencyTable(cost, keeps, ms, error)


def check_within_reach(wanted_ms: float, whole_ms: float, narrowest_ms: float) -> None:
    """Raises:
    UsageError: the whole network is as fast already, or the narrowest is not, by more than the machine's noise.
    """
    if whole_ms <= wanted_ms:
        raise UsageError(f"the model takes {whole_ms:.2f} ms here, which is below {wanted_ms:g} ms: nothing to cut")
    if narrowest_ms > NOISE * wanted_ms:
        raise UsageError(
            f"{wanted_ms:.4g} ms is below what these groups can reach: the narrowest network takes {narrowest_ms:.3g} "
            f"ms here, the whole one {whole_ms:.3g} ms; ask for more, allow narrower groups with a lower floor, or "
            "start from a smaller model"
        )


class _Ticks:
    """Counts measurements, and says how many of all are done."""

    def __init__(self, total: int, progress: Progress | None) -> None:
        self.done, self.total, self._progress = 0, total, progress

    def __call__(self) -> None:
        self.done = min(self.done + 1, self.total)
        if self._progress is not None:
            self._progress("latency table", self.done, self.total, "exports, sessions and rounds")


def _measurements(cuts: int) -> int:
    """How often `measured_ms` ticks for that many cuts and the whole network: each exported, opened, then rounds."""
    return 2 * (cuts + 1) + ROUNDS + 1


def measured_ms(
    models: Sequence[nn.Module],
    input_size: tuple[int, int, int],
    *,
    threads: int | None = None,
    tick: Callable[[], None] = lambda: None,
) -> Array:
    """(models,) median milliseconds of one image in onnxruntime, measured in turns, each in a process of its own.

    Args:
        models: cuts of the first.
        tick: called after each step of it, see `_measurements`.
    """
    alike = Alike(models[0], input_size)
    with tempfile.TemporaryDirectory() as folder:
        files = [Path(folder, f"{i}.onnx") for i in range(len(models))]
        for file, model in zip(files, models, strict=True):
            file.write_bytes(alike.export(model).SerializeToString())
            tick()
        found = bench(
            files,
            runtimes=["onnxruntime"],
            threads=threads,
            rounds=ROUNDS,
            launches=1,
            seconds_per_round=SECONDS_PER_ROUND,
            progress=lambda *_: tick(),
        )
    failed = [row["reason"] for row in found["rows"] if row["reason"] is not None]
    if failed:
        raise SlimzooError(f"a network of other widths cannot be measured: {failed[0]}")
    if any(row["disturbed"] for row in found["rows"]):
        raise SlimzooError(
            f"this machine is too busy to cut by its time: {'; '.join(found['diagnoses'])}; end what runs beside it, "
            "or cut by --macs"
        )
    return np.array([row["median_ms"] for row in found["rows"]])


def sampled(grouping: Grouping, networks: int, *, round_to: int, floor: float, seed: int) -> list[list[Indices]]:
    """The whole network, then narrower and narrower ones, whose groups keep shares spread about one of theirs."""
    rng = np.random.default_rng(seed)
    found = [[np.arange(group.width) for group in grouping.groups]]
    for share in np.linspace(1.0, floor, networks)[1:]:
        shares = np.clip(share * np.exp(SPREAD * rng.standard_normal(len(grouping.groups))), floor, 1.0)
        found.append(narrowed(grouping, shares, round_to=round_to, floor=floor))
    return found


def fit_cost(grouping: Grouping, keeps: Sequence[Sequence[Indices]], ms: Array) -> tuple[Cost, float]:
    """The cost in milliseconds, and the median relative error on networks that were left out of the fit.

    Args:
        keeps, ms: of the networks, the whole one first.
    """
    products, sizes = _terms(grouping)
    columns = np.array([_left(Cost(grouping, products, [0.0] * len(products)), keep) for keep in keeps]) / sizes
    weight = np.array([product.constant for product in products], dtype=float) * sizes
    prior = 0.8 * ms[0] * weight / max(1.0, weight.sum())  # the widths' terms count no MACs: their prior is 0
    folds = np.arange(len(ms)) % min(FOLDS, len(ms))

    def left_out(strength: float) -> float:
        errors = []
        for fold in range(folds.max() + 1):
            inside, outside = folds != fold, folds == fold
            fixed, times = _solve(columns[inside], ms[inside], prior, strength)
            errors.append(np.abs(fixed + columns[outside] @ times - ms[outside]) / ms[outside])
        return float(np.median(np.concatenate(errors)))

    errors = [left_out(strength) for strength in PRIORS]
    best = int(np.argmin(errors))
    fixed, times = _solve(columns, ms, prior, PRIORS[best])
    return Cost(grouping, products, (times / sizes).tolist(), fixed=fixed, unit="ms"), errors[best]


def _terms(grouping: Grouping) -> tuple[list[Product], Array]:
    """The operators that depend on a width, then each group's width by itself; and their sizes in the whole network."""
    products = [product for product in grouping.products if any(len(w.channels) for w in product.factors)]
    start = 0
    for group in grouping.groups:
        channels = np.arange(start, start + group.width)
        products.append(Product(0, (Width(group.width, np.arange(group.width), channels),)))
        start += group.width
    return products, np.array([math.prod(w.size for w in p.factors) for p in products], dtype=float)


def _left(cost: Cost, keeps: Sequence[Indices]) -> Array:
    """(terms,) what is left of each term's size."""
    return np.array(cost.spend(keeps).sizes(), dtype=float)


def _solve(columns: Array, ms: Array, prior: Array, strength: float) -> tuple[float, Array]:
    """Least squares of the relative errors, `strength` times the distances from the prior added; nothing below 0."""
    from scipy.optimize import nnls

    scale = max(float(ms.max()) / max(1, len(prior)), 1e-12)
    left = np.column_stack([np.ones(len(ms)), columns]) / ms[:, None]
    held = strength * np.column_stack([np.zeros(len(prior)), np.eye(len(prior))]) / scale / math.sqrt(len(prior))
    wanted = np.concatenate([np.ones(len(ms)), strength * prior / scale / math.sqrt(len(prior))])
    found, _ = nnls(np.concatenate([left, held]), wanted)
    return float(found[0]), found[1:]
