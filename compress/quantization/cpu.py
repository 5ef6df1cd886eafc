"""Which int8 arithmetic this processor gets right, found by trying it.

Without VNNI or AMX, x86 kernels add two products of unsigned and signed bytes in 16 bits, and saturate: weights of the
full range lose up to half of a sum, and, in some versions of onnxruntime, nearly all where both are signed. The cure is
7-bit weights (onnxruntime's `reduce_range`).
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from compress.benchmark.machine import describe_machine
from zoo.errors import UsageError

INPUTS = 64


@dataclass(frozen=True)
class Scheme:
    """Types of activations and weights ("uint8", "int8") and how many bits of the weights are used."""

    activations: str
    weights: str
    bits: int = 8

    def __str__(self) -> str:
        return f"{self.activations} activations, {self.bits}-bit {self.weights} weights"


U8S8, S8S8, U8U8 = Scheme("uint8", "int8"), Scheme("int8", "int8"), Scheme("uint8", "uint8")
U8S8_7BIT = Scheme("uint8", "int8", bits=7)
SCHEMES = (U8S8, S8S8, U8U8, U8S8_7BIT)
X86 = (U8S8, U8S8_7BIT, U8U8)  # the fastest first; U8U8 is slower than float, and always exact
ARM = (S8S8, U8S8, U8S8_7BIT, U8U8)
THIS = "this"
MACHINES = {"any": U8S8_7BIT, "x86": U8S8_7BIT, "x86-vnni": U8S8, "arm": S8S8}


@functools.cache
def best_scheme() -> Scheme:
    """The fastest of the schemes whose sums are exact here."""
    return decide({"asimd"} & set(describe_machine()["flags"]) != set(), is_exact)


def scheme_for(machine: str) -> Scheme:
    """The scheme for one of MACHINES, or for THIS.

    Raises:
        UsageError: this processor does not give its sums, so that what it costs could not be measured.
    """
    if machine == THIS:
        return best_scheme()
    scheme = MACHINES[machine]
    if not is_exact(scheme):
        raise UsageError(
            f"int8 for {machine} ({scheme}) has other sums on this processor, which cannot measure its accuracy: take "
            "--for any, which is right everywhere, or quantize on such a machine"
        )
    return scheme


def is_here(machine: str) -> bool:
    """Whether this processor is one of those."""
    flags = describe_machine()["flags"]
    arm, vnni = "asimd" in flags, any("vnni" in flag or flag.startswith("amx") for flag in flags)
    return {"arm": arm, "x86": not arm and bool(flags), "x86-vnni": not arm and vnni}.get(machine, True)


def decide(arm: bool, exact: Callable[[Scheme], bool]) -> Scheme:
    """Decide by trial, not by the processor's name: `exact` says of a scheme whether its sums are."""
    return next(scheme for scheme in (ARM if arm else X86) if scheme == U8U8 or exact(scheme))


def is_exact(scheme: Scheme) -> bool:
    """Whether a convolution over 64 inputs at full scale gives the sum that integers give."""
    return convolution_at_full_scale(scheme) == exact_at_full_scale(scheme)


def exact_at_full_scale(scheme: Scheme) -> int:
    """What `convolution_at_full_scale` should return, by Python's integers: the sum, scaled to the top of the type."""
    activation, weight, top = _full_scale(scheme)
    total = sum(activation * weight for _ in range(INPUTS))
    return min(top, total * top // (INPUTS * activation * weight))


def convolution_at_full_scale(scheme: Scheme) -> int:
    """One output of onnxruntime's QLinearConv over 64 inputs and weights, all at the top of their type."""
    import onnxruntime

    activation, weight, top = _full_scale(scheme)
    a, w = np.dtype(scheme.activations), np.dtype(scheme.weights)
    scalars = {"x_scale": 1.0, "w_scale": 1.0, "y_scale": INPUTS * activation * weight / top}
    initializers = [numpy_helper.from_array(np.array(v, dtype=np.float32), k) for k, v in scalars.items()]
    initializers += [
        numpy_helper.from_array(np.array(0, dtype=a), "x_zero"),
        numpy_helper.from_array(np.array(0, dtype=w), "w_zero"),
        numpy_helper.from_array(np.array(0, dtype=a), "y_zero"),
        numpy_helper.from_array(np.full((INPUTS, INPUTS, 1, 1), weight, dtype=w), "w"),
    ]
    names = ["x", "x_scale", "x_zero", "w", "w_scale", "w_zero", "y_scale", "y_zero"]
    shape = [1, INPUTS, 8, 8]
    kind = TensorProto.UINT8 if scheme.activations == "uint8" else TensorProto.INT8
    graph = helper.make_graph(
        [helper.make_node("QLinearConv", names, ["y"])],
        "saturation",
        [helper.make_tensor_value_info("x", kind, shape)],
        [helper.make_tensor_value_info("y", kind, shape)],
        initializers,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    onnx.checker.check_model(model)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    output = session.run(None, {"x": np.full(shape, activation, dtype=a)})[0]
    return int(output.min())


def _full_scale(scheme: Scheme) -> tuple[int, int, int]:
    """Activation, weight and output at the top; 7-bit weights reach 64, as `reduce_range` rounds them."""
    top = int(np.iinfo(scheme.activations).max)
    weight = int(np.iinfo(scheme.weights).max) if scheme.bits == 8 else 1 << (scheme.bits - 1)
    return top, weight, top
