"""Operators as other exporters write them: each file is taken and answers the same, or refused by what is in it."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from compress.graph.foreign import normalized
from compress.graph.layers import macs_by_layer
from compress.quantization.adaround import adaround
from compress.quantization.bias import correct_biases, input_means
from compress.quantization.calibrate import watch
from compress.quantization.cpu import best_scheme
from compress.quantization.half import to_float16
from compress.quantization.ptq import quantize_static, rounded_activations, without_int8
from compress.quantization.rounding import round_to_nearest, with_weights
from compress.quantization.sensitivity import blame
from zoo.errors import UsageError
from zoo.files.onnx_file import load_onnx

SIDE, CLASSES = 8, 5


def weight(*shape):
    return np.random.default_rng(shape).normal(0, 1 / np.sqrt(max(1, np.prod(shape[1:]))), shape).astype(np.float32)


def node(kind, inputs, outputs, **attributes):
    return helper.make_node(kind, inputs, outputs, **attributes)


# a network's first layers, large enough that int8 makes the file smaller: (batch, 3, 8, 8) -> "r0" (batch, 8, 8, 8)
STEM = [
    node("Conv", ["x", "wa"], ["ca"], pads=[1] * 4),
    node("Relu", ["ca"], ["ra"]),
    node("Conv", ["ra", "wb"], ["cb"], pads=[1] * 4),
    node("Relu", ["cb"], ["rb"]),
    node("Conv", ["rb", "wc", "bc"], ["cc"], pads=[1] * 4),
    node("Relu", ["cc"], ["r0"]),
]
STORED = {"wa": weight(32, 3, 3, 3), "wb": weight(32, 32, 3, 3), "wc": weight(8, 32, 3, 3), "bc": weight(8)}
POOLED = [*STEM, node("GlobalAveragePool", ["r0"], ["p"]), node("Flatten", ["p"], ["f"])]  # (batch, 8)


def model(nodes, stored, *, opset=17, domains=(), inputs=None, answer=("y", [None, CLASSES])):
    graph = helper.make_graph(
        nodes,
        "net",
        inputs or [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 3, SIDE, SIDE])],
        [helper.make_tensor_value_info(answer[0], TensorProto.FLOAT, answer[1])],
        [numpy_helper.from_array(np.asarray(values), name) for name, values in stored.items()],
    )
    imports = [helper.make_opsetid("", opset), *(helper.make_opsetid(name, 1) for name in domains)]
    return helper.make_model(graph, opset_imports=imports, ir_version=8)


def on_images(nodes, stored, channels):
    """The nodes make "c" (batch, channels, ...) of "r0"."""
    ending = [node("GlobalAveragePool", ["c"], ["p"]), node("Flatten", ["p"], ["f"]), node("Gemm", ["f", "k"], ["y"])]
    return model([*STEM, *nodes, *ending], {**STORED, **stored, "k": 4 * weight(channels, CLASSES)})


def on_features(nodes, stored, width):
    """The nodes make "h" (batch, width) of "f"."""
    return model(
        [*POOLED, *nodes, node("Gemm", ["h", "k"], ["y"])], {**STORED, **stored, "k": 4 * weight(width, CLASSES)}
    )


def transposed(groups, **attributes):
    return on_images(
        [node("ConvTranspose", ["r0", "w", "b"], ["c"], group=groups, strides=[2, 2], **attributes)],
        {"w": weight(8, 6, 3, 3), "b": weight(6 * groups)},
        6 * groups,
    )


def along(axis):
    return {"s": np.array([0, 8, 64] if axis == 1 else [0, 8, 4, 4, 4])}


NETWORKS = {
    "grouped": lambda: on_images([node("Conv", ["r0", "w"], ["c"], group=4)], {"w": weight(8, 2, 3, 3)}, 8),
    "dilated": lambda: on_images([node("Conv", ["r0", "w"], ["c"], dilations=[2, 3])], {"w": weight(8, 8, 3, 3)}, 8),
    "zeros": lambda: on_images(
        [node("Conv", ["r0", "w", "b"], ["c"])], {"w": np.zeros((8, 8, 3, 3), np.float32), "b": weight(8)}, 8
    ),
    "one channel": lambda: on_images([node("Conv", ["r0", "w"], ["c"])], {"w": weight(1, 8, 3, 3)}, 1),
    "transposed": lambda: transposed(1, output_padding=[1, 1]),
    "transposed in groups": lambda: transposed(4),
    "transposed by channel": lambda: transposed(8, dilations=[2, 2]),
    "1d": lambda: on_images(
        [node("Reshape", ["r0", "s"], ["q"]), node("Conv", ["q", "w"], ["c"])], {**along(1), "w": weight(6, 8, 3)}, 6
    ),
    "3d": lambda: on_images(
        [node("Reshape", ["r0", "s"], ["q"]), node("Conv", ["q", "w"], ["c"])],
        {**along(3), "w": weight(6, 8, 2, 2, 2)},
        6,
    ),
    "factors": lambda: on_features(
        [node("Gemm", ["f", "a", "b"], ["h"], transB=1, alpha=0.5, beta=2.0)], {"a": weight(16, 8), "b": weight(16)}, 16
    ),
    "bias of a row": lambda: on_features(
        [node("Gemm", ["f", "a", "b"], ["h"], beta=0.5)], {"a": weight(8, 16), "b": weight(1, 16)}, 16
    ),
    "bias of one": lambda: on_features(
        [node("Gemm", ["f", "a", "b"], ["h"])], {"a": weight(8, 16), "b": np.float32(0.3)}, 16
    ),
    "first turned": lambda: on_features(
        [node("Transpose", ["f"], ["t"], perm=[1, 0]), node("Gemm", ["t", "a"], ["h"], transA=1, transB=1)],
        {"a": weight(16, 8)},
        16,
    ),
    "by a vector": lambda: on_features(
        [node("MatMul", ["f", "a"], ["v"]), node("Unsqueeze", ["v", "ax"], ["h"])],
        {"a": weight(8), "ax": np.array([1])},
        1,
    ),
    "by three matrices": lambda: on_features(
        [node("Unsqueeze", ["f", "ax"], ["u"]), node("MatMul", ["u", "a"], ["v"]), node("Flatten", ["v"], ["h"])],
        {"a": weight(3, 8, 4), "ax": np.array([1, 2])},
        12,
    ),
    "shared both ways": lambda: on_features(
        [node("Gemm", ["f", "a"], ["g"], transB=1), node("Relu", ["g"], ["r"]), node("Gemm", ["r", "a"], ["h"])],
        {"a": weight(16, 8)},
        8,
    ),
    "a mask": lambda: on_features(
        [node("Add", ["f", "m"], ["masked"]), node("Softmax", ["masked"], ["h"], axis=-1)],
        {"m": np.array([0, -np.inf, 0, 0, 0, 0, 0, 0], np.float32)},
        8,
    ),
}


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(1).standard_normal((16, 3, SIDE, SIDE)).astype(np.float32)


def run(network, images):
    session = onnxruntime.InferenceSession(network.SerializeToString())
    return session.run(None, {session.get_inputs()[0].name: images})[0]


def distance(found, expected):
    """Of answers, as a share of what they are."""
    return float(np.square(found - expected).mean() / np.square(expected).mean())


@pytest.mark.parametrize("name", NETWORKS)
def test_int8_is_near_to_the_file_itself(images, name):
    """And its biases can be corrected."""
    made = NETWORKS[name]()
    network, expected = normalized(made, "net.onnx").network, run(made, images)
    quantized = quantize_static(network, [images])
    assert quantized.int8_macs > 0.5
    assert distance(run(quantized.network, images), expected) < 0.05
    corrected = correct_biases(network, quantized.network, input_means(network, [images]))
    assert distance(run(corrected, images), expected) < 0.05


@pytest.mark.parametrize("name", ["transposed in groups", "by three matrices", "3d", "shared both ways"])
def test_four_bits_act_as_they_are_rounded(images, name):
    network = normalized(NETWORKS[name](), "net.onnx").network
    rounded = round_to_nearest(network, 4)
    expected = run(with_weights(network, {tensor: each.weight for tensor, each in rounded.items()}), images)
    found = quantize_static(network, [images], scheme=replace(best_scheme(), bits=4)).network
    assert distance(run(found, images), expected) < 0.05


@pytest.mark.slow
@pytest.mark.parametrize("name", ["transposed in groups", "by three matrices", "3d", "shared both ways"])
def test_rounding_is_learned_where_it_can_be(images, name):
    network = normalized(NETWORKS[name](), "net.onnx").network
    rounded = round_to_nearest(network, 4)
    for tensor, learned in adaround(network, rounded, [images]).items():
        assert np.abs(learned.weight - rounded[tensor].weight).max() < 1.01 * rounded[tensor].grid.scale.max()


@pytest.mark.parametrize("groups", [1, 4])
def test_macs_of_a_transposed_convolution(groups):
    """Each input is multiplied into a kernel of each output channel of its group."""
    network = normalized(transposed(groups), "net.onnx").network
    (layer,) = [each.name for each in network.graph.node if each.op_type == "ConvTranspose"]
    assert macs_by_layer(network)[layer] == SIDE * SIDE * 8 * 6 * 9
    assert "ConvTranspose in float" in without_int8(network)


def test_layers_that_stay_in_float_are_not_judged(images):
    """A transposed convolution's rounding is judged, a recurrent layer has none."""
    network = normalized(transposed(1), "net.onnx").network
    histograms = watch(network, rounded_activations(network), [images])
    assert len(blame(network, histograms, [images])) == len(macs_by_layer(network))
    recurrent = model(
        [
            *STEM,
            node("Reshape", ["r0", "s"], ["q"]),
            node("Transpose", ["q"], ["t"], perm=[2, 0, 1]),
            node("GRU", ["t", "gw", "gr"], ["all", "last"], hidden_size=6),
            node("Transpose", ["last"], ["l"], perm=[1, 0, 2]),
            node("Flatten", ["l"], ["f"]),
            node("Gemm", ["f", "k"], ["y"]),
        ],
        {**STORED, "s": np.array([0, 8, 64]), "gw": weight(1, 18, 8), "gr": weight(1, 18, 6), "k": weight(6, CLASSES)},
    )
    network = normalized(recurrent, "net.onnx").network
    histograms = watch(network, rounded_activations(network), [images])
    judged = {each.layer for each in blame(network, histograms, [images])}
    assert {each.op_type for each in network.graph.node if each.name in judged} == {"Conv", "Gemm"}
    assert "GRU, which takes --to fp16 or bf16" in without_int8(network)


