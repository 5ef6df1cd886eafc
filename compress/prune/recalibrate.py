"""BatchNorm recalibration: after a cut the running statistics are those of a network that no longer exists.

Li et al. 2020, EagleEye (arXiv 2007.02491), sec. 3.2, measure them afresh. That is right for a network that normalizes
by its own statistics; one that was fine-tuned with frozen, borrowed ones has learned to live with the mismatch, and
measuring afresh would take it away. Here each channel's output keeps the mean and deviation that it had in the uncut
network: where that network's statistics are its own, this is EagleEye's rule.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from compress.prune.structured import Cut, kept_outputs
from transfer.data.loader import LabelledPixels, batches
from zoo.preprocess import Preprocess

IMAGES = 256
NORMS = (nn.BatchNorm1d, nn.BatchNorm2d)


def recalibrate_(
    model: nn.Module,
    uncut: nn.Module,
    cuts: Iterable[Cut],
    data: LabelledPixels,
    preprocess: Preprocess,
    *,
    seed: int = 0,
) -> None:
    """Set the running statistics of a pruned model from one batch of up to 256 training images; weights stay.

    Layers are set in the order in which they run, so that each is measured behind corrected ones.

    Args:
        model: what `prune_channels` returned, in eval mode.
        uncut: the model before the cut.
        cuts: which channels were kept.
    """
    indices = batches(len(data), min(IMAGES, len(data)), seed=seed, epoch=0)[0]
    images = torch.from_numpy(preprocess.normalize(data.pixels[indices]))
    kept = kept_outputs(uncut, cuts)
    before: dict[str, tuple[Tensor, Tensor]] = {}

    def note(name: str, norm: nn.Module, inputs: Tensor) -> None:
        before[name] = _moments(inputs)

    def correct(name: str, norm: nn.Module, inputs: Tensor) -> None:
        old_mean, old_var = (moment[kept[name]] for moment in before[name])
        mean, var = _moments(inputs)
        eps = float(norm.eps)  # type: ignore[arg-type]
        assert isinstance(norm.running_mean, Tensor)
        assert isinstance(norm.running_var, Tensor)
        scale = ((var + eps) / (old_var + eps)).sqrt()  # how much wider the channel's input has become
        deviation = (norm.running_var + eps).sqrt() * scale
        norm.running_mean.copy_(mean - scale * (old_mean - norm.running_mean))
        norm.running_var.copy_((deviation.square() - eps).clamp(min=0))

    _run_with(uncut, images, note)
    _run_with(model, images, correct)


def _moments(inputs: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and variance of each channel of (B, C, ...)."""
    dims = [d for d in range(inputs.ndim) if d != 1]
    return inputs.mean(dim=dims), inputs.var(dim=dims, unbiased=False)


def _run_with(model: nn.Module, images: Tensor, see) -> None:  # type: ignore[no-untyped-def]
    """One forward pass in eval mode, `see` called with (name, norm, input) just before each BatchNorm."""
    handles = [
        module.register_forward_pre_hook(lambda norm, args, name=name: see(name, norm, args[0]))
        for name, module in model.named_modules()
        if isinstance(module, NORMS) and module.running_mean is not None
    ]
    try:
        with torch.no_grad():
            model.eval()(images)
    finally:
        for handle in handles:
            handle.remove()
