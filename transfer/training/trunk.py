"""The trunk of a network, which stays as it is and is run once for each view of an image; its tail is trained.

Trained with the rest, a network's early stages take most of the time, and few images teach them little. Lee et al. 2023
(Surgical Fine-Tuning, https://arxiv.org/abs/2210.11466) tune a part of the layers too.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from transfer.data.augment import Augment
from transfer.data.loader import LabelledPixels
from transfer.device import training_device
from transfer.training.batch import augmented
from zoo.classifier import stages
from zoo.cost import count_macs
from zoo.folding import folded
from zoo.layout import layout_of
from zoo.models.tapped import Tapped
from zoo.preprocess import Preprocess
from zoo.progress import Progress

# Of the network's multiply-accumulates, that the tail may take at most. EfficientNet-Lite0 from its sixth stage: 0.37.
TAIL_MACS = 0.4
ALIKE = 1e-4  # of their standard deviation: the tail's logits from the network's, and what enters it
BATCH = 16  # images of a view at a time


class _Reached(Exception):
    """The place where the trunk ends; what is behind it need not be run."""


class Tail(nn.Module):
    """The last stages of a network on what enters them: (B, C, H + R, W) -> (B, K).

    Below the C x H x W values that enter the first of these stages there are R rows for what a `Tapped` sees before.

    Args:
        network: with everything that comes before taken out.
        known: taps that come before, and how many channels each has.
        height: H.
    """

    def __init__(self, network: nn.Module, known: dict[str, int], height: int) -> None:
        super().__init__()
        self.network, self.known, self.height = network, known, height

    def forward(self, x: Tensor) -> Tensor:
        entered = x[:, :, : self.height]
        if not self.known:
            return self.network(entered)  # type: ignore[no-any-return]
        flat = x[:, :, self.height :].flatten(1)
        widths = list(self.known.values())
        means = torch.split(flat[:, : sum(widths)], widths, dim=1)
        return self.network(entered, dict(zip(self.known, means, strict=True)))  # type: ignore[no-any-return]


@dataclass(frozen=True)
class Trunk:
    """
    Attributes:
        network: whole; it is left alone.
        first: name of the module where the tail begins.
        known: see `Tail`.
        shape: (C, H + R, W) of what enters the tail.
        tail: to be trained.
    """

    network: nn.Module
    first: str
    known: dict[str, int]
    shape: tuple[int, int, int]
    tail: Tail

    @torch.no_grad()
    def enter(self, inputs: Tensor) -> Tensor:
        """(B, ...) inputs of the network -> (B, C, H + R, W)."""
        return _entered(self.network, self.first, self.known, inputs, self.shape[1])

    def joined(self, tail: nn.Module) -> nn.Module:
        """A copy of the network with the weights of a trained tail."""
        joined = copy.deepcopy(self.network)
        trained = {name.removeprefix("network."): tensor for name, tensor in tail.state_dict().items()}
        joined.load_state_dict(trained, strict=False)
        return joined.eval()

    def views(
        self,
        images: LabelledPixels,
        preprocess: Preprocess,
        augment: Augment,
        numbers: Sequence[int],
        *,
        first: int = 0,
        seed: int = 0,
        progress: Progress | None = None,
    ) -> NDArray[np.float32]:
        """(len(numbers), N, H + R, W, C) of augmented views, which are functions of (seed, number, position) alone.

        Args:
            first: position of the first image.
        """
        device, ready = training_device(), self._ready(preprocess)
        channels, height, width = self.shape
        found = np.empty((len(numbers), len(images), height, width, channels), dtype=np.float32)
        for row, number in enumerate(numbers):
            for start in range(0, len(images), BATCH):
                place = np.arange(start, min(start + BATCH, len(images)))
                pixels = torch.from_numpy(np.array(images.pixels[place])).to(device)
                inputs = augmented(pixels, place + first, preprocess, augment, seed=seed, epoch=number)
                found[row, place] = ready.enter(inputs).permute(0, 2, 3, 1).float().cpu().numpy()
                if progress is not None:
                    done = row * len(images) + int(place[-1]) + 1
                    progress("views", done, len(numbers) * len(images), "")
        return found

    def _ready(self, preprocess: Preprocess) -> Trunk:
        """The same on the device of training, on a CPU with the trunk's norms inside of convolutions."""
        device = training_device()
        network = copy.deepcopy(self.network).eval().to(device).to(memory_format=layout_of(self.network))
        ready = replace(self, network=network)
        if device.type != "cpu":
            return ready
        noise = torch.randn(2, preprocess.channels, *preprocess.size, generator=torch.Generator().manual_seed(0))
        faster = replace(self, network=folded(network, noise))
        # a norm that is the tail's may have been taken into the trunk
        return faster if _alike(faster.enter(noise), ready.enter(noise)) else ready


