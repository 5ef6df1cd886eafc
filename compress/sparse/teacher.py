"""The loss of recovery: the labels, and the answers of the model as it was before."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from transfer.training.device import training_device
from transfer.training.step import LossFn

TEMPERATURE = 4.0  # Cho and Hariharan 2019 (arXiv 1910.01348), sec. 3
WEIGHT = 0.7  # of the teacher; the literature has 0.5 to 0.9 (ibid.: 0.9), and it was not tuned here


def taught_by(teacher: nn.Module, *, temperature: float = TEMPERATURE, weight: float = WEIGHT) -> LossFn:
    """(1 - weight) x cross-entropy + weight x T^2 x KL of the softened answers (Hinton et al. 2015, arXiv 1503.02531).

    The teacher is copied, to the device of training, and sees the very inputs that the student sees.
    """
    master = copy.deepcopy(teacher).to(training_device()).to(memory_format=torch.channels_last).eval()

    def loss_fn(logits: Tensor, targets: Tensor, inputs: Tensor) -> Tensor:
        with torch.no_grad():
            wanted = F.log_softmax(master(inputs).float() / temperature, dim=1)
        found = F.log_softmax(logits / temperature, dim=1)
        softened = F.kl_div(found, wanted, reduction="batchmean", log_target=True)
        return (1 - weight) * F.cross_entropy(logits, targets) + weight * temperature**2 * softened

    return loss_fn
