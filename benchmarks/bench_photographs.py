"""What `slimzoo fit FOLDER` makes of a few hundred images, on many small tasks, against its peers.

    pip install fastai                       # a peer; 2.8.12 was measured; without it its rows say so
    python benchmarks/bench_photographs.py [TASK...] [--seeds 0 1 2] [--only METHOD...]
    python benchmarks/bench_photographs.py --write

The tasks are those of small_tasks.py: each seed divides one into what is handed over and what is kept back, which
measures. Every method is given the folder of all that is handed over, with no option; `flip` alone is off where signs
are written. The network is EfficientNet-Lite0 at the size that `fit` takes. One method is run after the other, caches
empty; beside the seconds stand those of the processors (`cpu_s`), which other work on the machine lengthens less.
Rows that were not given all threads (OMP_NUM_THREADS=1, one process on each core, which is more in all) count for
accuracies and not for times.

ours: `fit`, whole: reading, duplicates, all methods that `auto` tries, calibration, pictures.
logistic: scikit-learn's LogisticRegression with its defaults on the last features of the frozen network.
fastai: `vision_learner(...).fine_tune(8)` of `ImageDataLoaders.from_folder` with `aug_transforms()` and its default of
a fifth for validation; it decodes and resizes every image in every epoch, as it does for its users.
prune: with no option at all, and to half and to 30% of the MACs; what it answers of the images that are kept back, and
before.
int8: the fitted network and the one cut to half, quantized with no option.
torch-pruning: of the same fitted networks, by Taylor's criterion to as many MACs, and then plain fine-tuning on all
images, as long as our recovery (see torch_pruning_peer.py).

Rows are kept as they come in results/photographs.runs.json. Whether the printed accuracy is honest is judged by what is
kept back with its classes in the shares that they have among what is handed over, whose accuracy it is; tasks in which
the two are of different sources or styles do not count for that.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest import mock

import numpy as np
from numpy.typing import NDArray
from record import Rows, write_result
from small_tasks import make, tasks
from task_sources import NotHere

EPOCHS = 8  # fastai's
WRITTEN = ("digits", "mnist-ten", "words", "scripts")  # mirrored they would be something else
SHIFTED = ("emoji", "emoji-fine", "emoji-travel", "scripts")
SHARES = (None, 0.5, 0.3)  # without one `prune` finds it
QUANTIZED = {"int8 of all": "mine", "int8 of half": "cut-0.5"}  # rows, and the folders of what is quantized
CUTS = (*(f"prune {share}" for share in SHARES), *QUANTIZED, *(f"torch-pruning {share}" for share in SHARES if share))
PEERS = ("logistic", f"fastai fine_tune({EPOCHS})")
METHODS = ("ours", "logistic", "fastai", "prune", "int8", "torch-pruning")
ENOUGH = 150  # images, from which on what a cut loses is judged

Row = dict[str, Any]
if TYPE_CHECKING:
    from transfer.evaluation.evaluate import Evaluation


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="TASK", help="by default all")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--only", choices=METHODS, nargs="+", default=METHODS, help="rows of these alone")
    parser.add_argument("--write", action="store_true", help="only write the result")
    given = parser.parse_args()
    rows = Rows("photographs")
    if not given.write:
        for seed in given.seeds:
            for name in given.names or tasks():
                _measured(name, seed, rows, only=given.only)
    print(write_result("photographs", figures(rows.all), "python benchmarks/bench_photographs.py"))
    return 0


def _measured(name: str, seed: int, rows: Rows, *, only: Sequence[str]) -> None:
    """The rows of one task that are not there yet."""
    missing = [m for m in ("ours", *PEERS, *CUTS) if m.split()[0] in only and not _have(rows, name, seed, m)]
    wanted, cuts = [m for m in missing if m not in CUTS], [m for m in missing if m in CUTS]
    if not wanted and not cuts:
        return
    with tempfile.TemporaryDirectory() as folder, mock.patch.dict(os.environ):  # whose SLIMZOO_CACHE keeps the packages
        try:
            made = make(tasks()[name], folder, seed)
        except NotHere as error:
            print(f"{name}: {error}", flush=True)
            return
        root = Path(folder, name)
        for method in wanted:
            os.environ["SLIMZOO_CACHE"] = str(Path(folder, f"cache-{method.split()[0]}"))
            row = _run(method, root, seed)
            rows.keep({"task": name, "seed": seed, "images": made.train, "method": method, **row})
            print(name, seed, method, row.get("reason") or f"{row['top1_pct']:.1f}% {row['seconds']:.0f} s", flush=True)
        if cuts:
            os.environ["SLIMZOO_CACHE"] = str(Path(folder, "cache-prune"))
            for row in _cut(root, seed, cuts):
                rows.keep({"task": name, "seed": seed, "images": made.train, **row})
                print(name, seed, row["method"], f"{row['top1_pct']:.1f}% {row['seconds']:.0f} s", flush=True)


def _have(rows: Rows, name: str, seed: int, method: str) -> bool:
    return any((row["task"], row["seed"], row["method"]) == (name, seed, method) for row in rows.all)


def _run(method: str, root: Path, seed: int) -> dict[str, Any]:
    began, busy = time.monotonic(), time.process_time()
    try:
        found = (
            _ours(root, seed) if method == "ours" else _logistic(root) if method == "logistic" else _fastai(root, seed)
        )
    except ImportError as error:
        return {"reason": f"not measured: {error}"}
    return {**found, **_took(began, busy)}


def _took(began: float, busy: float) -> dict[str, Any]:
    import torch

    seconds, cpu_s = time.monotonic() - began, time.process_time() - busy
    return {"seconds": round(seconds, 1), "cpu_s": round(cpu_s, 1), "threads": torch.get_num_threads()}


def _flip(root: Path) -> bool | None:
    return False if root.name in WRITTEN else None


def _ours(root: Path, seed: int) -> dict[str, Any]:
    from transfer.evaluation.evaluate import evaluate
    from transfer.fitting.step import fit

    fitted = fit(root / "train", seed=seed, flip=_flip(root), out=root / "mine")
    after, notes = fitted.record["metrics"]["after"], fitted.record["notes"]
    found = evaluate(fitted, root / "test").evaluation
    return {
        **_answers(found.correct),
        "in_shares_pct": round(100 * _in_shares(root, found), 2),
        "chosen": fitted.record["method"],
        "share": notes.get("share"),
        "tail": notes.get("tail"),
        "size": fitted.config.preprocess.size[0],
        "said_pct": round(100 * after["expected"]["top1"], 2),
        "said_ci_pct": [round(100 * bound, 2) for bound in after["expected"]["top1_ci"]],
        "val_pct": round(100 * after["val"]["top1"], 2),
        "val_n": after["val"]["n"],
    }


def _in_shares(root: Path, found: Evaluation) -> float:
    """The accuracy on images of which each class has the share that it has of those that were handed over."""
    handed = np.array([len(list(folder.iterdir())) for folder in sorted((root / "train").iterdir())])
    recalls = [float(found.correct[found.labels == label].mean()) for label in range(len(handed))]
    return float(np.average(recalls, weights=handed))


def _answers(right: NDArray[np.bool_]) -> dict[str, Any]:
    return {
        "top1_pct": round(100 * float(right.mean()), 2),
        "correct": "".join("1" if flag else "0" for flag in right.tolist()),
    }


def _parts(root: Path) -> tuple[Any, Any, Any, Any]:
    """The network with ImageNet's weights, its preprocessing at the size that `fit` takes, and both parts' pixels."""
    from transfer.data.dataset import open_data
    from transfer.data.parts import read_pixels
    from transfer.fitting.start import start

    data = open_data(root / "train", val=0, test=str(root / "test"))
    network, config = start("tf_efficientnet_lite0", data, "probe", None, None)
    pixels = read_pixels(data, config.preprocess, None)
    return network.eval(), config, pixels.train, pixels.test


def _logistic(root: Path) -> dict[str, Any]:
    from sklearn.linear_model import LogisticRegression

    from transfer.frozen.features import features_of

    network, config, train, test = _parts(root)
    seen, asked = (features_of(network, part.pixels, config.preprocess) for part in (train, test))
    found = LogisticRegression(max_iter=5000).fit(seen, train.labels)
    return _answers(found.predict(asked) == test.labels)


def _fastai(root: Path, seed: int) -> dict[str, Any]:
    import fastai
    import timm
    import torch
    from fastai.vision import all as vision

    import zoo
    from transfer.data.dataset import open_data
    from transfer.fitting.start import start

    config = start("tf_efficientnet_lite0", open_data(root / "train", val=0), "probe", None, None)[1]
    size, files = config.preprocess.size[0], sorted(vision.get_image_files(root / "test"))

    def lite0(pretrained: bool = True) -> torch.nn.Module:
        model = timm.create_model("tf_efficientnet_lite0", pretrained=False)
        model.load_state_dict(zoo.create_model("tf_efficientnet_lite0", pretrained=True).state_dict())
        return model

    vision.set_seed(seed)
    loaders = vision.ImageDataLoaders.from_folder(
        root / "train",
        valid_pct=0.2,
        seed=seed,
        item_tfms=vision.Resize(size, method=vision.ResizeMethod.Squish),
        batch_tfms=[
            *vision.aug_transforms(do_flip=_flip(root) is None),
            vision.Normalize.from_stats(config.preprocess.mean, config.preprocess.std),
        ],
        bs=min(32, len(vision.get_image_files(root / "train")) // 2),
    )
    learner = vision.vision_learner(loaders, lite0, metrics=vision.accuracy, normalize=False)
    with learner.no_bar(), learner.no_logging():
        learner.fine_tune(EPOCHS)
        answers = learner.get_preds(dl=loaders.test_dl(files))[0].argmax(dim=1).tolist()
    right = [loaders.vocab[answer] == file.parent.name for answer, file in zip(answers, files, strict=True)]
    return {**_answers(np.array(right)), "version": fastai.__version__}


def _cut(root: Path, seed: int, methods: Sequence[str]) -> Iterator[dict[str, Any]]:
    """Cuts of our own fit, by their accuracy on what is kept back, before and after."""
    from transfer.evaluation.evaluate import evaluate
    from transfer.fitting.step import fit
    from zoo.files.model_directory import read_config

    if not (root / "mine").exists():
        fit(root / "train", seed=seed, flip=_flip(root), out=root / "mine")
    fit_s = read_config(root / "mine").lineage[-1]["seconds"]
    before = evaluate(root / "mine", root / "test").evaluation.correct
    for method in methods:
        by, *_, share = method.split()
        if method in QUANTIZED and not (root / QUANTIZED[method]).exists():
            _prune(root, "0.5", seed)
        began, busy = time.monotonic(), time.process_time()
        if by == "int8":
            model, figures = _int8(root, method)
        else:
            model, figures = (_prune if by == "prune" else _torch_pruning)(root, share, seed)
        took = _took(began, busy)
        yield {
            "method": method,
            **_answers(evaluate(model, root / "test").evaluation.correct),
            "before_pct": round(100 * float(before.mean()), 2),
            **figures,
            **took,
            "fit_s": round(fit_s, 1),
        }


def _prune(root: Path, share: str, seed: int) -> tuple[Any, dict[str, Any]]:
    from compress import prune

    macs = None if share == "None" else float(share)
    step = prune(root / "mine", data=root / "train", macs=macs, seed=seed, out=root / f"cut-{share}")
    own = step.record["metrics"]
    return step, {
        "macs_share": round(own["after"]["macs"] / own["before"]["macs"], 4),
        "said_points": _said(own),
        "nats": step.record["diverged"]["nats"],
    }


def _int8(root: Path, method: str) -> tuple[Any, dict[str, Any]]:
    from compress import quantize

    step = quantize(root / QUANTIZED[method], data=root / "train", out=root / method.replace(" ", "-"))
    own = step.record["metrics"]
    share = own["after"]["size_bytes"] / own["before"]["size_bytes"]
    return root / method.replace(" ", "-"), {
        "size_share": round(share, 4),
        "said_points": _said(own),
        "nats": step.divergence,
    }


def _said(own: dict[str, Any]) -> float:
    """What a step says that it lost, in points of validation accuracy."""
    return round(100 * (own["before"]["val"]["top1"] - own["after"]["val"]["top1"]), 2)


def _torch_pruning(root: Path, share: str, seed: int) -> tuple[Any, dict[str, Any]]:
    from torch_pruning_peer import cut_by_torch_pruning, plain_fine_tuning

    from compress.pruning.recover import recipe_after_cut
    from compress.pruning.settings import Prune
    from transfer.data.fitted_data import open_for
    from transfer.data.parts import read_pixels
    from transfer.training.finetune import TrainingData, finetune
    from zoo.cost import count_macs
    from zoo.files.model_directory import LoadedModel, load_model

    loaded = load_model(root / "mine")
    config = loaded.config
    source = open_for(config, root / "train").whole()
    pixels = read_pixels(source, config.preprocess, None)
    cut = cut_by_torch_pruning("taylor", loaded, pixels, float(share), seed)
    count = len(pixels.train)
    recipe = recipe_after_cut(config, images=count, mirror=source.mirror, epochs=Prune().recover, seed=seed)
    trained = finetune(cut, TrainingData(pixels.train, None, config.preprocess), plain_fine_tuning(recipe)).model
    left = count_macs(trained, config.input_size) / count_macs(loaded.model, config.input_size)
    return LoadedModel(trained, config), {"macs_share": round(left, 4)}


def figures(rows: Sequence[Row]) -> dict[str, Any]:
    """Means over tasks of means over seeds, against the better peer of each task, and whether what is said is so.

    Methods are compared on the divisions of tasks in which all of them were measured.
    """
    measured = [row for row in rows if "reason" not in row]
    divided: dict[tuple[str, int], dict[str, Row]] = {}
    for row in measured:
        divided.setdefault((row["task"], row["seed"]), {})[row["method"]] = row
    complete: dict[str, dict[str, list[Row]]] = {}
    for (task, _), methods in divided.items():
        if {"ours", *PEERS} <= methods.keys():
            for method, row in methods.items():
                complete.setdefault(task, {}).setdefault(method, []).append(row)
    table = []
    for task, methods in complete.items():
        mean = {name: statistics.mean(row["top1_pct"] for row in own) for name, own in methods.items()}
        peers = {peer: mean[peer] for peer in PEERS}
        found = {"ours_pct": mean["ours"], "best_peer_pct": max(peers.values()), "peers_pct": peers}
        table.append({"task": task, "images": max(row["images"] for row in methods["ours"]), **found})
    gains = [row["ours_pct"] - row["best_peer_pct"] for row in table]
    fitted = [row for row in measured if row["method"] == "ours"]
    same = [row for row in fitted if row["task"] not in SHIFTED]
    return {
        "seeds": sorted({row["seed"] for methods in complete.values() for row in methods["ours"]}),
        "images": [least(row["images"] for row in table) for least in (min, max)] if table else None,
        "tasks": table,
        "methods": {name: _summary(name, complete) for name in ("ours", *PEERS)},
        "gain_points": _mean(gains),
        "gain_ci_points": _interval(gains),
        "least_gain_points": min(gains, default=None),
        "honest": {
            "fits": len(same),
            "inside_interval": _mean(
                [row["said_ci_pct"][0] <= row["in_shares_pct"] <= row["said_ci_pct"][1] for row in same]
            ),
            "said_above_kept_back_points": _mean([row["said_pct"] - row["in_shares_pct"] for row in same]),
            "standard_error_points": _standard_error([row["said_pct"] - row["in_shares_pct"] for row in same]),
            "of_all_kept_back_points": _mean([row["said_pct"] - row["top1_pct"] for row in same]),
            "validation_alone_points": _mean([row["val_pct"] - row["in_shares_pct"] for row in same]),
        },
        "pruned": {str(share): _pruned_to(f"prune {share}", measured) for share in SHARES},
        "int8": {method.split()[-1]: _pruned_to(method, measured) for method in QUANTIZED},
        "torch_pruning": {str(share): _pruned_to(f"torch-pruning {share}", measured) for share in SHARES if share},
        "by_nats": _by_nats(measured),
        "runs": [{key: value for key, value in row.items() if key != "correct"} for row in rows],
    }


def _by_nats(rows: Sequence[Row]) -> dict[str, Any] | None:
    """What cuts lose for each nat that answers to held-out images moved, where those kept back are of the same kind: by
    task by least squares through no loss at none; how far off their mean is of each cut, and how far off is what its
    validation images say."""
    cuts = [row for row in rows if row["method"].startswith("prune ") and row["images"] >= ENOUGH]
    cuts = [row for row in cuts if row["task"] not in SHIFTED]
    if not cuts:
        return None
    by_task: dict[str, list[Row]] = {}
    for row in cuts:
        by_task.setdefault(row["task"], []).append(row)
    slopes = {task: float(_nats(own) @ _lost(own) / (_nats(own) @ _nats(own))) for task, own in by_task.items()}
    points, said = statistics.mean(slopes.values()), np.array([row["said_points"] for row in cuts])
    off, said_off = (float(np.sqrt(np.mean((found - _lost(cuts)) ** 2))) for found in (points * _nats(cuts), said))
    return {"cuts": len(cuts), "tasks": slopes, "points": points, "off_points": off, "validation_off_points": said_off}


def _nats(rows: Sequence[Row]) -> Any:
    return np.array([row["nats"] for row in rows])


def _lost(rows: Sequence[Row]) -> Any:
    return np.array([row["before_pct"] - row["top1_pct"] for row in rows])


def _summary(method: str, by_task: dict[str, dict[str, list[Row]]]) -> dict[str, Any]:
    """Its mean over the tasks, and its time as a multiple of ours."""

    def mean(task: str, method: str, key: str) -> float:
        return statistics.mean(row[key] for row in by_task[task][method])

    times = []
    for own in by_task.values():
        ours = {row["seed"]: row["seconds"] for row in own["ours"] if _had_all_threads(row)}
        timed = [row for row in own[method] if _had_all_threads(row) and row["seed"] in ours]
        pairs = [row["seconds"] / ours[row["seed"]] for row in timed]
        times += [statistics.geometric_mean(pairs)] if pairs else []
    return {
        "tasks": len(by_task),
        "top1_pct": _mean([mean(task, method, "top1_pct") for task in by_task]),
        "times_ours": statistics.geometric_mean(times) if times else None,
    }


def _pruned_to(method: str, rows: Sequence[Row]) -> dict[str, Any] | None:
    """What such a cut loses, over the tasks that have enough images."""
    cut = [row for row in rows if row["method"] == method and row["images"] >= ENOUGH]
    if not cut:
        return None
    lost: dict[str, list[float]] = {}
    for row in cut:
        lost.setdefault(row["task"], []).append(row["before_pct"] - row["top1_pct"])
    means = [statistics.mean(points) for points in lost.values()]
    return {
        "tasks": len(lost),
        "before_pct": _mean([row["before_pct"] for row in cut]),
        "lost_points": _mean(means),
        "lost_ci_points": _interval(means),
        "macs_share": _mean([row["macs_share"] for row in cut if "macs_share" in row]),
        "times_fit": statistics.geometric_mean([r["seconds"] / r["fit_s"] for r in cut if _had_all_threads(r)] or [1]),
    }


def _had_all_threads(row: Row) -> bool:
    return bool(row.get("threads", os.cpu_count()) != 1)


def _mean(values: Sequence[float]) -> float | None:
    return statistics.mean(values) if values else None


def _standard_error(values: Sequence[float]) -> float | None:
    return statistics.stdev(values) / len(values) ** 0.5 if len(values) > 1 else None


def _interval(values: Sequence[float]) -> list[float] | None:
    """95% of the mean over tasks, by Student's t."""
    if len(values) < 2:
        return None
    from scipy.stats import t

    reach = float(t.ppf(0.975, len(values) - 1)) * statistics.stdev(values) / len(values) ** 0.5
    return [statistics.mean(values) - reach, statistics.mean(values) + reach]


if __name__ == "__main__":
    sys.exit(main())
