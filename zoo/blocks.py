"""Residual blocks: modules that add what they make to what they were given, and without which a network still runs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from zoo.ghost import copy_of, ghost_of

ADDITIONS = ("add", "add_", "__add__", "__radd__", "__iadd__")


def residual_blocks(model: nn.Module, input_size: tuple[int, int, int]) -> list[str]:
    """Names of the modules that may be left out, in the order in which they run.

    Of each the output is a sum in which its own input stands as it is (He et al. 2016, arXiv 1512.03385, eq. 1), as far
    as an activation does not follow, and has the input's shape. It is run once, is given one tensor, holds weights and
    has one name; and the network runs without it.

    Args:
        input_size: (C, H, W) of one image; only shapes are computed, where the network can be run by these alone.
    """
    for copied, device in ((ghost_of, "meta"), (copy_of, "cpu")):
        network, images = copied(model).eval(), torch.zeros(1, *input_size, device=device)
        try:
            shape = network(images).shape
        except Exception:  # whatever a forward that makes tensors of its own says of shapes alone
            continue
        return [name for name in _adding(network, images) if _runs_without(network, name, images, shape)]
    return []


def _adding(network: nn.Module, images: Tensor) -> list[str]:
    """Those of which all but the last is true."""
    names = Counter(id(module) for _, module in network.named_modules(remove_duplicate=False))
    watched = {
        name: module
        for name, module in network.named_modules()
        if name and names[id(module)] == 1 and list(module.parameters())
    }
    running: list[_Call] = []
    calls: dict[str, list[_Call]] = {name: [] for name in watched}

    def begin(name: str) -> Any:
        def hook(module: nn.Module, inputs: tuple[Any, ...], given: dict[str, Any]) -> None:
            alone = len(inputs) == 1 and not given and type(inputs[0]) is Tensor
            running.append(_Call(inputs[0] if alone else None))
            calls[name].append(running[-1])

        return hook

    def end(module: nn.Module, inputs: Any, output: Any) -> None:
        call = running.pop()
        call.fits = call.given is not None and type(output) is Tensor and output.shape == call.given.shape

    with ExitStack() as stack, torch.no_grad():
        for name, module in watched.items():
            stack.callback(module.register_forward_pre_hook(begin(name), with_kwargs=True).remove)
            stack.callback(module.register_forward_hook(end).remove)
        stack.enter_context(_Additions(running, [*network.buffers()]))
        network(images)
    found = [name for name, own in calls.items() if len(own) == 1 and own[0].fits and own[0].adds]
    return [name for name in found if not any(name.startswith(f"{outer}.") for outer in found)]


def _runs_without(network: nn.Module, name: str, images: Tensor, shape: torch.Size) -> bool:
    """Whether nothing asks for more of the block than what it returns."""
    with left_out(network, [name]), torch.no_grad():
        try:
            return bool(network(images).shape == shape)
        except Exception:  # whatever the forward misses
            return False


def leave_out_(model: nn.Module, names: Iterable[str]) -> None:
    """Put an identity where each of these blocks is."""
    for name in names:
        parent, _, leaf = name.rpartition(".")
        setattr(model.get_submodule(parent), leaf, nn.Identity())


def without(model: nn.Module, names: Iterable[str]) -> nn.Module:
    """A copy in eval mode that leaves these blocks out."""
    copied = copy_of(model)
    leave_out_(copied, names)
    return copied.eval()


@contextmanager
def left_out(model: nn.Module, names: Iterable[str]) -> Iterator[None]:
    """The model itself leaves these blocks out, within."""
    blocks = {name: model.get_submodule(name) for name in names}
    leave_out_(model, blocks)
    try:
        yield
    finally:
        for name, block in blocks.items():
            parent, _, leaf = name.rpartition(".")
            setattr(model.get_submodule(parent), leaf, block)


def blocks_left_out(of: nn.Module, model: nn.Module) -> list[str]:
    """Names of the modules of `of` in whose place the model, which was made of it, has an identity."""
    before = dict(of.named_modules())
    return [
        name
        for name, module in model.named_modules()
        if type(module) is nn.Identity and name in before and type(before[name]) is not nn.Identity
    ]


class _Call:
    """One of a module: what it was given, whether that was added to something in it, and came out in the same shape."""

    def __init__(self, given: Tensor | None) -> None:
        self.given, self.adds, self.fits = given, False, False


class _Additions(TorchFunctionMode):
    """Tells the module that is running of sums of its own input and what it makes of it.

    Args:
        buffers: that are not made of anything; neither are parameters.
    """

    def __init__(self, running: list[_Call], buffers: Sequence[Tensor]) -> None:
        super().__init__()
        self._running, self._buffers = running, {id(buffer) for buffer in buffers}

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if self._running and getattr(func, "__name__", "") in ADDITIONS:
            call = self._running[-1]
            summands = [each for each in args[:2] if type(each) is Tensor and id(each) not in self._buffers]
            call.adds = call.adds or (len(summands) == 2 and any(each is call.given for each in summands))
        return func(*args, **(kwargs or {}))
