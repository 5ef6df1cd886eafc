"""ONNX files from elsewhere: what they may not do, and one line about each that tries."""

from __future__ import annotations

import json
import os
import sys

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from PIL import Image
from typer.testing import CliRunner

from compress.cli import app
from zoo.files.onnx_file import load_onnx
from zoo.preprocess import Preprocess

CARD = {"classes": ["a", "b"], "preprocess": Preprocess(size=(4, 4)).to_dict()}
opened: list[str] = []
sys.addaudithook(lambda event, given: opened.append(str(given[0])) if event == "open" else None)


def network(*, weight=None, nodes=None, functions=(), initializers=(), card=CARD):
    """Pixels (batch, height, width, 3) to two logits, by one weight of (3, 2); or what a test makes of it."""
    weight = numpy_helper.from_array(np.ones((3, 2), np.float32), "w") if weight is None else weight
    nodes = nodes or [
        helper.make_node("Cast", ["pixels"], ["float"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["float", "axes"], ["mean"], keepdims=0),
        helper.make_node("MatMul", ["mean", "w"], ["logits"]),
    ]
    graph = helper.make_graph(
        nodes,
        "network",
        [helper.make_tensor_value_info("pixels", TensorProto.UINT8, ["batch", "height", "width", 3])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 2])],
        [weight, numpy_helper.from_array(np.array([1, 2]), "axes"), *initializers],
    )
    opsets = [helper.make_opsetid("", 20), helper.make_opsetid("mine", 1)]
    model = helper.make_model(graph, opset_imports=opsets, functions=functions, ir_version=10)
    if card is not None:
        helper.set_model_props(model, {"slimzoo": card if isinstance(card, str) else json.dumps(card)})
    return model


def kept_in(location, *, offset=None, length=24, dims=(3, 2)):
    tensor = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=dims, data_location=TensorProto.EXTERNAL)
    for key, value in (("location", location), ("offset", offset), ("length", length)):
        if value is not None:
            tensor.external_data.add(key=key, value=str(value))
    return tensor


def weight_of(dims, content=b"\0" * 24, kind=TensorProto.FLOAT):
    return TensorProto(name="w", data_type=kind, dims=dims, raw_data=content)


def in_attribute(tensor):
    return [helper.make_node("Constant", [], ["logits"], value=tensor)]


def cycle():
    return [
        helper.make_node("Cast", ["pixels"], ["float"], to=TensorProto.FLOAT),
        helper.make_node("Add", ["float", "b"], ["a"]),
        helper.make_node("Identity", ["a"], ["b"]),
        helper.make_node("ReduceMean", ["b", "axes"], ["logits"], keepdims=0),
    ]


def calling(name, other):
    return helper.make_function(
        "mine",
        name,
        ["x"],
        ["y"],
        [helper.make_node(other, ["x"], ["y"], domain="mine")],
        [helper.make_opsetid("mine", 1), helper.make_opsetid("", 20)],
    )


def giant():
    shape = numpy_helper.from_array(np.array([1 << 20, 1 << 20]), "giant")
    nodes = [helper.make_node("ConstantOfShape", ["giant"], ["big"]), helper.make_node("Identity", ["big"], ["logits"])]
    return network(nodes=nodes, initializers=[shape])


