"""The moving average of a model's weights (Polyak and Juditsky 1992; Tarvainen and Valpola 2017, arXiv 1703.01780)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from zoo.tensors import load_tensors_

UPDATES = "updates of the average"  # no parameter's name holds a space


class Ema:
    """Averages of a model's floating-point parameters and buffers; other buffers (counters) are copied.

    The decay of update n = 0, 1, ... is min(decay, (1 + n) / (10 + n)), so that the average forgets the start quickly
    (TensorFlow's `ExponentialMovingAverage` with `num_updates`).

    Args:
        decay: in [0, 1): 0.999 averages over about the last 1,000 steps.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        if not 0 <= decay < 1:
            raise ValueError(f"decay={decay} must be in [0, 1)")
        self.decay = decay
        self._updates = 0
        self._averages = {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}

    @torch.no_grad()
    def update_(self, model: nn.Module) -> None:
        """Move the averages towards the model as it is now."""
        decay = min(self.decay, (1 + self._updates) / (10 + self._updates))
        self._updates += 1
        averages, values = [], []
        for name, tensor in model.state_dict().items():
            if tensor.is_floating_point():
                averages.append(self._averages[name])
                values.append(tensor.detach())
            else:
                self._averages[name].copy_(tensor)
        torch._foreach_lerp_(averages, values, 1 - decay)

    @property
    def tensors(self) -> dict[str, Tensor]:
        """Everything that `load_` needs, for checkpoints: the averages and how many updates they have had."""
        return {**self._averages, UPDATES: torch.tensor(self._updates)}

    def load_(self, tensors: dict[str, Tensor]) -> None:
        """Go on from what `tensors` gave.

        Raises:
            KeyError: a tensor is missing.
        """
        self._updates = int(tensors[UPDATES])
        for name, average in self._averages.items():
            average.copy_(tensors[name])  # in place: device and memory format stay the model's

    def copy_to_(self, model: nn.Module) -> None:
        """Put the averages into a model of the same shapes."""
        load_tensors_(model, self._averages)
