"""Training runs of many kinds that are killed at random times, and that get NaN and infinity put into their numbers."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from checkpoint_faults import died, fork
from torch import Tensor, nn
from torch.nn import functional as F

from transfer.data.augment import NONE
from transfer.data.loader import LabelledPixels
from transfer.training import boundary
from transfer.training.checkpoint import Checkpoint, newest_checkpoint
from transfer.training.finetune import Finetuned, LossFn, TrainingData, finetune
from transfer.training.recipe import Recipe
from zoo.create import create_model
from zoo.errors import SlimzooError
from zoo.models import efficientnet, lenet, resnet, vit
from zoo.preprocess import Preprocess

GREY, COLOUR = Preprocess(size=(28, 28), mean=(0.5,), std=(0.25,)), Preprocess(size=(32, 32))
IMAGES, BATCH = 50, 8  # 7 steps an epoch
INTERVAL = 10  # steps between checkpoints, so that small runs have many
EPOCHS = 20


@dataclasses.dataclass(frozen=True)
class Case:
    """A training run; `limit` makes the loss infinite where a logit exceeds it, until the rates were halved enough."""

    model: str
    recipe: dict[str, Any]
    limit: float = math.inf


MODELS: dict[str, tuple[dict[str, Any], Preprocess]] = {
    "lenet5": ({**lenet.TINY["lenet5"], "dropout": 0.5}, GREY),
    "resnet20": (resnet.TINY["resnet20"], COLOUR),
    "tf_efficientnet_lite0": (efficientnet.TINY["tf_efficientnet_lite0"], COLOUR),
    "vit_tiny": (vit.TINY["vit_tiny"], Preprocess(size=(vit.TINY["vit_tiny"]["image_size"],) * 2)),
}
MOVING = {"freeze_statistics": False}
CASES = [
    Case("lenet5", {}),
    Case("lenet5", {"ema": 0.9}),
    Case("lenet5", {"optimizer": "sgd", "lr": 0.01, "backbone_lr": 0.01, "schedule": "step"}),
    Case("lenet5", {"optimizer": "adagrad", "schedule": "constant", "patience": 6}),
    Case("lenet5", {"optimizer": "rmsprop", "mixup": 0.2}),
    Case("lenet5", {"optimizer": "adam", "cutmix": 1.0, "ema": 0.95, "patience": 5}),
    Case("lenet5", {"optimizer": "sgd", "lr": 0.3, "backbone_lr": 0.3, "clip_norm": 1e9}, limit=2.4),  # halves twice
    Case("lenet5", {"lr": 0.03, "backbone_lr": 0.03, "ema": 0.9}, limit=2.1),  # and these once
    Case("resnet20", {**MOVING, "lr": 0.05, "backbone_lr": 0.05}, limit=4.0),
    Case("resnet20", MOVING),
    Case("resnet20", {}),
    Case("resnet20", {**MOVING, "ema": 0.9, "mixup": 0.2, "cutmix": 1.0}),
    Case("resnet20", {**MOVING, "optimizer": "sgd", "schedule": "cosine", "frozen_stages": 1}),
    Case("resnet20", {"optimizer": "adam", "layer_decay": 0.7, "patience": 5}),
    Case("resnet20", {**MOVING, "optimizer": "rmsprop", "schedule": "exponential"}),
    Case("tf_efficientnet_lite0", {}),
    Case("tf_efficientnet_lite0", {**MOVING, "ema": 0.9}),
    Case("tf_efficientnet_lite0", {"frozen_stages": 2, "layer_decay": 0.8}),
    Case("tf_efficientnet_lite0", {**MOVING, "optimizer": "adagrad", "patience": 5}),
    Case("vit_tiny", {}),
    Case("vit_tiny", {"ema": 0.9, "mixup": 0.8, "cutmix": 1.0}),
    Case("vit_tiny", {"optimizer": "sgd", "momentum": 0.0, "schedule": "cosine"}),
    Case("vit_tiny", {"layer_decay": 0.75, "patience": 5, "ema": 0.95}),
]


def start(case: Case) -> tuple[nn.Module, TrainingData, Recipe]:
    """A case's model, random images and recipe, always the same ones."""
    arguments, preprocess = MODELS[case.model]
    torch.manual_seed(0)
    model = create_model(case.model, **arguments)
    classes = arguments.get("num_classes", 10)
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (IMAGES + 24, *preprocess.size, preprocess.channels), dtype=np.uint8)
    labels = rng.integers(0, classes, len(pixels))
    keys = tuple(f"images/{i:03d}.png" for i in range(IMAGES))
    train = LabelledPixels(pixels[:IMAGES], labels[:IMAGES], keys)
    recipe = Recipe(**{"epochs": EPOCHS, "batch": BATCH, "lr": 2e-3, "backbone_lr": 1e-3, **case.recipe})
    return model, TrainingData(train, LabelledPixels(pixels[IMAGES:], labels[IMAGES:]), preprocess), recipe