def split(network: nn.Module, example: Tensor) -> Trunk | None:
    """Divide a network where its tail is cheap to train; None where it is no chain of parts that can be divided.

    Args:
        network: a classifier, in eval mode.
        example: (1, C, H, W), run through it.
    """
    names = [stage.name for stage in stages(network)]
    whole = count_macs(network, tuple(example.shape[1:]))
    for first in names[1:-1]:
        trunk = _split_at(network, first, example)
        if trunk is not None and count_macs(trunk.tail, trunk.shape) <= TAIL_MACS * whole:
            return trunk
    return None


@torch.no_grad()
def _split_at(network: nn.Module, first: str, example: Tensor) -> Trunk | None:
    before = _parts_before(network, first, example)
    if before is None:
        return None
    inside = copy.deepcopy(network)
    for name in before:
        inside.set_submodule(name, nn.Identity())
    taps = dict(zip(network.taps, network.channels, strict=True)) if isinstance(network, Tapped) else {}
    known = {tap: width for tap, width in taps.items() if any(f"body.{tap}.".startswith(f"{b}.") for b in before)}
    two = torch.cat([example, example.flip(3) * 0.5])
    try:
        entered = _entered(network, first, known, two, None)
        height = entered.shape[2] - _rows(entered.shape[1], entered.shape[3], sum(known.values()))
        tail = Tail(inside, known, height)
        wanted, got = network(two), tail(entered)
    except (RuntimeError, TypeError, ValueError):  # what is between the parts does not take what enters the tail
        return None
    if not _alike(got, wanted):
        return None
    channels, rows, width = entered.shape[1:]
    return Trunk(network, first, known, (channels, rows, width), tail)


def _alike(got: Tensor, wanted: Tensor) -> bool:
    atol = ALIKE * float(wanted.std() + 1e-6)
    return got.shape == wanted.shape and torch.allclose(got, wanted, rtol=0, atol=atol)


def _parts_before(network: nn.Module, first: str, example: Tensor) -> list[str] | None:
    """The largest modules that have done all their work before the tail begins."""
    ended: list[str] = []
    calls: dict[str, int] = {}

    def end(name: str) -> object:
        def note(module: nn.Module, inputs: object, output: object) -> None:
            calls[name] = calls.get(name, 0) + 1
            if first not in begun:
                ended.append(name)

        return note

    begun: set[str] = set()
    handles = [m.register_forward_hook(end(name)) for name, m in network.named_modules() if name]
    handles.append(network.get_submodule(first).register_forward_pre_hook(lambda *_: begun.add(first)))
    try:
        network(example)
    finally:
        for handle in handles:
            handle.remove()
    if not begun or calls.get(first) != 1 or any(calls[name] > 1 for name in ended):
        return None
    whole = set(ended)
    parents = {name: {name[:at] for at, letter in enumerate(name) if letter == "."} for name in ended}
    return [name for name in dict.fromkeys(ended) if not parents[name] & whole]


def _entered(network: nn.Module, first: str, known: dict[str, int], inputs: Tensor, rows: int | None) -> Tensor:
    """What enters the module `first`, with rows of the known taps below."""
    found: list[Tensor] = []
    seen: dict[str, Tensor] = {}

    def stop(module: nn.Module, given: tuple[Tensor, ...]) -> None:
        found.append(given[0])
        raise _Reached

    handles = [network.get_submodule(first).register_forward_pre_hook(stop)]
    if isinstance(network, Tapped):
        handles += [network.note_(name, seen) for name in known]
    try:
        network(inputs)
    except _Reached:
        pass
    finally:
        for handle in handles:
            handle.remove()
    (entered,) = found
    if entered.dim() != 4:
        raise ValueError(f"what enters {first} is no map of features")
    if not known or not isinstance(network, Tapped):
        return entered
    means = network.means_of(seen)
    batch, channels, _, width = entered.shape
    flat = torch.cat([means[name] for name in known], dim=1)
    below = _rows(channels, width, flat.shape[1])
    padded = torch.nn.functional.pad(flat, (0, channels * below * width - flat.shape[1]))
    return torch.cat([entered, padded.view(batch, channels, below, width)], dim=2)


def _rows(channels: int, width: int, values: int) -> int:
    return -(-values // (channels * width))
