"""What a model costs, counted and not timed: a layer at a time and in total, for any model and input size.

The count follows the operators that run, on a copy whose tensors have shapes and no contents: the model itself is
neither run nor changed, and operators that belong to no layer (an addition, attention's products) are not forgotten.

MACs: products of convolutions, linear layers, recurrent cells and attention, and nothing else.

Other operations: one an output element for elementwise operators and added biases, one an input element for sums and
means, a window's size an output element for pooling, 2 an element for BatchNorm (scale and shift), 5 for softmax
(largest, subtract, exp, sum, divide), 7 for Layer- and GroupNorm (3 for the moments, 2 to normalize, scale and shift).
Views and copies are free.

Activations: bytes of the tensors that a layer allocates. The peak is of all that are alive at once, in an eager forward
pass that keeps nothing for gradients, weights not included; attention is in its plain form, its L x L matrices among
them, which a fused kernel does not keep.

Receptive field: see zoo/receptive_field.py.
"""

from __future__ import annotations

import math
import weakref
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.weak import WeakTensorKeyDictionary

from zoo.ghost import copy_of, ghost_of, tensors_of
from zoo.receptive_field import REDUCTIONS, WINDOWED, Field, Pair, adaptive_window, field_after, pair
from zoo.shapes import run_on_shapes

aten = torch.ops.aten


@dataclass(frozen=True, kw_only=True)
class LayerCost:
    """One module's own share; what its children do is theirs.

    Attributes:
        name: dotted; "" is the model itself.
        kind: the module's class.
        output: shape of the last tensor that it made, batch of one; None if it did not run (auxiliary heads).
        receptive_field: (height, width) in pixels; None for the whole input, or where the input is no image.
    """

    name: str
    kind: str
    output: tuple[int, ...] | None
    params: int
    macs: int
    other_ops: int
    activation_bytes: int
    receptive_field: Pair | None


@dataclass(frozen=True, kw_only=True)
class Cost:
    """All layers in the order in which they run, and their sums.

    Attributes:
        peak_activation_bytes: of all activations alive at once, the input among them.
        receptive_field: the largest before an operator sees the whole image; None where none is smaller.
    """

    layers: tuple[LayerCost, ...]
    params: int
    macs: int
    other_ops: int
    activation_bytes: int
    peak_activation_bytes: int
    receptive_field: Pair | None


def count_parameters(model: nn.Module) -> int:
    """Numbers that training may change; a shared one counts once, BatchNorm's statistics do not."""
    return sum(parameter.numel() for parameter in model.parameters())


def count_macs(model: nn.Module, input_size: tuple[int, ...]) -> int:
    """Multiply-accumulates for one input of (C, H, W), or (L, C) for a sequence: `count_cost` without all the rest."""
    ghost, x = _ghost_and_input(model, input_size)
    try:
        return _macs_of(ghost, x)
    except RuntimeError:  # it may look at numbers, or make some beside the shapes
        return _macs_of(copy_of(model).cpu().eval(), torch.zeros(x.shape, dtype=x.dtype))


def _macs_of(model: nn.Module, x: Tensor) -> int:
    counter = _MacCounter()
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), counter:
        model(x)
    return counter.macs


def count_cost(model: nn.Module, input_size: tuple[int, ...]) -> Cost:
    """What one forward pass of one input of `input_size` costs in eval mode; (L, ...) for a sequence of tokens."""
    ghost, x = _ghost_and_input(model, input_size)
    counter = _Counter(ghost, x)
    # attention in its plain form: two matrix products, as every faster kernel computes them too
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), counter:
        ghost(x)
    layers = counter.layers(ghost)
    fields = [layer.receptive_field for layer in layers if layer.receptive_field and layer.receptive_field > (1, 1)]
    return Cost(
        layers=layers,
        params=count_parameters(model),
        macs=sum(layer.macs for layer in layers),
        other_ops=sum(layer.other_ops for layer in layers),
        activation_bytes=sum(layer.activation_bytes for layer in layers),
        peak_activation_bytes=counter.peak_bytes,
        receptive_field=max(fields, default=None),
    )


def _ghost_and_input(model: nn.Module, input_size: tuple[int, ...]) -> tuple[nn.Module, Tensor]:
    dtype = next((p.dtype for p in model.parameters()), torch.float32)
    tokens = getattr(model, "vocab_size", None) is not None
    shape, dtype = (input_size[:1], torch.int64) if tokens else (input_size, dtype)
    return ghost_of(model).eval(), torch.empty(1, *shape, dtype=dtype, device="meta")