def train(case: Case, checkpoints: Path | None, **how: Any) -> Finetuned:
    """Train a case; everything about it is in the arguments."""
    boundary.CHECKPOINT_STEPS = INTERVAL
    model, data, recipe = start(case)
    return finetune(model, data, recipe, loss_fn=limited(case.limit), checkpoints=checkpoints, **how)


def limited(limit: float) -> LossFn | None:
    if math.isinf(limit):
        return None

    def loss_fn(logits: Tensor, targets: Tensor, inputs: Tensor) -> Tensor:
        return F.cross_entropy(logits, targets) + torch.where(logits.detach().abs().max() > limit, math.inf, 0.0)

    return loss_fn


def fingerprint(model: nn.Module) -> str:
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(name.encode() + tensor.contiguous().numpy().tobytes())
    return digest.hexdigest()


# ---- killed at random times


def kills(*, runs: int, kills: int, epochs: int = EPOCHS, seed: int = 0) -> dict[str, Any]:
    """Train `runs` cases or more, SIGKILL each at random times, resume, until `kills` were given; compare the ends."""
    rng, given, identical, done, gone_back = random.Random(seed), 0, 0, 0, 0
    differ: list[str] = []
    with tempfile.TemporaryDirectory() as scratch:
        while done < runs or given < kills:
            case, folder = CASES[done % len(CASES)], Path(scratch, f"run-{done}")
            case = dataclasses.replace(case, recipe={"epochs": epochs, **case.recipe})
            (folder / "killed").mkdir(parents=True)

            def work(name: str, case: Case = case, folder: Path = folder) -> None:
                trained = train(case, None if name == "whole" else folder / name)
                answer = {"bits": fingerprint(trained.model), "halvings": trained.halvings}
                (folder / "written").write_text(json.dumps(answer))
                os.rename(folder / "written", folder / f"{name}.json")

            began = time.monotonic()
            died(fork(lambda work=work: work("whole")))
            life = (time.monotonic() - began) / 2.5  # seconds, at most; longer while nothing is reached
            reached = -1
            while not (folder / "killed.json").exists():
                child = fork(lambda work=work: work("killed"))
                time.sleep(rng.uniform(0, life))
                os.kill(child, signal.SIGKILL)
                given += died(child)
                newest = newest_checkpoint(folder / "killed")
                step = -1 if newest is None else newest.state["step"]
                life, reached = (life if step > reached else 1.2 * life), step
            whole, killed = (json.loads((folder / f"{name}.json").read_text()) for name in ("whole", "killed"))
            identical += whole == killed
            gone_back += whole["halvings"] > 0
            if whole != killed:
                differ.append(f"{case}: {whole} {killed}")
            done += 1
    return {"runs": done, "kills": given, "identical": identical, "runs_that_went_back": gone_back, "differ": differ}


def command_kills(*, kills: int, seed: int = 0) -> dict[str, Any]:
    """The same with the command line: `slimzoo fit digits`, SIGKILL at random times, `slimzoo resume`."""
    rng, given = random.Random(seed), 0
    with tempfile.TemporaryDirectory() as scratch:
        weights = []
        for name, deadly in (("whole", False), ("killed", True)):
            out = Path(scratch, name)
            fit = ["fit", "digits", "--model", "lenet5", "--method", "scratch", "--epochs", "12", "--out", str(out)]
            first, resume = ([sys.executable, "-m", "compress", *verb] for verb in (fit, ["resume", str(out)]))
            while not out.exists():
                began = any(out.with_name(f"{name}.partial").glob("checkpoints/step-*"))
                process = subprocess.Popen(
                    resume if began else [*first, "--overwrite"], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
                )
                if deadly and given < kills:
                    _wait_for_training(process, out.with_name(f"{name}.partial"))
                    time.sleep(rng.uniform(0, 1.0))
                    process.kill()
                _, said = process.communicate()
                given += process.returncode == -signal.SIGKILL
                if process.returncode not in (0, -signal.SIGKILL):
                    raise RuntimeError(said.decode())
            weights.append(hashlib.sha256((out / "model.safetensors").read_bytes()).hexdigest())
    return {"kills": given, "identical": weights[0] == weights[1]}


