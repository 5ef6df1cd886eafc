"""Is each family of the zoo as fast as its peer in torchvision or timm, and does a name cost nothing?

    python benchmarks/bench_zoo_speed.py

Eager forward pass and training step (forward, backward, SGD), one variant a family, the same weights and images in
both, in one process, in rounds of one after the other in changing order, in three passes with models built afresh, also
in changing order: where a model's memory happens to lie moves a race by up to 8%. A ratio above 1 means that ours is
faster; "copies" is the training step of two instances of the peer, the noise. And `create_model` against the builder.
"""

from __future__ import annotations

import random
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from peers import peer_of, training_step, without_dropout_
from record import write_result
from torch import Tensor, nn

import zoo
from compress.report.statistics import ratio_interval
from zoo.models.registry import model_entry

BAR = 0.97  # no interval of a speed ratio wholly below
BUILD_BAR_MS = 5.0
PASSES, ROUNDS, ROUND_S = 3, 6, 0.4
# one variant a family, image size and batch such that a step takes about half a second
SPEED = {
    "alexnet": (128, 16),
    "vgg11_bn": (96, 4),
    "googlenet": (128, 8),
    "resnet18": (128, 8),
    "densenet121": (96, 4),
    "squeezenet1_1": (128, 16),
    "mobilenet_v1": (128, 8),
    "mobilenet_v2": (128, 8),
    "mobilenet_v3_small": (128, 16),
    "efficientnet_b0": (96, 8),
    "tf_efficientnet_lite0": (96, 8),
    "convnext_tiny": (96, 4),
    "vit_tiny": (224, 2),
}


def forward(model: nn.Module, x: Tensor) -> Callable[[], None]:
    model.eval()

    def once() -> None:
        with torch.inference_mode():
            model(x)

    return once


def seconds(once: Callable[[], None], times: int) -> float:
    began = time.perf_counter()
    for _ in range(times):
        once()
    return (time.perf_counter() - began) / times


Rounds = tuple[list[float], list[float]]  # seconds of ours and of theirs


def race_(rounds: Rounds, ours: Callable[[], None], theirs: Callable[[], None], draw: random.Random) -> None:
    """Add rounds of both, the order drawn anew for each; warmed up first."""
    times = max(1, round(ROUND_S / 2 / max(seconds(ours, 2), seconds(theirs, 2))))
    order = [(rounds[0], ours), (rounds[1], theirs)]
    for _ in range(ROUNDS):
        draw.shuffle(order)
        for kept, once in order:
            kept.append(seconds(once, times))


def speed(name: str) -> dict[str, Any]:
    """All races of one model; dropout is off, since the two draw it in different places."""
    side, batch = SPEED[name]
    draw = random.Random(0)
    rounds: dict[str, Rounds] = {kind: ([], []) for kind in ("forward", "training", "copies")}
    for _ in range(PASSES):
        build: dict[str, Any] = {"ours": zoo.create_model, "theirs": peer_of, "twin": peer_of}
        models = {who: build[who](name) for who in draw.sample(sorted(build), k=len(build))}
        for model in models.values():
            model.load_state_dict(models["theirs"].state_dict(), strict=True)
            without_dropout_(model)
        ours, theirs, twin = models["ours"], models["theirs"], models["twin"]
        x = torch.randn(batch, 3, side, side)
        race_(rounds["forward"], forward(ours, x), forward(theirs, x), draw)
        race_(rounds["training"], training_step(ours, x), training_step(theirs, x), draw)
        race_(rounds["copies"], training_step(twin, x), training_step(theirs, x), draw)
    row: dict[str, Any] = {"peer": type(theirs).__module__.partition(".")[0], "pixels": side, "batch": batch}
    for kind, (a, b) in rounds.items():
        ratio = ratio_interval(np.array(b) / a)
        row[kind] = {"ratio": round(ratio.value, 4), "lo": round(ratio.lo, 4), "hi": round(ratio.hi, 4)}
        row[kind]["median_ms"] = round(1e3 * float(np.median(a)), 2)
    print(f"{name:24} {row}", flush=True)
    return row


def building() -> dict[str, Any]:
    """How much longer `create_model` takes than the builder, in milliseconds, in a process that has built before."""
    zoo.create_model("resnet18")
    extra = []
    for name in ("lenet5", "resnet18", "densenet121", "vit_tiny"):
        build = model_entry(name).build
        by_name, by_hand = [], []
        with torch.device("meta"):  # no weights are drawn: what is left is the call
            for _ in range(15):
                by_name.append(seconds(lambda name=name: zoo.create_model(name), 1))  # type: ignore[misc]
                by_hand.append(seconds(build, 1))
        extra.append({"model": name, "extra_ms": round(1e3 * float(np.median(by_name) - np.median(by_hand)), 3)})
    return {"bar_ms": BUILD_BAR_MS, "models": extra}


def main() -> int:
    figures: dict[str, Any] = {"building": building(), "bar": BAR}
    print(figures["building"])
    figures["models"] = {name: speed(name) for name in SPEED}
    print(write_result("zoo_speed", figures, "python benchmarks/bench_zoo_speed.py"))
    slow = [f"{n} {k}" for n, row in figures["models"].items() for k in ("forward", "training") if row[k]["hi"] < BAR]
    late = [row["model"] for row in figures["building"]["models"] if row["extra_ms"] > BUILD_BAR_MS]
    print(f"slower than {BAR}: {slow or 'none'}; built later than {BUILD_BAR_MS} ms: {late or 'none'}")
    return 4 if slow or late else 0


if __name__ == "__main__":
    sys.exit(main())