def test_a_mask_s_infinity_is_no_fault_in_float16(images):
    network = normalized(NETWORKS["a mask"](), "net.onnx").network
    half = to_float16(network, [images])
    np.testing.assert_allclose(run(half.network, images), run(network, images), rtol=0.02, atol=0.02)


def with_values(place, number):
    made = NETWORKS["grouped"]()
    (tensor,) = [each for each in made.graph.initializer if each.name == place]
    values = numpy_helper.to_array(tensor).copy()
    values.flat[3] = number
    tensor.CopyFrom(numpy_helper.from_array(values, place))
    return made


def optimized():
    """As onnxruntime saves it."""
    with tempfile.TemporaryDirectory() as folder:
        options = onnxruntime.SessionOptions()
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
        options.optimized_model_filepath = f"{folder}/optimized.onnx"
        options.log_severity_level = 4
        onnxruntime.InferenceSession(NETWORKS["dilated"]().SerializeToString(), options)
        return onnx.load(options.optimized_model_filepath)


def looped():
    body = helper.make_graph(
        [node("Conv", ["s", "lw"], ["o"], pads=[1] * 4), node("Identity", ["go"], ["on"])],
        "body",
        [
            helper.make_tensor_value_info("i", TensorProto.INT64, []),
            helper.make_tensor_value_info("go", TensorProto.BOOL, []),
            helper.make_tensor_value_info("s", TensorProto.FLOAT, None),
        ],
        [
            helper.make_tensor_value_info("on", TensorProto.BOOL, []),
            helper.make_tensor_value_info("o", TensorProto.FLOAT, None),
        ],
    )
    stored = {"n": np.array(2), "yes": np.array(True), "lw": weight(8, 8, 3, 3)}
    return on_images([node("Loop", ["n", "yes", "r0"], ["c"], body=body)], stored, 8)


