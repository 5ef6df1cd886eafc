"""ONNX networks from elsewhere: brought into the form that our own exports have, or refused in one line.

That form: opset 20 or later, one input "input", float32 (batch, C, H, W), one output "logits", float32 (batch, K), any
batch; BatchNorm folded into convolutions, constants stored as initializers, every node with a name of its own.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, inliner

from compress.graph.free_batch import expand_stored_parts_, free_reshapes_, set_batch_free_
from compress.graph.interface import declare_, drop_idle_inputs_, flatten_, image_size_, strip_softmax_
from compress.graph.network import BATCHES, FP32_TOLERANCE, OPSET, name_layers_
from compress.graph.operators import check_float, check_loops, check_standard, plain_gemms_
from compress.graph.pooling import pad_in_pooling_
from compress.graph.run import FAILED
from compress.graph.runnable import Prepared, Runnable
from compress.graph.simplify import at_opset, opset_of, rename_, simplified, store_constants_
from zoo.errors import SlimzooError, UsageError, first_line

OLDEST_OPSET = 7  # that onnxruntime promises to run


@dataclass(frozen=True)
class Foreign:
    """A network from elsewhere.

    Attributes:
        network: in our form.
        original: the file's own graph, up to its logits: what the network is compared with.
        changes: what was changed, in words; what changes nothing for anybody, such as names, is not among them.
        input_size: (C, H, W).
        outputs: K.
    """

    network: onnx.ModelProto
    original: onnx.ModelProto
    changes: tuple[str, ...]
    input_size: tuple[int, int, int]
    outputs: int


def normalized(model: onnx.ModelProto, where: str | Path, size: tuple[int, int] | None = None) -> Foreign:
    """Bring a network from elsewhere into our form, and see that it still answers the same, for 1, 3 and 8 images.

    Older operator sets are converted, a final Softmax is taken off, a batch that the file fixes is set free,
    BatchNormalization is folded and constants are computed by onnxruntime's own offline optimizer at its basic level,
    whose graphs have standard operators alone.

    Args:
        model: with all of its weights inside (`zoo.files.onnx_file.load_onnx`); it is left alone.
        where: what it is called in messages.
        size: (H, W) of its images, for a file that leaves them open.

    Raises:
        UsageError: it is quantized or not float32, has other inputs and outputs than images and answers, or is made
            for a fixed number of images in a way that cannot be undone.
        SlimzooError: it cannot be converted, or the result answers otherwise.
    """
    check_float(model, where)
    original = _copy(inliner.inline_local_functions(model) if model.functions else model)
    check_standard(original, where)
    drop_idle_inputs_(original.graph)
    channels, (height, width) = image_size_(original.graph, where, size)
    changes = []
    if strip_softmax_(original.graph, where):
        changes.append("took the Softmax off its end: it answers with logits, and their Softmax is `probabilities`")
    images = np.random.default_rng(0).standard_normal((max(BATCHES), channels, height, width)).astype(np.float32)
    flatten_(original.graph)
    store_constants_(original.graph)
    pad_in_pooling_(original.graph)
    expected = _answers(original, images, where)
    if expected.ndim != 2 or expected.shape[1] < 2:
        shape = ", ".join(map(str, expected.shape[1:]))
        raise UsageError(f"{where} answers each image with a tensor of ({shape}); wanted (classes,), at least 2")
    _check_answers(original, images, expected, where)
    network = _copy(original)
    if (fixed := set_batch_free_(network.graph)) is not None:
        changes.append(f"made its batch of {fixed} any number")
    network, converted = at_opset(network, where)
    if converted is not None:
        changes.append(f"converted from opset {converted} to {OPSET}")
        pad_in_pooling_(network.graph)
    unfolded = _count(network, "BatchNormalization")
    network = simplified(network, where)
    if fixed is not None:  # what was computed of it only now
        free_reshapes_(network.graph, fixed)
        expand_stored_parts_(network.graph)
    check_loops(network, where)
    plain_gemms_(network.graph)
    if folded := unfolded - _count(network, "BatchNormalization"):
        changes.append(f"folded {folded} BatchNormalization" + (f" of {unfolded}" if folded < unfolded else ""))
    rename_(network.graph)
    name_layers_(network)
    declare_(network, (channels, height, width), expected.shape[1])
    onnx.checker.check_model(network, full_check=True)
    _check_same(network, images, expected, fixed, where)
    return Foreign(network, original, tuple(changes), (channels, height, width), expected.shape[1])


def _check_same(
    network: onnx.ModelProto, images: Prepared, expected: NDArray[np.float32], fixed: int | None, where: str | Path
) -> None:
    """Raises:
    UsageError: a batch that was fixed did not become free.
    SlimzooError: other logits than before.
    """
    run, apart = Runnable(network), 0.0
    for size in BATCHES:
        try:
            apart = float(np.abs(run(images[:size]) - expected[:size]).max())
        except Exception as error:  # onnxruntime's own kinds
            if size > 1:
                node = FAILED.search(str(error))
                why = " ".join(node.groups()) if node else first_line(error)
                raise _bound_to_its_batch(where, fixed, why) from error
            raise SlimzooError(f"{where} does not run any more, simplified: {first_line(error)}") from error
        if not apart <= FP32_TOLERANCE * float(expected.std()):
            if size > 1 and fixed is not None:
                raise _bound_to_its_batch(where, fixed, f"the logits of {size} images differ by {apart:.2g}")
            raise SlimzooError(
                f"{where}, simplified, gives logits that differ by {apart:.2g} for {size} images (their standard "
                f"deviation is {expected.std():.2g}); it was not taken"
            )


def _bound_to_its_batch(where: str | Path, fixed: int | None, why: str) -> UsageError:
    made = "in a way that depends on their number" if fixed is None else f"for {fixed} at a time"
    return UsageError(
        f"{where} computes its images {made}, and other numbers fail: {why}; export it again with a dynamic batch"
    )


def _answers(model: onnx.ModelProto, images: Prepared, where: str | Path) -> NDArray[np.float32]:
    version = opset_of(model)
    if version > onnx.defs.onnx_opset_version():
        raise UsageError(
            f"{where} has operators of opset {version}; onnx {onnx.__version__} knows {onnx.defs.onnx_opset_version()} "
            f"at most: export it with opset {OPSET}"
        )
    try:
        return Runnable(model)(images)
    except Exception as error:  # onnxruntime's own kinds
        if version < OLDEST_OPSET:
            raise UsageError(
                f"{where} has operators of opset {version}, of which onnxruntime runs {OLDEST_OPSET} and later; export "
                f"it with opset {OPSET}"
            ) from error
        raise SlimzooError(f"{where} does not run in onnxruntime: {first_line(error)}") from error


def _check_answers(model: onnx.ModelProto, images: Prepared, expected: NDArray[np.float32], where: str | Path) -> None:
    """Raises:
    UsageError: they are not numbers, or depend on more than the image.
    """
    if not np.isfinite(expected).all():
        first = _first_not_finite(model, images)
        raise UsageError(
            f"{where} answers images of noise with NaN or infinite values, which {first} makes first; wanted a network "
            "that answers any image with numbers"
        )
    run = Runnable(model)
    again = [run(images), *([run(images[:1])] if run.size is None else [])]
    if any(np.abs(got - expected[: len(got)]).max() > FP32_TOLERANCE * float(expected.std()) for got in again):
        raise UsageError(
            f"{where} answers an image differently in another batch, or a second time: a layer is as in training "
            "(Dropout, BatchNormalization), draws by lot or mixes its images; export it for inference"
        )


def _first_not_finite(model: onnx.ModelProto, images: Prepared) -> str:
    watched = _copy(model)
    names = [name for node in model.graph.node for name in node.output if name]
    made = {
        value.name: value.type.tensor_type.elem_type
        for value in onnx.shape_inference.infer_shapes(model).graph.value_info
    }
    del watched.graph.output[:]
    watched.graph.output.extend(
        helper.make_tensor_value_info(name, TensorProto.FLOAT, None)
        for name in names
        if made.get(name) == TensorProto.FLOAT
    )
    watched.graph.output.append(model.graph.output[0])
    found = Runnable(watched).all(images[: max(1, Runnable(model).size or 1)])
    wrong = next((name for name in names if not np.isfinite(found.get(name, 0)).all()), model.graph.output[0].name)
    node = next(node for node in model.graph.node if wrong in node.output)
    return f"{node.op_type} {node.name or wrong!r}"


def _copy(model: onnx.ModelProto) -> onnx.ModelProto:
    copied = onnx.ModelProto()
    copied.CopyFrom(model)
    return copied


def _count(network: onnx.ModelProto, kind: str) -> int:
    return sum(node.op_type == kind for node in network.graph.node)
