"""What is remembered of images: nothing is lost or made up on the way through JSON and the steps of a model."""

import hashlib
import json
from types import SimpleNamespace

import pytest

from zoo.files.model_directory import ModelConfig
from zoo.files.seen import Seen


def digests(*names):
    return [hashlib.sha256(name.encode()).hexdigest() for name in names]


def test_an_image_stays_in_the_part_that_most_was_done_with():
    first = Seen.of(digests("a", "b", "c", "d"), ["train", "val", "test", "test"])
    later = Seen.of(digests("a", "b", "c", "e"), ["test", "train", "val", "train"])
    parts = {name: (first | later).part_of(*digests(name)) for name in "abcdef"}
    assert parts == {"a": "train", "b": "train", "c": "val", "d": "test", "e": "train", "f": None}
    assert first | later == later | first
    assert Seen.of(digests("x", "x"), ["test", "train"]).part_of(*digests("x")) == "train", "a copy in two parts"
    assert first.part_of(*digests("f", "b")) == "val", "known by the second of its hashes"


def test_json_gives_it_back_in_8_characters_an_image():
    names = [str(i) for i in range(1000)]
    seen = Seen.of(digests(*names), ["train"] * 600 + ["val"] * 200 + ["test"] * 200)
    text = json.dumps(seen.to_json())
    assert Seen.from_json(json.loads(text)) == seen
    assert len(text) < 8 * 1000 + 50
    assert not any(seen.part_of(*digests(f"new {i}")) for i in range(10_000))
    assert Seen.from_json(None) is None
    with pytest.raises(ValueError, match="hashes of images"):
        Seen.from_json({"train": "?", "val": "", "test": ""})


def test_of_other_data_that_nobody_kept_nothing_is_claimed():
    """A model from before hashes were kept: its fit's images are known only where the step after saw the same ones."""
    preprocess, images = SimpleNamespace(), Seen.of(digests("a"), ["train"])
    fitted = [{"data": {"fingerprint": "1"}}]
    old = ModelConfig(architecture="lenet5", model_args={}, classes=None, preprocess=preprocess, lineage=fitted)
    assert old.with_step({"data": {"fingerprint": "1"}}, images).seen == images
    assert old.with_step({"data": {"fingerprint": "2"}}, images).seen is None
    known = old.with_step({"data": {"fingerprint": "1"}}, images)
    more = known.with_step({"data": {"fingerprint": "2"}}, Seen.of(digests("b"), ["train"]))
    assert more.seen == Seen.of(digests("a", "b"), ["train", "train"])
    assert more.with_step({"data": None}).seen == more.seen