CALL = [helper.make_node("A", ["pixels"], ["logits"], domain="mine")]
HOSTILE = {
    "empty": b"",
    "text": b"once upon a time",
    "cut off": network().SerializeToString()[:-40],
    "no network": onnx.ModelProto(ir_version=10).SerializeToString(),
    "parent folder": network(weight=kept_in("../secret.bin")),
    "parent of a folder": network(weight=kept_in("weights/../../secret.bin")),
    "absolute path": network(weight=kept_in("/etc/hostname")),
    "symbolic link": network(weight=kept_in("link.bin")),
    "link to a folder": network(weight=kept_in("folder/secret.bin")),
    "in an attribute": network(nodes=in_attribute(kept_in("../secret.bin"))),
    "no place": network(weight=kept_in("")),
    "missing": network(weight=kept_in("nowhere.bin")),
    "past the end": network(weight=kept_in("short.bin")),
    "offset below 0": network(weight=kept_in("short.bin", offset=-8, length=4)),
    "offset that is no number": network(weight=kept_in("short.bin", offset="far")),
    "huge shape": network(weight=weight_of((1 << 31, 1 << 31))),
    "shape below 0": network(weight=weight_of((-3, -2))),
    "too few values": network(weight=weight_of((3, 200))),
    "huge tensor inside": giant(),
    "cycle": network(nodes=cycle()),
    "function that calls itself": network(nodes=CALL, functions=[calling("A", "A")]),
    "functions that call each other": network(nodes=CALL, functions=[calling("A", "B"), calling("B", "A")]),
    "unknown operator": network(nodes=[helper.make_node("Launch", ["pixels"], ["logits"], domain="mine")]),
    "the same name twice": network(nodes=[helper.make_node("Identity", ["w"], ["logits"])] * 2),
    "metadata that is no JSON": network(card="{"),
    "metadata of another kind": network(card="[1, 2]"),
    "preprocessing of other fields": network(card={"classes": None, "preprocess": {"colour": "blue"}}),
    "no metadata": network(card=None),
}


@pytest.fixture
def folder(tmp_path):
    inside = tmp_path / "inside"
    inside.mkdir()
    (tmp_path / "secret.bin").write_bytes(bytes(24))
    (inside / "link.bin").symlink_to(tmp_path / "secret.bin")
    (inside / "folder").symlink_to(tmp_path)
    (inside / "short.bin").write_bytes(bytes(10))
    Image.new("RGB", (5, 5)).save(tmp_path / "picture.png")
    return inside


@pytest.mark.parametrize("name", HOSTILE)
def test_one_line_and_nothing_read(folder, name):
    content = HOSTILE[name]
    file = folder / "model.onnx"
    file.write_bytes(content if isinstance(content, bytes) else content.SerializeToString())
    opened.clear()
    done = CliRunner().invoke(app, ["predict", str(file), str(folder.parent / "picture.png")])
    assert done.exit_code != 0
    assert getattr(done.exception, "exit_code", None) in (1, 2), repr(done.exception)
    said = str(done.exception)
    assert "model.onnx" in said
    assert len(said.splitlines()) == 1
    assert len(said) < 400
    assert not any(path.endswith(("secret.bin", "link.bin", "hostname")) for path in opened)


def test_deep_nesting(folder):
    file = folder / "model.onnx"
    model = network()
    content = helper.make_graph([], "g", [], []).SerializeToString()
    for _ in range(2000):  # by hand: protobuf's own writer would refuse
        attribute = onnx.AttributeProto(name="then_branch", type=onnx.AttributeProto.GRAPH).SerializeToString()
        attribute += b"\x32" + _length(content) + content
        node = b"\x2a" + _length(attribute) + attribute
        content = b"\x0a" + _length(node) + node
    file.write_bytes(model.SerializeToString() + b"\x3a" + _length(content) + content)
    done = CliRunner().invoke(app, ["predict", str(file), str(folder.parent / "picture.png")])
    assert getattr(done.exception, "exit_code", None) == 2, repr(done.exception)
    assert len(str(done.exception).splitlines()) == 1


def _length(content):
    size, out = len(content), b""
    while size > 127:
        out, size = out + bytes([size & 127 | 128]), size >> 7
    return out + bytes([size])


def test_a_device_is_not_read(folder):
    os.mkfifo(folder / "pipe.onnx")
    done = CliRunner().invoke(app, ["predict", str(folder / "pipe.onnx"), str(folder.parent / "picture.png")])
    assert "is not a file" in str(done.exception)


def test_weights_in_a_file_beside_it_are_read(folder):
    """As torch writes them by default."""
    values = np.arange(6, dtype=np.float32).reshape(3, 2)
    (folder / "model.onnx.data").write_bytes(bytes(8) + values.tobytes())
    file = folder / "model.onnx"
    file.write_bytes(network(weight=kept_in("model.onnx.data", offset=8)).SerializeToString())
    model = load_onnx(file)
    np.testing.assert_array_equal(numpy_helper.to_array(model.graph.initializer[0]), values)
    done = CliRunner().invoke(app, ["predict", str(file), str(folder.parent / "picture.png")])
    assert done.exit_code == 0, done.output