REFUSED = {
    "NaN": (lambda: with_values("w", np.nan), "1 of the 144 values of 'w' are NaN"),
    "infinite": (lambda: with_values("bc", np.inf), "1 of the 8 values of 'bc' are infinite"),
    "too large": (lambda: with_values("wa", 3e38), "NaN or infinite values, which Conv .* makes first"),
    "optimized": (optimized, "has com.microsoft's FusedConv, which onnxruntime writes"),
    "custom": (
        lambda: model([*POOLED, node("Mine", ["f"], ["y"], domain="acme")], STORED, domains=["acme"]),
        "has acme's Mine; wanted operators of ONNX itself",
    ),
    "scikit": (
        lambda: model(
            [*POOLED, node("Normalizer", ["f"], ["y"], domain="ai.onnx.ml", norm="L2")], STORED, domains=["ai.onnx.ml"]
        ),
        "has ai.onnx.ml's Normalizer",
    ),
    "unknown": (lambda: model([*POOLED, node("Mine", ["f"], ["y"])], STORED), "No Op registered for Mine"),
    "drawn by lot": (
        lambda: on_images([node("RandomNormalLike", ["r0"], ["z"]), node("Add", ["r0", "z"], ["c"])], {}, 8),
        "answers an image differently in another batch, or a second time",
    ),
    "loop": (looped, "has a Conv inside a Loop"),
    "too old": (
        lambda: model(
            [*POOLED, node("Gemm", ["f", "k", "b"], ["y"], broadcast=1)],
            {**STORED, "k": weight(8, CLASSES), "b": weight(CLASSES)},
            opset=6,
        ),
        "operators of opset 6, of which onnxruntime runs 7 and later",
    ),
    "too new": (lambda: model(POOLED, STORED, opset=99, answer=("f", ["N", 8])), "operators of opset 99"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused_is_named(tmp_path, name):
    build, said = REFUSED[name]
    (tmp_path / "net.onnx").write_bytes(build().SerializeToString())
    with pytest.raises(UsageError, match=said) as told:
        normalized(load_onnx(tmp_path / "net.onnx"), "net.onnx")
    assert "\n" not in str(told.value)


def test_weights_that_were_left_behind(tmp_path):
    made = NETWORKS["grouped"]()
    onnx.save(made, tmp_path / "net.onnx", save_as_external_data=True, location="net.onnx.data", size_threshold=0)
    (tmp_path / "net.onnx.data").unlink()
    with pytest.raises(UsageError, match=r"keeps its weights \('.+' first\) in 'net.onnx.data', which is not beside"):
        load_onnx(tmp_path / "net.onnx")


def test_sizes_and_inputs_as_other_converters_write_them(images):
    """-1 and 0 for any size, an input that nothing reads, nodes out of order, and answers (batch, K, 1, 1)."""
    made = NETWORKS["grouped"]()
    expected = run(made, images)
    for dim, size in zip(made.graph.input[0].type.tensor_type.shape.dim, (-1, 3, 0, -1), strict=True):
        dim.Clear()
        dim.dim_value = size
    made.graph.input.append(helper.make_tensor_value_info("unread", TensorProto.FLOAT, [1]))
    nodes = list(made.graph.node)
    del made.graph.node[:]
    made.graph.node.extend(reversed(nodes))
    found = _through_a_file(made, size=(SIDE, SIDE))
    np.testing.assert_allclose(run(found.network, images), expected, atol=1e-4)
    ending = [node("GlobalAveragePool", ["r0"], ["p"]), node("Conv", ["p", "k"], ["y"])]
    upright = model([*STEM, *ending], {**STORED, "k": weight(CLASSES, 8, 1, 1)}, answer=("y", ["N", CLASSES, 1, 1]))
    expected = run(upright, images)[:, :, 0, 0]
    np.testing.assert_allclose(run(_through_a_file(upright).network, images), expected, atol=1e-4)


def _through_a_file(made, size=None):
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "net.onnx").write_bytes(made.SerializeToString())
        return normalized(load_onnx(Path(folder, "net.onnx")), "net.onnx", size)
