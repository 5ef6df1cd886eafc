"""The size reader: notes the dimensions that a module's numbers are the sizes of, where a forward uses them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from torch import Tensor
from torch.overrides import TorchFunctionMode

from compress.dependency.labelling import Labelling
from compress.dependency.sizes import Size


class SizeReader(TorchFunctionMode):
    """Notes in the record where a `Size` is handed to an operator."""

    def __init__(self, labelling: Labelling) -> None:
        super().__init__()
        self.labelling = labelling

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        if any(_holds_size(a) for a in args) or any(_holds_size(a) for a in kwargs.values()):
            reader = READERS.get(getattr(func, "__name__", ""))
            if reader is not None and args and isinstance(args[0], Tensor):
                for size, tensor, dim, end in reader(out, args, kwargs):
                    self._note(size, tensor, dim, end)
        return out

    def _note(self, size: Any, tensor: Tensor, dim: int, end: int | None) -> None:
        """Note a number as the size of a dimension, or of the part of it before `end`."""
        if type(size) is not Size or not hasattr(size, "module") or not self._is_used(size.module):
            return  # a plain number, or one that a cache has kept from another module
        dim %= tensor.dim()
        if tensor.shape[dim] < (size if end is None else end):
            return
        marks = self.labelling.of(tensor)
        if end is not None:
            before = (slice(None),) * dim + (slice(end),)
            marks = tuple(m[before] if m.shape[dim] > 1 else m for m in marks)
        elif tensor.shape[dim] != size:
            return
        self.labelling.record.reads.append((size, marks, dim))

    def _is_used(self, module: str) -> bool:
        running = self.labelling.running
        return module in running or module.startswith(f"{running[-1]}." if running[-1] else "")


Place = tuple[Any, Tensor, int, int | None]  # number, tensor, dimension, end of the part of it


def _holds_size(value: Any) -> bool:
    kind = type(value)
    if kind is tuple or kind is list:
        return any(_holds_size(item) for item in value)
    if kind is slice:
        return type(value.start) is Size or type(value.stop) is Size
    return kind is Size


def _named(names: tuple[str, ...], args: Any, kwargs: Any) -> dict[str, Any]:
    """The arguments after the first, by name."""
    return {**dict(zip(names, args[1:], strict=False)), **kwargs}


def _of_output(out: Tensor, args: Any, kwargs: Any) -> Iterator[Place]:
    """view(2, 3, 4), view((2, 3, 4)): the output's shape."""
    shape = args[1:] or tuple(kwargs.values())
    if len(shape) == 1 and isinstance(shape[0], tuple | list):
        shape = shape[0]
    for dim, size in enumerate(shape):
        yield size, out, dim, None


def _of_unflattened(out: Tensor, args: Any, kwargs: Any) -> Iterator[Place]:
    given = _named(("dim", "sizes"), args, kwargs)
    for i, size in enumerate(given["sizes"]):
        yield size, out, given["dim"] % args[0].dim() + i, None


def _of_parts(out: Sequence[Tensor], args: Any, kwargs: Any) -> Iterator[Place]:
    sizes = args[1] if len(args) > 1 else next(iter(kwargs.values()))
    dim = args[2] if len(args) > 2 else kwargs.get("dim", 0)
    for i, part in enumerate(out):
        yield sizes[i] if isinstance(sizes, tuple | list) else sizes, part, dim, None


def _of_narrowed(out: Tensor, args: Any, kwargs: Any) -> Iterator[Place]:
    given = _named(("dim", "start", "length"), args, kwargs)
    yield given["length"], out, given["dim"], None
    yield given["start"], args[0], given["dim"], given["start"]


def _of_item(out: Tensor, args: Any, kwargs: Any) -> Iterator[Place]:
    """x[:, :size], x[..., size:]: what is before the bound."""
    x, index = args[0], args[1] if isinstance(args[1], tuple) else (args[1],)
    taken = sum(i is not None and i is not Ellipsis for i in index)
    dim = 0
    for i in index:
        if i is Ellipsis:
            dim += x.dim() - taken
        elif i is not None:
            if isinstance(i, slice) and i.step is None:
                for bound in (i.start, i.stop):
                    yield bound, x, dim, bound
            dim += 1


def _of_normalized(out: Tensor, args: Any, kwargs: Any) -> Iterator[Place]:
    shape = _named(("normalized_shape",), args, kwargs)["normalized_shape"]
    for i, size in enumerate(shape):
        yield size, args[0], i - len(shape), None


READERS: dict[str, Callable[[Any, Any, Any], Iterator[Place]]] = {
    **dict.fromkeys(("view", "reshape", "expand"), _of_output),
    **dict.fromkeys(("split", "split_with_sizes"), _of_parts),
    **dict.fromkeys(("layer_norm", "rms_norm"), _of_normalized),
    "unflatten": _of_unflattened,
    "narrow": _of_narrowed,
    "__getitem__": _of_item,
}
