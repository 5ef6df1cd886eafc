"""Is each model of the zoo the function that its peer computes, does it cost the same, and is it as fast?

    python benchmarks/bench_zoo.py

Exactness: every model that torchvision or timm has takes its peer's weights key by key, at the published image size, in
float64. The peer is drawn afresh and shaken (a fresh BatchNorm or LayerScale hides mistakes). Reported: the largest
difference of logits over their standard deviation in eval mode, the same with one filter changed by 10%, and after one
gradient step in train mode without dropout the largest difference of a gradient over that tensor's largest gradient.

Speed: eager forward pass and training step (forward, backward, SGD), one variant a family, the same weights and images
in both, in one process, in rounds of one after the other in changing order. A ratio above 1 means that ours is faster.

Building: `create_model` against calling the builder itself.
"""

from __future__ import annotations

import random
import shlex
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import timm
import torch
import torchvision
from record import write_result
from torch import Tensor, nn

import zoo
from compress.report.statistics import ratio_interval
from zoo.registry import model_entry

BAR = 0.97  # no interval of a speed ratio wholly below
BUILD_BAR_MS = 5.0
ROUNDS, ROUND_S = 20, 0.4
# one variant a family, image size and batch such that a step takes about half a second
SPEED = {
    "alexnet": (128, 16), "vgg11_bn": (96, 4), "googlenet": (128, 8), "resnet18": (128, 8), "densenet121": (96, 4),
    "squeezenet1_1": (128, 16), "mobilenet_v1": (128, 8), "mobilenet_v2": (128, 8), "mobilenet_v3_small": (128, 16),
    "efficientnet_b0": (96, 8), "tf_efficientnet_lite0": (96, 8), "convnext_tiny": (96, 4), "vit_tiny": (224, 2),
}  # fmt: skip


def peer_of(name: str) -> nn.Module | None:
    """The implementation whose parameter names a model of the zoo has, if there is one."""
    entry = model_entry(name)
    if entry.family not in ("convnext", "efficientnet") and name in torchvision.models.list_models(torchvision.models):
        options = {"aux_logits": False, "init_weights": False} if name == "googlenet" else {}
        return torchvision.models.get_model(name, **options)
    known_as = {"vit": f"{name}_patch16_224", "mobilenet_v1": "mobilenetv1_100"}.get(entry.family, name)
    return timm.create_model(known_as) if timm.is_model(known_as) else None


@torch.no_grad()
def distance(model: nn.Module, peer: nn.Module, x: Tensor) -> float:
    """Largest difference of logits over the standard deviation of the peer's."""
    ours, theirs = model.eval()(x), peer.eval()(x)
    return float((ours - theirs).abs().max() / theirs.std())


@torch.no_grad()
def shake_(peer: nn.Module, x: Tensor, generator: torch.Generator) -> None:
    """Move every weight by a tenth of its tensor's size, then let BatchNorm see `x`: nothing stays at 0 or 1."""
    for parameter in peer.parameters():
        size = parameter.abs().mean().clamp(min=0.1)
        parameter += 0.1 * size * torch.randn(parameter.shape, generator=generator)
    peer.train()(x)


def compare(name: str) -> dict[str, Any]:
    """Exactness and cost of one model."""
    entry = model_entry(name)
    model, peer = zoo.create_model(name), peer_of(name)
    row: dict[str, Any] = {"params": zoo.count_parameters(model), "macs": zoo.count_macs(model, entry.input_size)}
    if peer is None:
        return row
    row["peer"] = type(peer).__module__.partition(".")[0]
    assert (zoo.count_parameters(peer), zoo.count_macs(peer, entry.input_size)) == (row["params"], row["macs"]), name
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, *entry.input_size, generator=generator)
    shake_(peer, x, generator)
    model.load_state_dict(peer.state_dict(), strict=True)
    model, peer, x = model.double(), peer.double(), x.double()
    row["distance"] = distance(model, peer, x)
    with torch.no_grad():  # the control: the comparison sees one filter that is 10% larger
        next(p for p in model.parameters() if p.dim() == 4)[0] *= 1.1
    row["distance_control"] = distance(model, peer, x)
    model.load_state_dict(peer.state_dict(), strict=True)
    row["distance_gradients"] = gradients_apart(model, peer, x)
    assert max(row["distance"], row["distance_gradients"]) < 1e-5 < row["distance_control"], row
    return row


