"""ONNX networks from elsewhere: brought into the form that our own exports have, or refused in one line.

That form: opset 20 or later, one input "input", float32 (batch, C, H, W), one output "logits", float32 (batch, K), any
batch; BatchNorm folded into convolutions, constants stored as initializers, every node with a name of its own.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, inliner, numpy_helper

from compress.graph.free_batch import expand_stored_parts_, free_reshapes_, set_batch_free_
from compress.graph.network import BATCHES, FP32_TOLERANCE, OPSET, name_layers_
from compress.graph.nodes import set_nodes_
from compress.graph.operators import (
    STANDARD,
    all_nodes,
    check_float,
    check_loops,
    check_standard,
    graphs_of,
    plain_gemms_,
)
from compress.graph.preprocessing import AROUND, INPUT, PIXELS, PROBABILITIES
from compress.graph.run import FAILED
from zoo.errors import SlimzooError, UsageError, first_line
from zoo.files.predictor import BATCH, fit_size
from zoo.preprocess import Preprocess

IR_VERSION = 10  # of opset 20
OLDEST_OPSET = 7  # that onnxruntime promises to run
LOGITS = "logits"
THROUGH = ("Identity", "Dropout")  # what may stand after the last operator, and does nothing
ELSEWHERE = "network/"  # before names that mean something else here
FUSED = re.compile(r"^(ConvBnFusion_(W|B|BN_B)_)+")  # what onnxruntime puts before the names of folded weights
# it would make a Gemm between Reshapes of each product of a transformer, whose names and weights are then not its own
UNWANTED = ("MatMulAddFusion",)
# attributes of a Constant node, and what they hold
CONSTANTS: Mapping[str, Any] = {
    "value": None, "value_float": np.float32, "value_floats": np.float32, "value_int": np.int64, "value_ints": np.int64,
}  # fmt: skip

Prepared = NDArray[np.float32]


class Runnable:
    """An ONNX graph in onnxruntime, given its own number of images at a time."""

    def __init__(self, model: onnx.ModelProto) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4  # what fails is told in our words
        self._session = onnxruntime.InferenceSession(
            model.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
        self._given = self._session.get_inputs()[0]

    @property
    def size(self) -> int | None:
        """How many images the file wants at a time; None is any number."""
        return self._given.shape[0] if isinstance(self._given.shape[0], int) else None

    def all(self, batch: Prepared) -> dict[str, NDArray[np.float32]]:
        """Every output by its name, of as many images as the file wants."""
        names = [output.name for output in self._session.get_outputs()]
        filled = np.resize(batch, (self.size or len(batch), *batch.shape[1:]))
        return dict(zip(names, self._session.run(None, {self._given.name: filled}), strict=True))

    def __call__(self, batch: Prepared) -> NDArray[np.float32]:
        """(B, C, H, W) to (B, ...), in pieces of the size that the file fixes, the last one filled up."""
        size = self.size or len(batch)
        found = []
        for start in range(0, len(batch), size):
            piece = batch[start : start + size]
            filled = np.concatenate([piece, *[piece[-1:]] * (size - len(piece))])
            found.append(self._session.run(None, {self._given.name: filled})[0][: len(piece)])
        return np.concatenate(found)


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


class OriginalPredictor:
    """Pixels to logits by the file as it came, which gets prepared tensors; see `zoo.files.predictor.Predictor`."""

    def __init__(self, original: onnx.ModelProto, preprocess: Preprocess, classes: tuple[str, ...] | None) -> None:
        self.preprocess, self.classes, self._run = preprocess, classes, Runnable(original)

    def logits(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        prepared = self.preprocess.normalize(fit_size(pixels, self.preprocess))
        return np.concatenate([self._run(prepared[start : start + BATCH]) for start in range(0, len(prepared), BATCH)])


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
    _drop_idle_inputs_(original.graph)
    channels, (height, width) = _image_size_(original.graph, where, size)
    changes = []
    if _strip_softmax_(original.graph, where):
        changes.append("took the Softmax off its end: it answers with logits, and their Softmax is `probabilities`")
    images = np.random.default_rng(0).standard_normal((max(BATCHES), channels, height, width)).astype(np.float32)
    _flatten_(original.graph)
    expected = _answers(original, images, where)
    if expected.ndim != 2 or expected.shape[1] < 2:
        shape = ", ".join(map(str, expected.shape[1:]))
        raise UsageError(f"{where} answers each image with a tensor of ({shape}); wanted (classes,), at least 2")
    _check_answers(original, images, expected, where)
    network = _copy(original)
    _store_constants_(network.graph)
    if (fixed := set_batch_free_(network.graph)) is not None:
        changes.append(f"made its batch of {fixed} any number")
    network, converted = _at_opset(network, where)
    if converted is not None:
        changes.append(f"converted from opset {converted} to {OPSET}")
    unfolded = _count(network, "BatchNormalization")
    network = _simplified(network, where)
    if fixed is not None:  # what was computed of it only now
        free_reshapes_(network.graph, fixed)
        expand_stored_parts_(network.graph)
    check_loops(network, where)
    plain_gemms_(network.graph)
    if folded := unfolded - _count(network, "BatchNormalization"):
        changes.append(f"folded {folded} BatchNormalization" + (f" of {unfolded}" if folded < unfolded else ""))
    _rename_(network.graph)
    name_layers_(network)
    _declare_(network, (channels, height, width), expected.shape[1])
    onnx.checker.check_model(network, full_check=True)
    _check_same(network, images, expected, fixed, where)
    return Foreign(network, original, tuple(changes), (channels, height, width), expected.shape[1])


# --- what comes in and goes out ---------------------------------------------------------------------------------------


def _drop_idle_inputs_(graph: onnx.GraphProto) -> None:
    """Files of before 2019 list their weights among the inputs; some list what nothing reads.

    Sizes of 0 and -1 are those of converters from MXNet and Paddle for any size.
    """
    stored = {tensor.name for tensor in graph.initializer}
    read = {name for node in all_nodes(graph) for name in node.input}
    kept = [value for value in graph.input if value.name in read - stored]
    del graph.input[:]
    graph.input.extend(kept)
    for value in (*graph.input, *graph.output):
        for dim in value.type.tensor_type.shape.dim:
            if dim.dim_value <= 0 and not dim.dim_param:
                dim.Clear()


def _image_size_(
    graph: onnx.GraphProto, where: str | Path, size: tuple[int, int] | None
) -> tuple[int, tuple[int, int]]:
    """C and (H, W) of the only input; where the file leaves H and W open, they become `size`."""
    if len(graph.input) != 1 or len(graph.output) != 1:
        ins, outs = ([value.name for value in values] for values in (graph.input, graph.output))
        raise UsageError(
            f"{where} has the inputs {', '.join(ins)} and the outputs {', '.join(outs)}; wanted one of each: images "
            "(batch, C, H, W) and answers (batch, classes)"
        )
    given = graph.input[0].type.tensor_type
    dims = list(given.shape.dim)
    shape = [dim.dim_value or dim.dim_param or "?" for dim in dims]
    said = f"{where} takes {TensorProto.DataType.Name(given.elem_type).lower()} ({', '.join(map(str, shape))})"
    wanted = "wanted float32 (batch, C, H, W), C 1 or 3"
    if not graph.input[0].type.HasField("tensor_type"):
        raise UsageError(f"{where} takes no tensor but a {graph.input[0].type.WhichOneof('value')}; {wanted}")
    if given.elem_type != TensorProto.FLOAT or len(dims) != 4:
        raise UsageError(f"{said}; {wanted}")
    if dims[3].dim_value in (1, 3) and dims[1].dim_value not in (1, 3):
        raise UsageError(f"{said}, channels last; {wanted}: export it with channels first (tf2onnx: --inputs-as-nchw)")
    if dims[1].dim_value not in (1, 3):
        raise UsageError(f"{said}; {wanted}")
    for dim, pixels in zip(dims[2:], size or (0, 0), strict=True):
        if not dim.dim_value and pixels:
            dim.dim_value = pixels
    if not (dims[2].dim_value and dims[3].dim_value):
        raise UsageError(f"{said}, images of any size; wanted one size: its preprocessing says which")
    return dims[1].dim_value, (dims[2].dim_value, dims[3].dim_value)


def _flatten_(graph: onnx.GraphProto) -> None:
    """Answers (batch, K, 1, 1), of networks that end in a convolution, become (batch, K)."""
    answer = graph.output[0]
    dims = answer.type.tensor_type.shape.dim
    if len(dims) == 4 and [dim.dim_value for dim in dims[2:]] == [1, 1]:
        flat = f"{answer.name}/flat"
        graph.node.append(helper.make_node("Flatten", [answer.name], [flat], flat, axis=1))
        answer.name = flat
        del dims[2:]


def _strip_softmax_(graph: onnx.GraphProto, where: str | Path) -> bool:
    """Make what enters a final Softmax the output; whether there was one."""
    makers = {output: node for node in graph.node for output in node.output}
    node = makers.get(graph.output[0].name)
    while node is not None and node.op_type in THROUGH:
        node = makers.get(node.input[0])
    if node is None or node.op_type not in ("Softmax", "Sigmoid"):
        return False
    if node.op_type == "Sigmoid":
        raise UsageError(f"{where} ends in a Sigmoid, which judges each class by itself; wanted one class an image")
    graph.output[0].name = node.input[0]
    _drop_unused_(graph)
    return True


def _drop_unused_(graph: onnx.GraphProto) -> None:
    """Nodes on which the output does not depend."""
    needed, kept = {value.name for value in graph.output}, []
    for node in reversed(graph.node):
        if needed & set(node.output):
            needed |= set(node.input)
            needed |= {name for inner in graphs_of(node) for each in all_nodes(inner) for name in each.input}
            kept.append(node)
    set_nodes_(graph, reversed(kept))


def _declare_(network: onnx.ModelProto, input_size: tuple[int, int, int], outputs: int) -> None:
    graph = network.graph
    del graph.input[:], graph.output[:], graph.value_info[:], network.metadata_props[:]
    graph.input.append(helper.make_tensor_value_info(INPUT, TensorProto.FLOAT, ["batch", *input_size]))
    graph.output.append(helper.make_tensor_value_info(LOGITS, TensorProto.FLOAT, ["batch", outputs]))
    for node in graph.node:
        node.doc_string = ""
        del node.metadata_props[:]
    network.doc_string = graph.doc_string = ""
    network.ir_version = max(network.ir_version, IR_VERSION)


# --- whether it is the same -------------------------------------------------------------------------------------------


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


# --- the graph in between ---------------------------------------------------------------------------------------------


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
    made = {value.name: value.type.tensor_type.elem_type
            for value in onnx.shape_inference.infer_shapes(model).graph.value_info}  # fmt: skip
    del watched.graph.output[:]
    watched.graph.output.extend(
        helper.make_tensor_value_info(name, TensorProto.FLOAT, None)
        for name in names if made.get(name) == TensorProto.FLOAT
    )  # fmt: skip
    watched.graph.output.append(model.graph.output[0])
    found = Runnable(watched).all(images[: max(1, Runnable(model).size or 1)])
    wrong = next((name for name in names if not np.isfinite(found.get(name, 0)).all()), model.graph.output[0].name)
    node = next(node for node in model.graph.node if wrong in node.output)
    return f"{node.op_type} {node.name or wrong!r}"


def _store_constants_(graph: onnx.GraphProto) -> None:
    """Constant nodes become initializers."""
    kept = []
    for node in graph.node:
        (attribute, *_) = node.attribute or [None]
        if node.op_type != "Constant" or attribute is None or attribute.name not in CONSTANTS:
            kept.append(node)
            continue
        values = helper.get_attribute_value(attribute)
        tensor = graph.initializer.add()
        if isinstance(values, TensorProto):
            tensor.CopyFrom(values)
        else:
            tensor.CopyFrom(numpy_helper.from_array(np.array(values, CONSTANTS[attribute.name])))
        tensor.name = node.output[0]
    set_nodes_(graph, kept)


def opset_of(network: onnx.ModelProto) -> int:
    return next((opset.version for opset in network.opset_import if opset.domain in STANDARD), 1)


def _at_opset(network: onnx.ModelProto, where: str | Path) -> tuple[onnx.ModelProto, int | None]:
    """The network with operators of `OPSET` or later, and what it had before if that was less."""
    version = opset_of(network)
    if version >= OPSET:
        return network, None
    network.ir_version = max(network.ir_version, IR_VERSION)
    try:
        return onnx.version_converter.convert_version(network, OPSET), version
    except Exception as error:  # the converter's own kinds
        raise SlimzooError(
            f"{where} has operators of opset {version}, which onnx cannot convert to {OPSET}: {first_line(error)}; "
            f"export it with opset {OPSET}"
        ) from error


def _simplified(network: onnx.ModelProto, where: str | Path) -> onnx.ModelProto:
    import onnxruntime

    with tempfile.TemporaryDirectory() as folder:
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
        options.optimized_model_filepath = str(Path(folder, "simplified.onnx"))
        try:
            onnxruntime.InferenceSession(
                network.SerializeToString(), options, providers=["CPUExecutionProvider"],
                disabled_optimizers=list(UNWANTED),
            )  # fmt: skip
        except Exception as error:
            raise SlimzooError(f"{where} does not open in onnxruntime: {first_line(error)}") from error
        simplified = onnx.load(options.optimized_model_filepath)
    used = {node.domain or "" for node in all_nodes(simplified.graph)}
    opsets = [opset for opset in simplified.opset_import if opset.domain in used or not opset.domain]
    del simplified.opset_import[:]
    simplified.opset_import.extend(opsets)
    return simplified


def _rename_(graph: onnx.GraphProto) -> None:
    """Input and output as ours are called, folded weights as they were; each node by a name that no other has."""
    tensors = {name for node in graph.node for name in (*node.input, *node.output) if name}
    tensors |= {tensor.name for tensor in graph.initializer}
    new = {graph.input[0].name: INPUT, graph.output[0].name: LOGITS}
    taken = {INPUT, LOGITS, PIXELS, PROBABILITIES}
    for name in sorted(tensors - new.keys()):
        plain = FUSED.sub("", name)
        wanted = plain if plain not in tensors else name
        new[name] = _free(f"{ELSEWHERE}{wanted}" if wanted in taken or wanted.startswith(AROUND) else wanted, taken)
    _rename_tensors_(graph, new)
    nodes: set[str] = set()
    for number, node in enumerate(graph.node):
        name = node.name or f"{node.op_type}_{number}"
        node.name = _free(f"{ELSEWHERE}{name}" if name.startswith(AROUND) else name, nodes)


def _rename_tensors_(graph: onnx.GraphProto, new: Mapping[str, str]) -> None:
    for node in all_nodes(graph):
        for names in (node.input, node.output):
            for place, name in enumerate(names):
                names[place] = new.get(name, name)
    for value in (*graph.initializer, *graph.input, *graph.output):
        value.name = new.get(value.name, value.name)


def _free(name: str, taken: set[str]) -> str:
    """The name, or with a number after it where it is taken; it is taken then."""
    free, number = name, 1
    while free in taken:
        free, number = f"{name}_{number}", number + 1
    taken.add(free)
    return free


def _copy(model: onnx.ModelProto) -> onnx.ModelProto:
    copied = onnx.ModelProto()
    copied.CopyFrom(model)
    return copied


def _count(network: onnx.ModelProto, kind: str) -> int:
    return sum(node.op_type == kind for node in network.graph.node)
