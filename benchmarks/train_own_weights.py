"""Train the weights that the package carries: Caffe's LeNet-5 on MNIST, ResNet-20 on scikit-learn's digits.

    python benchmarks/train_own_weights.py [ARCHITECTURE...]

Three seeds each, on a split that does not change; the run in the middle goes into zoo/pretrained/own_weights/, as
float16, and what is measured is that file. MNIST is found by SLIMZOO_DATA (default ../shared/data). Nothing is chosen
on the test images but which of three equal runs is shipped, and it is the median.
"""

from __future__ import annotations

import json
import os
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from record import ROOT, commit, write_result

import zoo
from transfer.data.augment import augment_for
from transfer.data.dataset import open_data
from transfer.data.loader import LabelledPixels, load_pixels
from transfer.data.split import TEST, TRAIN
from transfer.evaluation.evaluate import evaluate_pixels
from transfer.training.finetune import TrainingData, finetune
from transfer.training.recipe import Recipe
from zoo.console import Console
from zoo.disk import sha256, write_tensors
from zoo.files.predictor import TorchPredictor
from zoo.preprocess import Preprocess

SEEDS = (0, 1, 2)
OUT = ROOT / "zoo/pretrained/own_weights"


def mnist10k(preprocess: Preprocess) -> tuple[LabelledPixels, LabelledPixels]:
    """The first 10,000 MNIST digits, shuffled by seed 0: 8,000 to train on, 2,000 to test."""
    with np.load(Path(os.environ.get("SLIMZOO_DATA", "../shared/data"), "mnist10k.npz")) as file:
        images, labels = file["images"][..., None], file["labels"].astype(np.int64)
    order = np.random.default_rng(0).permutation(len(images))
    train, test = order[:8000], order[-2000:]
    return LabelledPixels(images[train], labels[train]), LabelledPixels(images[test], labels[test])


def digits(preprocess: Preprocess) -> tuple[LabelledPixels, LabelledPixels]:
    """The 60% and the 20% that `slimzoo fit digits` trains on and tests; nothing is chosen, so nothing is validated."""
    data = open_data("digits")
    return load_pixels(data, preprocess, TRAIN), load_pixels(data, preprocess, TEST)


@dataclass(frozen=True, kw_only=True)
class Own:
    bar_pct: float
    data: str
    licence: str
    load: Callable[[Preprocess], tuple[LabelledPixels, LabelledPixels]]
    preprocess: Preprocess
    recipe: Recipe


def _recipe(**changes: Any) -> Recipe:
    """From nothing, so BatchNorm learns its own statistics, and every layer has the same rate."""
    return Recipe(freeze_statistics=False, augment=augment_for(mirror=False), backbone_lr=changes["lr"], **changes)


OWN = {
    "lenet5_caffe": Own(
        bar_pct=98.8,
        data="mnist10k",
        licence="Apache-2.0",
        load=mnist10k,
        preprocess=Preprocess(size=(28, 28), mean=(0.1307,), std=(0.3081,)),  # of MNIST's training images
        recipe=_recipe(epochs=30, batch=64, lr=2e-3),
    ),
    "resnet20": Own(
        bar_pct=98.0,
        data="digits",
        licence="Apache-2.0",
        load=digits,
        preprocess=Preprocess(size=(32, 32)),
        recipe=_recipe(epochs=30, batch=32, lr=3e-3),
    ),
}


def train(name: str, own: Own, console: Console) -> dict[str, Any]:
    """Train with every seed, ship the median, and say what each reached."""
    training, test = own.load(own.preprocess)
    runs, states = [], []
    for seed in SEEDS:
        began = time.monotonic()
        torch.manual_seed(seed)
        recipe = Recipe(**{**vars(own.recipe), "seed": seed})
        data = TrainingData(training, None, own.preprocess)
        model = finetune(zoo.create_model(name), data, recipe, progress=console.progress, title=f"{name} {seed}").model
        state = {key: _half(tensor) for key, tensor in model.state_dict().items()}
        model.load_state_dict(
            {key: tensor.float() if tensor.is_floating_point() else tensor for key, tensor in state.items()}
        )
        evaluation = evaluate_pixels(TorchPredictor(model.eval(), own.preprocess, None), test, 10)
        low, high = evaluation.top1_ci
        runs.append(
            {
                "seed": seed,
                "test_top1_pct": round(100 * evaluation.top1, 2),
                "n": evaluation.n,
                "ci_pct": [round(100 * low, 2), round(100 * high, 2)],
                "seconds": round(time.monotonic() - began),
            }
        )
        states.append(state)
        console.say(f"{name} {runs[-1]}")
    middle = sorted(range(len(SEEDS)), key=lambda i: runs[i]["test_top1_pct"])[len(SEEDS) // 2]
    path = OUT / f"{name}.safetensors"
    path.parent.mkdir(exist_ok=True)
    write_tensors(path, states[middle])
    card = {
        "architecture": name,
        "classes": [str(digit) for digit in range(10)],
        "licence": own.licence,
        "source": f"benchmarks/train_own_weights.py, seed {SEEDS[middle]}",
        "commit": commit()["commit"],
        "sha256": sha256(path),
        "data": own.data,
        "preprocess": own.preprocess.to_dict(),
        "metrics": {f"{own.data}_test_top1_pct": runs[middle]["test_top1_pct"]},
    }
    path.with_suffix(".json").write_text(json.dumps(card, indent=1) + "\n", encoding="utf-8")
    median = statistics.median(run["test_top1_pct"] for run in runs)
    return {
        "data": own.data,
        "median_top1_pct": median,
        "bar_pct": own.bar_pct,
        "bytes": path.stat().st_size,
        "runs": runs,
    }


def _half(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.half().contiguous() if tensor.is_floating_point() else tensor.contiguous()


def main(names: list[str]) -> int:
    with Console() as console:
        figures = {name: train(name, OWN[name], console) for name in names}
    print(write_result("own_weights", figures, f"python benchmarks/train_own_weights.py {' '.join(names)}"))
    return 4 if any(f["median_top1_pct"] < f["bar_pct"] for f in figures.values()) else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:] or list(OWN)))
