"""Is each model of the zoo the function that its peer computes, and does it cost what was published?

    python benchmarks/bench_zoo.py

Every full-size model takes its peer's weights key by key, at the published image size. The peer is drawn afresh and
shaken (a fresh BatchNorm or LayerScale hides mistakes); the model that has weights on record is compared with them too.
Reported: the largest difference of logits over their standard deviation, in float64 and in float32.
"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import timm
import torch
import torchvision
from record import write_result
from torch import Tensor, nn

import zoo
from zoo.registry import model_entry

TV = "torchvision weights metadata: num_params, _ops"
TF = "tensorflow/tpu, models/official/efficientnet/lite/README.md (MAdds; it counts more than products)"
HAN = "Han et al. 2015, https://arxiv.org/abs/1506.02626, Tables 3 and 4"
TIMM = "timm, results/benchmark-infer-amp-nchw-pt240-cu124-rtx4090.csv (param_count, infer_gmacs with norms)"


@dataclass(frozen=True, kw_only=True)
class Published:
    """What others say of a model, in the precision that they say it, and their implementation of it."""

    params_m: float
    macs_m: float | None
    source: str
    peer: Callable[[], nn.Module] | None


def _torchvision(name: str) -> Published:
    meta = torchvision.models.get_model_weights(name).DEFAULT.meta
    return Published(
        params_m=meta["num_params"] / 1e6,
        macs_m=meta["_ops"] * 1e3,
        source=TV,
        peer=lambda: torchvision.models.get_model(name),
    )


PUBLISHED = {
    "resnet18": _torchvision("resnet18"),
    "resnet50": _torchvision("resnet50"),
    "efficientnet_lite0": Published(
        params_m=4.7, macs_m=407, source=TF, peer=lambda: timm.create_model("efficientnet_lite0")
    ),
    "tf_efficientnet_lite0": Published(
        params_m=4.7, macs_m=407, source=TF, peer=lambda: timm.create_model("tf_efficientnet_lite0")
    ),
    "vit_tiny": Published(
        params_m=5.72, macs_m=1260, source=TIMM, peer=lambda: timm.create_model("vit_tiny_patch16_224")
    ),
    "lenet_300_100": Published(params_m=0.267, macs_m=None, source=HAN, peer=None),
    "lenet5_caffe": Published(params_m=0.431, macs_m=None, source=HAN, peer=None),
    "resnet20": Published(
        params_m=0.27, macs_m=None, source="He et al. 2015, Table 6, with zero-padded shortcuts", peer=None
    ),
}


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


def compare(name: str, published: Published) -> dict[str, Any]:
    """One row: the distances, and cost as counted here beside what was published."""
    size = model_entry(name).input_size
    model = zoo.create_model(name)
    params, macs = zoo.count_parameters(model), zoo.count_macs(model, size)
    row: dict[str, Any] = {
        "params": params,
        "params_published_m": published.params_m,
        "macs": macs,
        "macs_published_m": published.macs_m,
        "macs_over_published": round(macs / 1e6 / published.macs_m, 4) if published.macs_m else None,
        "published_by": published.source,
    }
    if published.peer:
        generator = torch.Generator().manual_seed(0)
        peer, x = published.peer(), torch.randn(4, *size, generator=generator)
        shake_(peer, x, generator)
        model.load_state_dict(peer.state_dict(), strict=True)
        row["distance_float32"] = distance(model, peer, x)
        row["distance_float64"] = distance(model.double(), peer.double(), x.double())
        with torch.no_grad():  # the control: the comparison sees one filter that is 10% larger
            next(p for p in model.parameters() if p.dim() == 4)[0] *= 1.1
        row["distance_control"] = distance(model, peer, x.double())
        assert row["distance_float64"] < 1e-5 < row["distance_control"], row
    return row


def compare_pretrained(name: str) -> dict[str, float]:
    """The weights on record in both implementations."""
    model, peer = zoo.create_model(name, pretrained=True), timm.create_model(name)
    peer.load_state_dict(model.state_dict(), strict=True)
    x = torch.randn(4, *model_entry(name).input_size, generator=torch.Generator().manual_seed(0))
    float32 = distance(model, peer, x)
    return {"distance_float32": float32, "distance_float64": distance(model.double(), peer.double(), x.double())}


def main() -> None:
    figures = {name: compare(name, published) for name, published in PUBLISHED.items()}
    figures["tf_efficientnet_lite0"]["pretrained"] = compare_pretrained("tf_efficientnet_lite0")
    for name, row in figures.items():
        shown = {key: value for key, value in row.items() if key != "published_by"}
        print(f"{name:24}", " ".join(f"{key}={value}" for key, value in shown.items()))
    print(write_result("zoo", figures, shlex.join(["python", *sys.argv])))


if __name__ == "__main__":
    main()
