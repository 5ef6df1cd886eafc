"""The model card, as the hub's own library reads it."""

from __future__ import annotations

import ast
import json

import huggingface_hub
import onnx
import pytest

from compress.deployment.export import export
from transfer.fitting.step import fit
from zoo.files.model_card import CARD, model_card
from zoo.files.model_directory import read_config


@pytest.fixture(scope="module")
def fitted(tmp_path_factory):
    out = tmp_path_factory.mktemp("card") / "digits-model"
    fit("digits", model="lenet5_caffe", method="scratch", epochs=1, out=out)
    return out


def test_the_hub_reads_it(fitted):
    card = huggingface_hub.ModelCard.load(fitted / CARD)
    after = read_config(fitted).lineage[-1]["metrics"]["after"]
    assert card.data.pipeline_tag == "image-classification"
    assert card.data.datasets == ["digits"]
    assert card.data.license is None  # random weights are nobody's
    found = {result.dataset_split: result for result in card.data.eval_results}
    assert {split: result.metric_value for split, result in found.items()} == {
        "test": round(after["test"]["top1"], 4),
        "validation": round(after["val"]["top1"], 4),
    }
    assert {result.metric_type for result in found.values()} == {"accuracy"}
    lo, hi = after["test"]["top1_ci"]
    assert f"{after['test']['top1']:.1%} (95% interval {lo:.1%} to {hi:.1%})" in card.text


def document(**more):
    step = {"verb": "fit", "data": {"name": "/home/someone/photos"}, "metrics": {"after": {}}, "method": "probe"}
    ours = {"primary": "model.onnx", "preprocess": {"size": [96, 96]}, "lineage": [step]}
    return {"architecture": "timm:resnet18", "label_names": ["a|b`c\n", "---", "<script>"], "slimzoo": ours, **more}


def test_of_someone_elses_weights():
    text = model_card(document())
    card = huggingface_hub.ModelCard(text)
    assert card.data.base_model == "timm/resnet18"
    assert card.data.datasets == ["photos"]
    assert card.data.license is not None
    assert "onnx" in card.data.tags
    assert "/home" not in text
    assert "`a/b'c`, `---`, `<script>`" in text


def test_zoo_weights_name_their_licence():
    assert (
        huggingface_hub.ModelCard(model_card(document(architecture="tf_efficientnet_lite0"))).data.license
        == "apache-2.0"
    )


def test_other_tools_find_their_keys_in_the_file(fitted):
    export(fitted)
    said = {each.key: each.value for each in onnx.load(fitted / "model.onnx").metadata_props}
    classes = read_config(fitted).classes
    assert ast.literal_eval(said["names"]) == dict(enumerate(classes))
    assert json.loads(said["imgsz"]) == [28, 28]
    assert said["task"] == "classify"
    assert "license" not in said
    assert huggingface_hub.ModelCard.load(fitted / CARD).data.eval_results  # the export measured nothing anew
