"""Is each model of the zoo the function that its peer computes, and does it cost the same?

    python benchmarks/bench_zoo.py

Every model that torchvision or timm has takes its peer's weights key by key, at the published image size, in float64.
The peer is drawn by He's rule, norms and LayerScale away from 0 and 1 (a fresh one hides mistakes). Reported: the
largest difference of logits over their standard deviation in eval mode, the same with one filter changed by 10%, and
after one gradient step in train mode without dropout the largest difference of a gradient over that tensor's largest.
"""

from __future__ import annotations

import sys
from typing import Any

import torch
from peers import peer_of, training_step, without_dropout_
from record import write_result
from torch import Tensor, nn

import zoo
from zoo.models.init import he_normal_
from zoo.models.registry import model_entry


@torch.no_grad()
def distance(model: nn.Module, peer: nn.Module, x: Tensor) -> float:
    """Largest difference of logits over the standard deviation of the peer's."""
    ours, theirs = model.eval()(x), peer.eval()(x)
    return float((ours - theirs).abs().max() / theirs.std())


@torch.no_grad()
def shake_(peer: nn.Module, generator: torch.Generator) -> None:
    """Draw everything so that the image reaches the logits and nothing stays at 0 or 1."""
    he_normal_(peer)
    for name, tensor in peer.state_dict().items():  # these share the model's storage
        if name.endswith(("running_var", "gamma")) or (name.endswith("weight") and tensor.dim() == 1):
            tensor.copy_(torch.empty(tensor.shape).uniform_(0.5, 1.5, generator=generator))
        elif name.endswith(("running_mean", "bias", "cls_token", "pos_embed")):
            tensor.copy_(torch.empty(tensor.shape).uniform_(-0.2, 0.2, generator=generator))


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
    shake_(peer, generator)
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


def main() -> None:
    torch.manual_seed(0)
    figures = {}
    for name in zoo.list_models():
        figures[name] = compare(name)
        print(f"{name:24}", figures[name], flush=True)
        path = write_result("zoo", figures, "python benchmarks/bench_zoo.py")  # kept as they come: it takes a while
    print(path)


if __name__ == "__main__":
    sys.exit(main())