def gradients_apart(model: nn.Module, peer: nn.Module, x: Tensor) -> float:
    """Largest difference of a gradient, over the largest gradient of its tensor, after a training step on `x`."""
    for each in (model, peer):
        without_dropout_(each)
        training_step(each, x)()
    theirs = {name: p.grad for name, p in peer.named_parameters() if p.grad is not None}
    ours = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    assert ours.keys() == theirs.keys()
    return max(float((ours[name] - g).abs().max() / g.abs().max().clamp(min=1e-12)) for name, g in theirs.items())


def without_dropout_(model: nn.Module) -> None:
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0


def forward(model: nn.Module, x: Tensor) -> Callable[[], None]:
    model.eval()

    def once() -> None:
        with torch.inference_mode():
            model(x)

    return once


def training_step(model: nn.Module, x: Tensor) -> Callable[[], None]:
    model.train()
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-4)
    labels = torch.arange(len(x))

    def once() -> None:
        optimizer.zero_grad(set_to_none=True)
        nn.functional.cross_entropy(model(x), labels).backward()
        optimizer.step()

    return once


def seconds(once: Callable[[], None], times: int) -> float:
    began = time.perf_counter()
    for _ in range(times):
        once()
    return (time.perf_counter() - began) / times


def race(ours: Callable[[], None], theirs: Callable[[], None]) -> dict[str, Any]:
    """Rounds of both, the order drawn anew for each; warmed up first."""
    times = max(1, round(ROUND_S / 2 / max(seconds(ours, 2), seconds(theirs, 2))))
    rounds: dict[str, list[float]] = {"ours": [], "theirs": []}
    order, draw = [("ours", ours), ("theirs", theirs)], random.Random(0)
    for _ in range(ROUNDS):
        draw.shuffle(order)
        for who, once in order:
            rounds[who].append(seconds(once, times))
    ratio = ratio_interval(rounds["theirs"], rounds["ours"])
    return {
        "ratio": round(ratio.median, 4), "lo": round(ratio.lo, 4), "hi": round(ratio.hi, 4),
        "ours_ms": round(1e3 * float(np.median(rounds["ours"])), 2),
    }  # fmt: skip


def speed(name: str) -> dict[str, Any]:
    """Both races of one model; dropout is off, since the two draw it in different places."""
    side, batch = SPEED[name]
    ours, theirs = zoo.create_model(name), peer_of(name)
    assert theirs is not None
    ours.load_state_dict(theirs.state_dict(), strict=True)
    for each in (ours, theirs):
        without_dropout_(each)
    x = torch.randn(batch, 3, side, side)
    row: dict[str, Any] = {"pixels": side, "batch": batch, "forward": race(forward(ours, x), forward(theirs, x))}
    row["training"] = race(training_step(ours, x), training_step(theirs, x))
    row["copies"] = race(forward(theirs, x), forward(theirs, x))  # the noise: one model against itself
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
    figures: dict[str, Any] = {"building": building(), "models": {}}
    print(figures["building"])
    figures["bar"], figures["speed"] = BAR, {name: speed(name) for name in SPEED}
    for name in zoo.list_models():
        figures["models"][name] = compare(name)
        print(f"{name:24}", figures["models"][name], flush=True)
    print(write_result("zoo", figures, shlex.join(["python", *sys.argv])))
    slow = [f"{n} {k}" for n, row in figures["speed"].items() for k in ("forward", "training") if row[k]["hi"] < BAR]
    late = [row["model"] for row in figures["building"]["models"] if row["extra_ms"] > BUILD_BAR_MS]
    print(f"slower than {BAR}: {slow or 'none'}; built later than {BUILD_BAR_MS} ms: {late or 'none'}")
    return 4 if slow or late else 0


if __name__ == "__main__":
    sys.exit(main())
