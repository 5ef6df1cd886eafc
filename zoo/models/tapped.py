"""Tapped: a classifier that sees several depths of a network at once, each averaged over the image.

The last features of a network are made for the classes of its pretraining; earlier ones carry over to other drawings
better (Evci et al. 2022, Head2Toe, https://arxiv.org/abs/2201.03529). It is built by
`create_model(name, taps={"blocks.3": 80, "blocks.5": 192})`, and so saved and loaded like any other model.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from zoo.classifier import classifier, classifier_name, stages
from zoo.errors import UsageError


class Tapped(nn.Module):
    """`body` with a linear classifier over what entered its own and the mean outputs of the modules in `taps`.

    Args:
        body: a classifier that ends in a Linear, which is taken out; a fresh one has as many classes.
        taps: dotted name of a module of the body -> its number of channels, in the order of the features.
    """

    def __init__(self, body: nn.Module, taps: Mapping[str, int]) -> None:
        super().__init__()
        name, own = classifier_name(body), classifier(body)
        if not isinstance(own, nn.Linear):
            raise UsageError(f"{type(body).__name__} ends in a convolution; taps want a model that ends in a Linear")
        parent, _, leaf = name.rpartition(".")
        setattr(body.get_submodule(parent), leaf, nn.Identity())
        self.body = body
        self.taps, self.channels = tuple(taps), tuple(taps.values())
        self.classifier = nn.Linear(sum(taps.values()) + own.in_features, own.out_features)

    def forward(self, x: Tensor, known: Mapping[str, Tensor] | None = None) -> Tensor:
        """
        Args:
            known: means of taps that are known already, where what is before them has been taken out.
        """
        known, seen = known or {}, dict[str, Tensor]()
        handles = [self.note_(name, seen) for name in self.taps if name not in known]
        try:
            last = self.body(x)
        finally:
            for handle in handles:
                handle.remove()
        means = {**known, **self.means_of(seen)}
        logits: Tensor = self.classifier(torch.cat([*(means[name] for name in self.taps), last], dim=1))
        return logits

    def note_(self, name: str, seen: dict[str, Tensor]) -> RemovableHandle:
        """Let a tap write its output into `seen` whenever it is run, until the handle is removed."""

        def note(module: nn.Module, inputs: Any, output: Tensor) -> None:
            seen[name] = output

        return self.body.get_submodule(name).register_forward_hook(note)

    def means_of(self, seen: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """(B, channels) of the taps that were seen; taken at the end, when activations in place have been at work."""
        channels = dict(zip(self.taps, self.channels, strict=True))
        return {name: _channel_means(output, channels[name]) for name, output in seen.items()}


def tap(model: nn.Module, example: Tensor) -> dict[str, int]:
    """The taps of a model: its stages from the middle on but the last, which the classifier sees anyway.

    Args:
        example: (1, C, H, W), run through the model once to count channels.
    """
    names = [stage.name for stage in stages(model)[:-1]]
    chosen = names[len(names) // 2 : -1]
    widths: dict[str, int] = {}

    def note(name: str) -> Any:
        def see(module: nn.Module, inputs: Any, output: Any) -> None:
            if isinstance(output, Tensor) and 2 <= output.dim() <= 4:
                widths[name] = output.shape[-1] if output.dim() == 3 else output.shape[1]

        return see

    handles = [model.get_submodule(name).register_forward_hook(note(name)) for name in chosen]
    try:
        with torch.no_grad():
            model.eval()(example)
    finally:
        for handle in handles:
            handle.remove()
    return {name: widths[name] for name in chosen if name in widths}  # a list of modules is never called itself


def _channel_means(output: Tensor, channels: int) -> Tensor:
    """(B, C, H, W), (B, H, W, C), tokens (B, L, C) or a hidden layer's (B, C) -> (B, C).

    `channels` tells the first two apart; after pruning there are fewer, and only in layouts with channels first.
    """
    if output.dim() == 2:
        return output
    channels_last = output.shape[-1] == channels != output.shape[1]
    if output.dim() == 4 and not channels_last:
        return output.mean(dim=(2, 3))
    return output.mean(dim=tuple(range(1, output.dim() - 1)))
