"""What `test_distributed.py` starts in each process: PLACE holds what it writes; SCENARIO says what happens.

python -m torch.distributed.run --standalone --nproc_per_node=2 several_processes.py SCENARIO PLACE
"""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional as F

from transfer.data.augment import Augment
from transfer.data.loader import LabelledPixels
from transfer.training import distributed
from transfer.training.finetune import TrainingData, finetune
from transfer.training.recipe import Recipe
from zoo.create import create_model
from zoo.errors import Interrupted
from zoo.models import lenet, resnet
from zoo.preprocess import Preprocess

GREY, COLOUR = Preprocess(size=(28, 28), mean=(0.5,), std=(0.25,)), Preprocess(size=(32, 32))
RECIPE = Recipe(epochs=3, batch=7, lr=2e-3, backbone_lr=1e-3, augment=Augment(erase=0.5))
LENET, RESNET = ("lenet5", lenet.TINY["lenet5"], GREY), ("resnet20", resnet.TINY["resnet20"], COLOUR)
# 23 images in batches of 6 and 5: parts of 3 and 3, 3 and 2
PLAIN = {
    "plain": (LENET, {}),
    "mixed": (LENET, {"mixup": 0.5, "cutmix": 1.0, "ema": 0.9}),
    "tiny batches": (LENET, {"batch": 1, "optimizer": "sgd"}),  # one process has nothing to do
    "still statistics": (RESNET, {"frozen_stages": 1, "patience": 2}),
}
MOVING = {"moving statistics": (RESNET, {"freeze_statistics": False, "ema": 0.9})}


def train(case, **how):
    (name, arguments, preprocess), changes = case
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (38, *preprocess.size, preprocess.channels), dtype=np.uint8)
    labels = rng.integers(0, 10, 38)
    data = TrainingData(LabelledPixels(pixels[:23], labels[:23]), LabelledPixels(pixels[23:], labels[23:]), preprocess)
    torch.manual_seed(distributed.rank())  # the main process's weights count
    model = create_model(name, **arguments)
    return finetune(model, data, Recipe(**{**vars(RECIPE), **changes}), **how)


def numbers(finetuned):
    return {
        "weights": {name: tensor.double().flatten().tolist() for name, tensor in finetuned.model.state_dict().items()},
        "history": [(line.train_loss, line.val_top1, line.grad_norm) for line in finetuned.history],
        "halvings": finetuned.halvings,
    }


def scenario_trains(place):
    """Each case once, one of them twice; NaN and a signal in one process only."""
    found = {name: numbers(train(case)) for name, case in {**PLAIN, **MOVING}.items()}
    found["again"] = numbers(train(MOVING["moving statistics"]))
    calls = []

    def poisoned(logits, labels, inputs):
        calls.append(0)
        return F.cross_entropy(logits, labels) + (float("nan") if len(calls) == 6 and not distributed.is_main() else 0)

    found["poisoned"] = numbers(train(PLAIN["plain"], loss_fn=poisoned))

    def ask_one(model, step):
        if step == 5 and not distributed.is_main():
            os.kill(os.getpid(), signal.SIGTERM)

    try:
        train(PLAIN["plain"], checkpoints=place / "checkpoints", after_step=ask_one)
    except Interrupted as interrupted:
        found["interrupted"] = interrupted.exit_code
    found["resumed"] = numbers(train(PLAIN["plain"], checkpoints=place / "checkpoints"))
    (place / f"process-{distributed.rank()}.json").write_text(json.dumps(found))


def scenario_dies(place):
    """One process is killed in the seventh step, unless an earlier job was."""
    died = place / "died"

    def die(model, step):
        if step == 7 and distributed.rank() == 1 and not died.exists():
            died.touch()
            os.kill(os.getpid(), signal.SIGKILL)

    finetuned = train(MOVING["moving statistics"], checkpoints=place / "checkpoints", after_step=die)
    (place / f"process-{distributed.rank()}.json").write_text(json.dumps(numbers(finetuned)))


if __name__ == "__main__":
    torch.set_num_threads(1)
    with distributed.processes():
        globals()[f"scenario_{sys.argv[1]}"](Path(sys.argv[2]))