def _wait_for_training(process: subprocess.Popen[bytes], partial: Path) -> None:
    """Until a checkpoint is there that was not before."""
    before = {path.name for path in partial.glob("checkpoints/step-*")}
    deadline = time.monotonic() + 60
    while process.poll() is None and {path.name for path in partial.glob("checkpoints/step-*")} <= before:
        if time.monotonic() > deadline:
            raise RuntimeError("no checkpoint in 60 s")
        time.sleep(0.01)


# ---- NaN and infinity


PLACES = ("loss", "gradient", "activation", "weight")


def nans(*, count: int, epochs: int = 6) -> dict[str, Any]:
    """Inject one NaN or infinity in each of `count` runs, at another step and place; then lasting ones."""
    saved = finite = went_back = 0
    stops: list[str] = []
    case = Case("resnet20", {**MOVING, "ema": 0.9, "epochs": epochs})
    for i in range(count):
        injected = _Injection(PLACES[i % len(PLACES)], value=math.nan if i % 3 else math.inf, first=2 * i, last=2 * i)
        trained, infinite = _injected_run(case, injected)
        assert isinstance(trained, Finetuned)
        saved += infinite
        went_back += trained.halvings > 0
        finite += all(torch.isfinite(t).all() for t in trained.model.state_dict().values())
    for place in PLACES:
        stopped, infinite = _injected_run(case, _Injection(place, value=math.nan, first=15, last=10**9))
        assert isinstance(stopped, SlimzooError), place
        saved += infinite
        stops.append(str(stopped))
    return {"injected": count, "saved": saved, "finite_in_the_end": finite, "went_back": went_back, "stops": stops}


class _Injection:
    """Puts `value` somewhere in the passes first..last."""

    def __init__(self, place: str, *, value: float, first: int, last: int) -> None:
        self.place, self.value, self.first, self.last = place, value, first, last
        self.passes = -1
        self._watched: object = None  # the parameter of the model that is trained, a copy of ours

    def __deepcopy__(self, memo: dict[int, Any]) -> _Injection:  # the hooks of a copied model are still this one's
        return self

    def now(self, place: str) -> bool:
        return place == self.place and self.first <= self.passes <= self.last

    def into(self, model: nn.Module) -> None:
        convolution = next(m for m in model.modules() if isinstance(m, nn.Conv2d))
        convolution.register_forward_hook(self._activation)
        convolution.register_forward_pre_hook(self._gradient)

    def loss_fn(self, logits: Tensor, targets: Tensor, inputs: Tensor) -> Tensor:
        self.passes += 1
        return F.cross_entropy(logits, targets) + (self.value if self.now("loss") else 0.0)

    def after_step(self, model: nn.Module, step: int) -> None:
        if self.now("weight"):
            with torch.no_grad():
                weight = next(model.parameters())
                weight[(0,) * weight.ndim] = self.value

    def _activation(self, module: nn.Module, inputs: Any, output: Tensor) -> Tensor:
        return output + self.value if self.now("activation") and module.training else output

    def _gradient(self, module: nn.Module, inputs: Any) -> None:
        weight = module.weight
        if module.training and weight is not self._watched and isinstance(weight, nn.Parameter):
            self._watched = weight
            weight.register_hook(lambda gradient: gradient + self.value if self.now("gradient") else gradient)


def _injected_run(case: Case, injected: _Injection) -> tuple[Finetuned | SlimzooError, int]:
    """The outcome, and how many tensors that are not finite were saved on the way."""
    boundary.CHECKPOINT_STEPS = INTERVAL
    model, data, recipe = start(case)
    injected.into(model)
    infinite = 0
    original = boundary.save_checkpoint

    def watched(directory: Path, kept: Checkpoint) -> Path:
        nonlocal infinite
        place = original(directory, kept)
        found = newest_checkpoint(directory)
        assert found is not None
        for tensors in found.tensors.values():
            infinite += sum(not torch.isfinite(t).all() for t in tensors.values())
        return place

    with tempfile.TemporaryDirectory() as scratch:
        boundary.save_checkpoint = watched  # type: ignore[assignment]
        try:
            outcome: Finetuned | SlimzooError = finetune(
                model,
                data,
                dataclasses.replace(recipe, augment=NONE),
                loss_fn=injected.loss_fn,
                after_step=injected.after_step,
                checkpoints=Path(scratch),
            )
        except SlimzooError as error:
            outcome = error
        finally:
            boundary.save_checkpoint = original
    return outcome, infinite
