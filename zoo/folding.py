"""Fold each BatchNorm of a model in eval mode into the convolution before it: one pass finds it, another checks."""

from __future__ import annotations

import copy
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from zoo.classifier import classifier_name, features
from zoo.errors import UsageError

FOLDED_TOLERANCE = 1e-3  # of the largest feature; float32 gives 1e-6 to 1e-5


def folded(model: nn.Module, images: Tensor) -> nn.Module:
    """The model in eval mode with each BatchNorm inside the convolution before it: a quarter less time on a CPU.

    Which convolution that is, a pass over `images` shows. It can be one whose output goes elsewhere too, so the answers
    are compared, and where they differ the model is given back as it was.
    """
    found = normalized_convolutions(model, images)
    pairs = [(conv, norm) for conv, norm in found if type(norm) is nn.BatchNorm2d]  # a subclass may do more
    if not pairs:
        return model
    names = {module: name for name, module in model.named_modules()}
    folded = copy.deepcopy(model)
    for conv, norm in pairs:
        folded.set_submodule(names[conv], fuse_conv_bn_eval(conv, norm))
        folded.set_submodule(names[norm], nn.Identity())
    return folded if answer_alike(folded, model, images) else model


def normalized_convolutions(model: nn.Module, images: Tensor) -> list[tuple[nn.Conv2d, nn.BatchNorm2d]]:
    """The convolutions of a model in eval mode whose outputs a BatchNorm takes; others may take them too."""
    if not any(isinstance(module, nn.BatchNorm2d) for module in model.modules()):
        return []
    outputs: dict[int, tuple[nn.Conv2d, Tensor, int]] = {}
    pairs: list[tuple[nn.Conv2d, nn.BatchNorm2d]] = []

    def after(conv: nn.Conv2d, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        outputs[id(output)] = conv, output, output._version  # held, so that nobody else has its id

    def before(norm: nn.BatchNorm2d, inputs: tuple[Tensor, ...]) -> None:
        found = outputs.get(id(inputs[0]))
        if found is not None and found[2] == inputs[0]._version and norm.running_var is not None:
            pairs.append((found[0], norm))

    handles = []
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            handles.append(module.register_forward_hook(after))
        elif isinstance(module, nn.BatchNorm2d):
            handles.append(module.register_forward_pre_hook(before))
    try:
        with torch.no_grad():  # inference mode counts no versions
            _answers(model, images)
    finally:
        for handle in handles:
            handle.remove()
    return pairs


@torch.no_grad()
def answer_alike(
    folded: nn.Module, model: nn.Module, images: Tensor, within: AbstractContextManager[object] | None = None
) -> bool:
    """Whether the one answers as the other does, to rounding.

    Args:
        within: where the first of them answers.
    """
    expected = _answers(model, images)
    with within or nullcontext():
        difference = (_answers(folded, images) - expected).abs().max()
    return bool(difference <= FOLDED_TOLERANCE * expected.abs().max())


def _answers(model: nn.Module, images: Tensor) -> Tensor:
    """What enters the classifier; of a network with several, its logits."""
    try:
        classifier_name(model)
    except UsageError:
        answers: Tensor = model(images)
        return answers
    return features(model, images)