class _MacCounter(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Sees every operator below autograd and counts its products."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.macs = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = run_on_shapes(func, args, kwargs or {})
        if func.overloadpacket in _MACS:
            self.macs += _MACS[func.overloadpacket](result, *args)
        return result


@dataclass
class _Tally:
    output: tuple[int, ...] | None = None
    macs: int = 0
    other_ops: int = 0
    activation_bytes: int = 0
    field: Field | None = None


class _Counter(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Sees every operator below autograd and books it on the module that is running."""

    def __init__(self, model: nn.Module, x: Tensor) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.running: list[str] = []
        self.tallies: dict[str, _Tally] = {}
        self.fields: Any = WeakTensorKeyDictionary()
        if x.dim() == 4:
            self.fields[x] = Field((1, 1), (1, 1), (x.shape[2], x.shape[3]))
        self.alive = self.peak_bytes = 0
        self.known = {t.untyped_storage()._cdata for t in tensors_of(model)}
        self._allocate(x)
        for name, module in model.named_modules():
            module.register_forward_pre_hook(lambda *_, name=name: self.running.append(name))
            module.register_forward_hook(lambda *_: self.running.pop() and None)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = run_on_shapes(func, args, kwargs or {})
        outputs = [t for t in tree_leaves(result) if isinstance(t, Tensor)]
        if not outputs:
            return result
        inputs = [t for t in tree_leaves((args, kwargs)) if isinstance(t, Tensor)]
        tally = self.tallies.setdefault(self.running[-1] if self.running else "", _Tally())
        op = func.overloadpacket
        macs = _MACS[op](outputs[0], *args) if op in _MACS else 0
        tally.macs += macs
        tally.other_ops += _other_ops(func, outputs[0], inputs, args)
        tally.activation_bytes += self._allocate(outputs[0])  # not pooling's indices, not a norm's statistics
        tally.output = tuple(outputs[0].shape)
        seen = field_after(op, outputs[0], inputs, args, self.fields)
        if seen is not None:
            tally.field = seen
            for t in outputs:
                self.fields[t] = seen
        return result

    def _allocate(self, tensor: Tensor) -> int:
        """Bytes of the tensor's memory if it is new; they count as alive until nothing refers to them."""
        storage = tensor.untyped_storage()
        if storage._cdata in self.known:
            return 0
        key, size = storage._cdata, storage.nbytes()
        self.known.add(key)
        self.alive += size
        self.peak_bytes = max(self.peak_bytes, self.alive)

        def free() -> None:
            self.known.discard(key)
            self.alive -= size

        weakref.finalize(storage, free)
        return size

    def layers(self, model: nn.Module) -> tuple[LayerCost, ...]:
        modules = dict(model.named_modules())
        counted: set[Tensor] = set()
        rows = []
        for name in [*self.tallies, *(name for name in modules if name not in self.tallies)]:
            tally, own = self.tallies.get(name), [p for p in modules[name].parameters(recurse=False)]
            params = sum(p.numel() for p in own if p not in counted)
            counted.update(own)
            if tally is None and not params:
                continue
            tally = tally or _Tally()
            rows.append(
                LayerCost(
                    name=name,
                    kind=type(modules[name]).__name__,
                    output=tally.output,
                    params=params,
                    macs=tally.macs,
                    other_ops=tally.other_ops,
                    activation_bytes=tally.activation_bytes,
                    receptive_field=tally.field.size if tally.field else None,
                )
            )
        return tuple(rows)


def _conv_macs(out: Tensor, x: Tensor, weight: Tensor, *rest: Any) -> int:
    transposed = rest[4]  # bias, stride, padding, dilation, transposed, ...
    return (x if transposed else out).numel() * math.prod(weight.shape[1:])  # (O, I / groups, kh, kw)


_MACS: dict[Any, Any] = {
    aten.convolution: _conv_macs,
    aten.mm: lambda out, a, b: out.numel() * a.shape[-1],
    aten.addmm: lambda out, bias, a, b, **_: out.numel() * a.shape[-1],
    aten.bmm: lambda out, a, b: out.numel() * a.shape[-1],
    aten.baddbmm: lambda out, bias, a, b, **_: out.numel() * a.shape[-1],
}
_FREE = {  # moves numbers or makes constants
    aten.cat,
    aten.stack,
    aten.clone,
    aten.copy_,
    aten._to_copy,
    aten.constant_pad_nd,
    aten.roll,
    aten.embedding,
    aten.index,
    aten.index_select,
    aten.gather,
    aten._unsafe_view,
    aten.empty,
    aten.zeros,
    aten.full,
    aten.arange,
    aten.zeros_like,
    aten.ones_like,
    aten.empty_like,
    aten.new_zeros,
    aten.scalar_tensor,
    aten.max_unpool2d,
    aten.lift_fresh,
    aten.flip,
    aten.mm,
    aten.bmm,
}
_BIASED = {aten.convolution, aten.addmm, aten.baddbmm}
_EACH = {  # operations an element of the output
    aten.native_batch_norm: 2,
    aten._native_batch_norm_legit_no_training: 2,
    aten._softmax: 5,
    aten._safe_softmax: 5,
    aten.native_layer_norm: 7,
    aten.native_group_norm: 7,
}


def _other_ops(func: Any, out: Tensor, inputs: list[Tensor], args: Any) -> int:
    op = func.overloadpacket
    if op in _BIASED:
        bias = args[2] if op is aten.convolution else args[0]
        return out.numel() if bias is not None else 0
    if op in _FREE or func.is_view:
        return 0
    if op in WINDOWED:
        return out.numel() * math.prod(pair(args[1]))
    if op is aten._adaptive_avg_pool2d:
        return out.numel() * math.prod(adaptive_window(inputs[0], out))
    if op in REDUCTIONS:
        return inputs[0].numel()
    return out.numel() * _EACH.get(op, 1)
