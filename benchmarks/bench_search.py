"""Does `slimzoo compress` find a model that is faster than what others make of the same network, at a point at most?

    pip install fastai fasterai              # peers; fastai 2.8.12, fasterai 0.4.1; without them their rows say so
    python benchmarks/bench_search.py [TASK...] [--models NAME...] [--seeds 0 1 2] [--only PART...]
    python benchmarks/bench_search.py --write

Google's emoji in nine classes, a fifth of them kept back, and scikit-learn's digits; a pretrained EfficientNet-Lite0 at
the size that `fit` takes, and ResNet-18 from scratch at 64 px. The data are found by SLIMZOO_DATA (default
../shared/data). Each network is fitted once. Whatever is made of it is judged by the test images, paired with its own
answers, and all files of one network are measured side by side in the end, in onnxruntime and in OpenVINO. Speed is
that over the fitted network in onnxruntime, in the runtime that the method names.

ours: `compress FITTED --data DATA --max-drop 1`, with every other option at its default.
by hand: `quantize`, `prune` to half and to 30% of the MACs and then `quantize`; and `prune --latency` to what the float
form of ours was measured to take, without as many blocks, and then `quantize`: is ours as accurate as what is as fast?
Peers (search_peers.py): NNCF in OpenVINO, onnxruntime's quantize_static, torch-pruning to half and to 30% with plain
fine-tuning, in float and then in int8; fasterai's pruning and distillation to as many MACs, then int8; and the fitted
network in OpenVINO.

Caches are empty for each method. What is made is kept in the folder slimzoo-bench-search of the system's temporary
files, rows as they come in results/search.runs.json; what is there is not run again.
"""

from __future__ import annotations

import argparse
import itertools
import os
import re
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import onnx
from numpy.typing import NDArray
from record import Rows, write_result
from search_figures import FIT, OPENVINO, ORT, OURS, TIMES, figures
from search_own import OWN
from search_peers import PEERS
from search_start import Answer, Made, Maker, Start

from compress.benchmark.harness import bench
from compress.benchmark.runtimes import RUNTIMES
from transfer.data.fitted_data import open_for
from transfer.data.loader import load_pixels
from transfer.data.split import TEST
from transfer.fitting.step import fit
from zoo.errors import UsageError
from zoo.files.model_directory import read_config
from zoo.preprocess import Preprocess

TASKS: dict[str, dict[str, Any]] = {"digits": {}, "emoji": {"test": 0.2}}
MODELS: dict[str, dict[str, Any]] = {
    "tf_efficientnet_lite0": {},
    "resnet18": {"method": "scratch", "size": 64},  # whose weights would have to be downloaded
}
OTHERS = {"method": "scratch"}  # models that are asked for by name
ROUNDS, LAUNCHES = 12, 6  # of the measurement side by side
BATCH = 64  # of test images
WORK = Path(tempfile.gettempdir(), "slimzoo-bench-search")
Row = dict[str, Any]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tasks", nargs="*", metavar="TASK", help=f"by default all: {', '.join(TASKS)}")
    parser.add_argument("--models", nargs="+", default=list(MODELS), metavar="NAME")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parts = list(dict.fromkeys([*(part.split()[0] for part in PARTS), TIMES]))
    parser.add_argument("--only", choices=parts, nargs="+", default=parts, help="rows of these alone")
    parser.add_argument("--write", action="store_true", help="only write the result")
    given = parser.parse_args()
    if unknown := set(given.tasks) - set(TASKS):
        parser.error(f"unknown task {', '.join(sorted(unknown))}; known: {', '.join(TASKS)}")
    rows = Rows("search")
    if not given.write:
        for seed, task, model in itertools.product(given.seeds, given.tasks or TASKS, given.models):
            Group(task, model, seed, rows).measure(given.only)
    found = figures(rows.all, [name for part in PEERS for name in PARTS[part][1]], BY_HAND)
    print(write_result("search", found, "python benchmarks/bench_search.py"))
    print(*found["missed"], sep="\n")
    return 4 if found["missed"] else 0


