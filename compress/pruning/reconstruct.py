"""Reconstruction: after a cut, what is left makes up for what went, layer by layer, before any training.

Weights: each convolution and linear layer is fitted by least squares to what its kept outputs were in the uncut
network, from the inputs that it has now (He, Zhang and Sun 2017, arXiv 1707.06168, sec. 3.1 and 3.2: W by linear least
squares, along the network, against the uncut network's outputs). Validation images without it and with it, untrained:
ResNet-20 on digits, cut to 1/4 and 1/8 of the MACs, 37 and 98.9%, 12 and 86%; EfficientNet-Lite0 on emoji, to 1/2 and
1/8, 75 and 81%, 14 and 62% (one seed).

Sums: a layer whose outputs are added to something that is there before it runs, as the last one of a residual branch,
is fitted to the sum of the uncut network, less what it will be added to now (sec. 3.3): so each block makes up for the
blocks before, also for one that is left out. Divergence from the uncut network's answers, on images kept back,
EfficientNet-Lite0 by `OptimalBrainSurgeon`, without and with it: photographs of things to 1/2 0.171, 0.158, to 0.3
0.464, 0.412; emoji 0.119, 0.111 and 0.281, 0.266; garments 0.017, 0.016 and 0.058, 0.058 (one seed). Fitting depthwise
layers too, or letting BatchNorm's means take up what is left, brought nothing.

BatchNorm: after a cut the running statistics are those of a network that no longer exists. Where the layer before was
fitted, its outputs are again those that the statistics are of. Elsewhere they are measured. Li et al. 2020, EagleEye
(arXiv 2007.02491), sec. 3.2, measure them afresh; that is right for a network that normalizes by its own statistics,
but one that was fine-tuned with frozen, borrowed ones has learned to live with the mismatch, and measuring afresh would
take it away. Here each channel's output keeps the mean and deviation that it had in the uncut network: where that
network's statistics are its own, this is EagleEye's rule.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from compress.pruning.structured import Cut, kept_outputs
from compress.pruning.sums import CALL, LEAST, Calls, Sums
from transfer.data.augment import NONE, Augment
from transfer.data.loader import LabelledPixels, batches
from transfer.training.batch import augmented
from zoo.blocks import blocks_left_out
from zoo.layout import layout_of
from zoo.preprocess import Preprocess

# At most so many, fewer where they are large, and views of them where there are few. 512 small ones instead of 256 gave
# -1 to 5 points (digits, emoji). Emoji at 96 px, 180 to train on, to 0.3 of the MACs, not trained, one seed: 33.9, 42.1
# and 44.9% of the images that were kept back by 180, 540 and 1,260 with views where Taylor's scores chose the cut; by
# `OptimalBrainSurgeon`'s, 39.7 and 41.6% by 180 and 1,024, and to half 44.4 and 42.4%, loss 1.727 and 1.713.
IMAGES = (256, 512)
PIXELS = 512 * 96 * 96  # of all images together, above 256 of them
PLACES = 32  # of a feature map, from which a convolution's inputs are taken, for each image
RIDGE = 0.01  # of the inputs' mean power: how firmly weights are held to what they were
WIDEST = 4608  # inputs of a layer: 512 channels of 3 x 3; the time to solve grows with the cube
EXACT = 1e-10  # of the outputs' power: rounding, nothing to make up for
NORMS = (nn.BatchNorm1d, nn.BatchNorm2d)


def reconstruct_(
    model: nn.Module,
    uncut: nn.Module,
    cuts: Iterable[Cut],
    data: LabelledPixels,
    preprocess: Preprocess,
    *,
    augment: Augment = NONE,
    weights: bool = True,
    seed: int = 0,
) -> None:
    """Fit the weights and set the running statistics of a pruned model, from one batch of up to 512 images.

    Layers are set in the order in which they run, so that each is fitted and measured behind corrected ones.

    Args:
        model: what `prune_channels` returned, in eval mode.
        uncut: the model before the cut.
        cuts: which channels were kept.
        augment: what makes views of the images where there are few; `NONE` makes none.
        weights: whether they may change; zeros would not stay zeros.
    """
    images = _images(data, preprocess, augment, seed).contiguous(memory_format=layout_of(uncut))
    owners = Counter(id(module.weight) for module in model.modules() if is_fitted(module))
    layers = [
        name
        for name, module in model.named_modules()
        if weights and is_fitted(module) and owners[id(module.weight)] == 1
    ]
    norms = [name for name, module in model.named_modules() if isinstance(module, NORMS) and _has_statistics(module)]
    was, gone = Uncut(uncut, kept_outputs(uncut, cuts), Rows(seed)), blocks_left_out(uncut, model)
    sums = Sums(was.note_sum)
    passed = Passed(sums)
    _run(
        uncut,
        images,
        sums,
        before=dict.fromkeys(norms, was.note_moments) | dict.fromkeys(gone, passed.begin),
        after=dict.fromkeys(layers, was.note_output) | dict.fromkeys(gone, passed.end),
    )
    calls = Calls(each.call for each in was.added.values())
    fit, measure = partial(_fit_to, was, calls), partial(_measure, was)
    _run(
        model,
        images,
        calls,
        before=dict.fromkeys(layers, fit) | dict.fromkeys(norms, measure),
        after=dict.fromkeys(gone, partial(passed.over, calls)),
    )


@dataclass
class Passed:
    """The calls of blocks that the cut network leaves out.

    Attributes:
        sums: that number the calls of the uncut network.
        first: of each block, how many calls had been made before it.
        last: how many it makes, and the number of the one that made what it returns.
    """

    sums: Calls
    first: dict[str, int] = field(default_factory=dict)
    last: dict[str, tuple[int, int | None]] = field(default_factory=dict)

    def begin(self, name: str, block: nn.Module, inputs: tuple[Tensor]) -> None:
        self.first[name] = self.sums.done

    def end(self, name: str, block: nn.Module, inputs: tuple[Tensor], output: Tensor) -> None:
        self.last[name] = self.sums.done - self.first[name], getattr(output, CALL, None)

    def over(self, calls: Calls, name: str, identity: nn.Module, inputs: tuple[Tensor], output: Tensor) -> None:
        """In the cut network, after the identity in its place."""
        calls.pass_over(*self.last[name], output)


@dataclass(frozen=True)
class Added:
    """What a layer's outputs are added to in the uncut network.

    Attributes:
        call: that made it.
        inverse: (C,) by which it is multiplied to be in the units of the layer's outputs.
        values: (rows, C), of the channels that are kept.
        places: of a feature map.
    """

    call: int
    inverse: Tensor
    values: Tensor
    places: int


@dataclass(frozen=True)
class Uncut:
    """What is noted of the uncut network.

    Attributes:
        kept: the outputs that are left, see `kept_outputs`.
        outputs: of layers, (rows, C) of the channels that are kept; None of one that runs twice, which has two sets of
            them, and one of weights.
        widths: of the layers' feature maps.
        added: what each is added to, where that is there before.
        moments: of what comes into norms, but for those behind a layer that is fitted.
    """

    network: nn.Module
    kept: dict[str, Tensor]
    rows: Rows
    outputs: dict[str, Tensor | None] = field(default_factory=dict)
    widths: dict[str, int] = field(default_factory=dict)
    added: dict[str, Added] = field(default_factory=dict)
    moments: dict[str, tuple[Tensor, Tensor]] = field(default_factory=dict)

    def note_output(self, name: str, layer: nn.Module, inputs: tuple[Tensor], output: Tensor) -> None:
        if name in self.outputs:
            self.outputs[name] = None
            return
        self.outputs[name] = self.rows.of(name, positions_last(layer, output))[:, self.kept[name]]
        self.widths[name] = output.shape[-1]
        Sums.mark(output, name)

    def note_sum(self, name: str, scale: Tensor, call: int, other: Tensor) -> None:
        reaches = scale.abs() >= LEAST * scale.abs().max()
        inverse = torch.where(reaches, scale, 1).reciprocal().where(reaches, 0)
        values, kept = positions_last(self.network.get_submodule(name), other), self.kept[name]
        inverse = inverse.expand(values.shape[2])[kept]
        self.added[name] = Added(call, inverse, self.rows.of(name, values)[:, kept], values.shape[1])

    def note_moments(self, name: str, norm: nn.Module, inputs: tuple[Tensor]) -> None:
        if not Sums.is_marked(inputs[0]):
            self.moments[name] = _moments(inputs[0])


def _fit_to(was: Uncut, calls: Calls, name: str, layer: nn.Module, inputs: tuple[Tensor]) -> None:
    """Before a layer of the cut network runs."""
    wanted, rows, added = was.outputs.get(name), was.rows, was.added.get(name)
    if wanted is None:
        return
    other = None if added is None else calls.kept.pop(added.call, None)
    if added is not None and other is not None:
        now = positions_last(layer, other)
        if now.shape[1:] == (added.places, len(added.inverse)):
            wanted = wanted + (added.values - rows.of(name, now)) * added.inverse
    seen = rows.of_inputs(name, layer, inputs[0], was.widths[name])
    if len(seen) == len(wanted):
        fit_(layer, seen, wanted)


def _measure(was: Uncut, name: str, norm: nn.Module, inputs: tuple[Tensor]) -> None:
    """Before a norm of the cut network runs."""
    if name in was.moments:
        _keep_moments_(norm, inputs[0], [moment[was.kept[name]] for moment in was.moments[name]])


class Rows:
    """Which places of each layer's outputs are looked at: the same in both networks."""

    def __init__(self, seed: int) -> None:
        self._generator = torch.Generator().manual_seed(seed)
        self._places: dict[str, Tensor] = {}

    def of(self, name: str, values: Tensor) -> Tensor:
        """(B, places, C) to (rows, C)."""
        if name not in self._places:
            draws = torch.rand(values.shape[:2], generator=self._generator)
            self._places[name] = draws.argsort(1)[:, :PLACES]
        chosen = self._places[name][..., None].expand(-1, -1, values.shape[2])
        return values.gather(1, chosen).flatten(0, 1)

    def of_inputs(self, name: str, layer: nn.Module, inputs: Tensor, width: int) -> Tensor:
        """(rows, inputs of one output): of a convolution, whose feature map is so wide, its patches."""
        if not isinstance(layer, nn.Conv2d):
            return self.of(name, positions_last(layer, inputs))
        assert not isinstance(layer.padding, str)
        (down, right), places = layer.padding, self._places[name]
        patches = F.pad(inputs, (right, right, down, down)) if down or right else inputs
        for dim, size, stride, dilation in zip((2, 3), layer.kernel_size, layer.stride, layer.dilation, strict=True):
            patches = patches.unfold(dim, dilation * (size - 1) + 1, stride)[..., ::dilation]
        image = torch.arange(len(places))[:, None].expand_as(places)
        return patches[image, :, places // width, places % width].flatten(0, 1).flatten(1)


def _images(data: LabelledPixels, preprocess: Preprocess, augment: Augment, seed: int) -> Tensor:
    """(N, C, H, W): images as they are, then, where there are few, views of them all, again and again."""
    fewest, most = IMAGES
    count = min(most, max(fewest, PIXELS // (preprocess.size[0] * preprocess.size[1])))
    found = [torch.from_numpy(preprocess.normalize(data.pixels[batches(len(data), count, seed=seed, epoch=0)[0]]))]
    for epoch in range(1, -(-count // len(data)) if augment != NONE else 1):
        place = np.arange(min(len(data), count - epoch * len(data)))
        pixels = torch.from_numpy(np.array(data.pixels[place]))
        found.append(augmented(pixels, place, preprocess, augment, seed=seed, epoch=epoch))
    return torch.cat(found)


def is_fitted(module: nn.Module) -> bool:
    """Whether it is a layer whose weights are fitted. Not subclasses, whose forward may be another."""
    if type(module) is nn.Conv2d:
        plain = module.padding_mode == "zeros" and not isinstance(module.padding, str)
        return plain and module.groups == 1 and module.weight[0].numel() <= WIDEST
    return type(module) is nn.Linear and module.in_features <= WIDEST


def _has_statistics(norm: nn.Module) -> bool:
    return norm.running_mean is not None


def positions_last(layer: nn.Module, values: Tensor) -> Tensor:
    """(B, C, H, W) of a convolution, (B, ..., C) of a linear layer, to (B, places, C)."""
    if isinstance(layer, nn.Conv2d):
        return values.flatten(2).transpose(1, 2)
    return values.reshape(len(values), -1, values.shape[-1])


def fit_(layer: nn.Module, seen: Tensor, wanted: Tensor) -> None:
    """W + D and the bias for the least squared error plus RIDGE * power * |D|^2."""
    assert isinstance(layer, nn.Conv2d | nn.Linear)
    weight = layer.weight.flatten(1)
    if layer.bias is not None:
        mean_seen, mean_wanted = seen.mean(0), wanted.mean(0)
        seen, wanted = seen - mean_seen, wanted - mean_wanted
    missing = wanted - seen @ weight.T
    if missing.square().sum() <= EXACT * wanted.square().sum():
        return
    gram = (seen.T @ seen).double()
    power = gram.diagonal().mean()
    if power == 0:  # nothing comes in
        return
    gram.diagonal().add_(RIDGE * power)
    change = torch.linalg.solve(gram, (seen.T @ missing).double()).T.float()
    layer.weight.add_(change.view_as(layer.weight))
    if layer.bias is not None:
        layer.bias.copy_(mean_wanted - layer.weight.flatten(1) @ mean_seen)


def _moments(inputs: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and variance of each channel of (B, C, ...), in two passes: torch's `var` takes three times as long."""
    dims = [d for d in range(inputs.ndim) if d != 1]
    mean = inputs.mean(dim=dims, keepdim=True)
    deviation = torch.linalg.vector_norm(inputs - mean, dim=dims)
    return mean.flatten(), deviation.square() * (inputs.shape[1] / inputs.numel())


def _keep_moments_(norm: Any, inputs: Tensor, before: Iterable[Tensor]) -> None:
    """Statistics by which each channel of the output has the moments that it had with inputs of those before."""
    old_mean, old_var = before
    mean, var = _moments(inputs)
    scale = ((var + norm.eps) / (old_var + norm.eps)).sqrt()  # how much wider the channel's input has become
    deviation = (norm.running_var + norm.eps).sqrt() * scale
    norm.running_mean.copy_(mean - scale * (old_mean - norm.running_mean))
    norm.running_var.copy_((deviation.square() - norm.eps).clamp(min=0))


def _run(
    model: nn.Module,
    images: Tensor,
    calls: Calls,
    *,
    before: dict[str, Callable[..., Any]],
    after: dict[str, Callable[..., Any]] | None = None,
) -> None:
    """One forward pass in eval mode, its calls watched; each hook is called with its module's name first."""

    def unwatched(hook: Callable[..., Any], *given: Any) -> None:
        with calls.silent():
            hook(*given)

    with ExitStack() as stack, torch.no_grad():
        for name, hook in before.items():
            hooked = partial(unwatched, hook, name)
            stack.callback(model.get_submodule(name).register_forward_pre_hook(hooked).remove)
        for name, hook in (after or {}).items():
            hooked = partial(unwatched, hook, name)
            stack.callback(model.get_submodule(name).register_forward_hook(hooked).remove)
        stack.enter_context(calls)
        model.eval()(images)
