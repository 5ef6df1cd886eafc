"""Whole blocks that a cut leaves out: those of the residual ones without which answers change least.

Veit et al. 2016 (Residual Networks Behave Like Ensembles of Relatively Shallow Networks, arXiv 1605.06431, sec. 4.1)
take single blocks out of a trained network and hardly change its errors. Where images are small an operator takes as
long however narrow it is, and only fewer of them are faster; the channels that go with a share of the MACs leave them
all. What is left makes up for the blocks as for channels, see compress/pruning/reconstruct.py.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import nn

from compress.pruning.depth import HeldOut
from transfer.data.parts import Pixels
from zoo.blocks import left_out, residual_blocks, without
from zoo.errors import UsageError, argument
from zoo.files.model_directory import ModelConfig

BLOCKS = "blocks"  # in the notes


@dataclass(frozen=True)
class Blocks:
    """
    Attributes:
        left_out: names of the modules.
        divergences: of each block of the network, nats of the answers without it alone.
        images: on which.
    """

    left_out: tuple[str, ...]
    divergences: dict[str, float]
    images: int

    def note(self) -> dict[str, Any]:
        """Ready for JSON."""
        found = {name: round(nats, 6) for name, nats in self.divergences.items()}
        return {"left_out": list(self.left_out), "divergences": found, "images": self.images, "said": str(self)}

    def __str__(self) -> str:
        nats = self.divergences
        stays = min((nats[name] for name in nats if name not in self.left_out), default=None)
        said = (
            f"left out are {len(self.left_out)} of {len(nats)} residual blocks, {', '.join(self.left_out)}: without "
            f"one of them answers to {self.images} images differ by at most "
            f"{max(nats[name] for name in self.left_out):.3f} nats"
        )
        return said + ("" if stays is None else f", without another by {stays:.3f} and more")


def blocks_of(model: nn.Module, input_size: tuple[int, int, int], wanted: int) -> list[str]:
    """The residual blocks, of which so many are to be left out.

    Raises:
        UsageError: it has not that many.
    """
    found = residual_blocks(model, input_size)
    if wanted > len(found):
        has = f"has {len(found)}" if found else "has none"
        raise UsageError(f"{argument('blocks', wanted)}: the network {has} that can be left out; wanted at most that")
    return found


def least_missed(model: nn.Module, input_size: tuple[int, int, int], wanted: int, held: HeldOut) -> Blocks:
    """So many blocks, without each of which alone the answers change least.

    Args:
        held: the model's answers.

    Raises:
        UsageError: see `blocks_of`.
    """
    found = dict[str, float]()
    for name in blocks_of(model, input_size, wanted):
        with left_out(model, [name]):
            found[name] = held.divergence_of(model)
    chosen = sorted(found, key=lambda name: found[name])[:wanted]
    return Blocks(tuple(name for name in found if name in chosen), found, held.images)


class Shortened:
    """Networks without some of their blocks.

    Args:
        wanted: how many are left out.
        pixels: images at the networks' size.
        held_out: a network's answers to those that it was not trained on, where there are some.
    """

    def __init__(
        self, wanted: int, config: ModelConfig, pixels: Pixels | None, held_out: Callable[[nn.Module], HeldOut | None]
    ) -> None:
        self._wanted, self._config, self._pixels, self._held_out = wanted, config, pixels, held_out
        self._found: tuple[nn.Module, nn.Module] | None = None  # the last network, and what it is without them

    def of(self, network: nn.Module, notes: dict[str, Any]) -> nn.Module:
        """The network without its blocks: those of the notes, where they are chosen there; else they are chosen now."""
        if self._found is None or self._found[0] is not network:
            if BLOCKS not in notes:
                assert self._pixels is not None  # as `Choice.check_images` has seen
                held = self._held_out(network) or HeldOut(network, self._pixels.train, self._config)
                notes[BLOCKS] = least_missed(network, self._config.input_size, self._wanted, held).note()
            self._found = network, without(network, notes[BLOCKS]["left_out"])
        return self._found[1]