@dataclass(frozen=True)
class Group:
    """All that is made of one network."""

    task: str
    model: str
    seed: int
    rows: Rows

    @property
    def folder(self) -> Path:
        return WORK / f"{self.task}-{self.model}-{self.seed}"

    @property
    def data(self) -> str:
        if self.task != "emoji":
            return self.task
        return str(Path(os.environ.get("SLIMZOO_DATA", "../shared/data"), "emoji", "google").resolve())

    def measure(self, only: Sequence[str]) -> None:
        """The rows that are not there yet."""
        parts = [part for part in PARTS if part.split()[0] in only and not all(map(self.has, PARTS[part][1]))]
        if not parts and (TIMES not in only or self.row(TIMES)):
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        fitted = self.fitted()
        for part in parts:
            with self.start(fitted) as start:
                self.make(part, start)
        if TIMES in only and not self.row(TIMES):
            self.time()

    def row(self, method: str) -> Row | None:
        return self.rows.find(task=self.task, model=self.model, seed=self.seed, method=method)

    def file(self, method: str) -> Path:
        return self.folder / f"{re.sub(r'[^a-z0-9.]+', '-', method)}.onnx"

    def has(self, method: str) -> bool:
        """Whether nothing is left to do for it: its file is needed until all have been timed."""
        row = self.row(method)
        return row is not None and ("reason" in row or self.file(method).exists() or self.row(TIMES) is not None)

    def keep(self, method: str, **found: Any) -> None:
        old = self.row(method)
        self.rows.all = [row for row in self.rows.all if row is not old]
        self.rows.keep({"task": self.task, "model": self.model, "seed": self.seed, "method": method, **found})
        told = found.get("reason") or f"{found['top1_pct']:.2f}% {found['seconds']:.0f} s"
        print(self.task, self.model, self.seed, method, told, flush=True)

    @contextmanager
    def start(self, fitted: Path) -> Iterator[Start]:
        with fresh() as folder:
            yield Start(fitted, self.data, self.seed, folder, self.row(OURS))

    def fitted(self) -> Path:
        place = self.folder / "fitted"
        if not place.exists():
            how = TASKS[self.task] | MODELS.get(self.model, OTHERS)
            with fresh():
                fit(self.data, model=self.model, seed=self.seed, out=place, overwrite=True, **how)
        if not self.has(FIT):
            with self.start(place) as start:
                made = Made(start.network, start.loaded.config.preprocess)
                self.keep(FIT, **self.answered(FIT, made, start), seconds=read_config(place).lineage[0]["seconds"])
        return place

    def make(self, part: str, start: Start) -> None:
        """Run what gives the methods of a part."""
        maker, methods = PARTS[part]
        expected = Exception if part in PEERS else UsageError  # peers fail with errors of every kind
        began = time.monotonic()
        left = list(methods)
        try:
            for method, made in maker(start):
                seconds = round(time.monotonic() - began, 1)
                left.remove(method)
                self.keep(method, **self.answered(method, made, start), **({"seconds": seconds} | made.facts))
                began = time.monotonic() - seconds  # answering takes none of its time
        except expected as error:
            said = f"not measured: {type(error).__name__}: {error}".splitlines()[0]
            for method in left:
                self.keep(method, reason=said)

    def answered(self, method: str, made: Made, start: Start) -> dict[str, Any]:
        """Keep the network, and what its answers to the test images are."""
        file = self.file(method)
        onnx.save(made.network, file)
        answer = made.answer or RUNTIMES[made.runtime](file).run
        right = right_answers(answer, made.preprocess, start)
        return {
            "runtime": made.runtime,
            "size": made.preprocess.size[0],
            "size_bytes": file.stat().st_size,
            "top1_pct": round(100 * float(right.mean()), 4),
            "correct": "".join("01"[int(each)] for each in right),
        }

    def time(self) -> None:
        """All files side by side, unless some is still to be made or other work disturbs them."""
        methods = [FIT, *(method for _, names in PARTS.values() for method in names)]
        if missing := [method for method in methods if not self.has(method)]:
            print(self.task, self.model, self.seed, "not timed before there is", ", ".join(missing), flush=True)
            return
        there = [method for method in methods if "reason" not in (self.row(method) or {})]
        began = time.monotonic()
        found = bench(
            [self.file(method) for method in there],
            runtimes=[ORT, OPENVINO],
            rounds=ROUNDS,
            launches=LAUNCHES,
            photos=[],
            save=self.folder / "bench.json",
        )
        if any(row["ratio"] is None and row["reason"] is None for row in found.rows):
            print(self.task, self.model, self.seed, "no times:", *found["diagnoses"], flush=True)
            (self.folder / "bench.json").unlink()
            return
        seconds, rows = round(time.monotonic() - began, 1), dict[str, dict[str, Any]]()
        for (method, runtime), row in zip(itertools.product(there, (ORT, OPENVINO)), found.rows, strict=True):
            kept = ("median_ms", "ratio", "ratio_ci", "reason", "precision")
            rows.setdefault(method, {})[runtime] = {key: row[key] for key in kept}
        told = {key: found[key] for key in ("noise", "disturbed_share")} | {"threads": found.rows[0]["threads"]}
        row = {"task": self.task, "model": self.model, "seed": self.seed, "method": TIMES}
        self.rows.keep({**row, "rows": rows, "seconds": seconds, **told})
        print(found, flush=True)


@contextmanager
def fresh() -> Iterator[Path]:
    """An empty folder, and an empty cache."""
    with tempfile.TemporaryDirectory() as folder, mock.patch.dict(os.environ, SLIMZOO_CACHE=str(Path(folder, "cache"))):
        yield Path(folder)


def right_answers(answer: Answer, preprocess: Preprocess, start: Start) -> NDArray[np.bool_]:
    """(N,) of the test images, at the size that the network takes."""
    test = load_pixels(open_for(start.loaded.config, start.data), preprocess, TEST, None)
    batches = [preprocess.normalize(test.pixels[at : at + BATCH]) for at in range(0, len(test), BATCH)]
    found: NDArray[np.bool_] = np.concatenate([answer(batch) for batch in batches]).argmax(1) == test.labels
    return found


PARTS: dict[str, tuple[Maker, tuple[str, ...]]] = OWN | PEERS
BY_HAND = [name for part in OWN if part != OURS for name in OWN[part][1]]


if __name__ == "__main__":
    sys.exit(main())
