"""No step that trains can fail to save: whatever makes saving impossible is said before an image is decoded.

Each verb is run with one thing in its way, in more than ten ways. Decoding is where the test ends: nothing trains
without pixels, so a refusal that comes before them comes before the first step.
"""

import contextlib
import copy
import json
import os
import resource
import sys
from functools import partial

import numpy as np
import pytest
import torch

import zoo.files.rehearsal
from compress.clustering.step import cluster
from compress.deployment import float_model
from compress.deployment.export import export
from compress.distillation.step import distill
from compress.graph.network import export_network
from compress.pruning.step import prune
from compress.quantization.step import quantize
from compress.sparsity.step import sparsify
from transfer.data import parts
from transfer.fitting.step import fit
from zoo import disk, tensors
from zoo.errors import SlimzooError, UsageError
from zoo.files import directory, manifest, surgery
from zoo.files.model_directory import load_model, read_config


class PixelsAreRead(Exception):
    pass


@pytest.fixture(scope="module")
def here(tmp_path_factory):
    """60 images of three classes, and a model of them."""
    folder = tmp_path_factory.mktemp("here")
    rng = np.random.default_rng(0)
    labels = np.arange(60) % 3
    images = rng.integers(0, 160, (60, 28, 28, 3))
    images[np.arange(60), :, :, labels] += 95
    np.savez(folder / "three.npz", images=images.astype(np.uint8), labels=labels)
    fit(folder / "three.npz", model="lenet5", method="scratch", epochs=0, size=28, out=folder / "model")
    return folder


@pytest.fixture(scope="module")
def exported():
    """torch's exporter takes seconds, and what stands in the way of saving is not in it: each network once."""
    made = {}

    def export_once(model, input_size):
        if input_size not in made:
            made[input_size] = export_network(model, input_size)
        return copy.deepcopy(made[input_size])

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(float_model, "export_network", export_once)
        yield


@pytest.fixture
def no_pixels(exported, monkeypatch):
    def read(*args, **kwargs):
        raise PixelsAreRead

    monkeypatch.setattr(parts, "load_pixels", read)


def verbs(here):
    """Everything that trains, as a function of `out`."""
    data, model = here / "three.npz", here / "model"
    a_fit = partial(fit, data, model="lenet5_caffe")
    return {
        "fit by scratch": partial(a_fit, method="scratch"),
        "fit by prototype": partial(a_fit, method="prototype"),
        "fit by probe": partial(a_fit, method="probe"),
        "fit by finetune": partial(fit, data, model="resnet20", method="finetune", size=32),  # with taps
        "fit by auto": partial(a_fit, method="auto"),
        "prune": partial(prune, model, data=data, macs=0.6, recover=1),
        "prune in rounds": partial(prune, model, data=data, macs=0.6, rounds=2, recover=2),
        "prune after sparse training": partial(prune, model, data=data, macs=0.6, recover=0, sparse_epochs=1),
        "sparsify": partial(sparsify, model, data=data, epochs=1),
        "cluster": partial(cluster, model, data=data, epochs=1),
        "distill into a name": partial(distill, "lenet5", teacher=model, data=data, epochs=1),
        "distill into a directory": partial(distill, model, teacher=model, data=data, epochs=1),
        "quantize": partial(quantize, model, data=data),
        "quantize with training": partial(quantize, model, data=data, epochs=1),
    }


NAMES = list(verbs(directory.Path()))
SAVES_WEIGHTS = [name for name in NAMES if name not in ("quantize", "quantize with training", "fit by probe")]


# ways: each is a context in which nothing can be saved at the place that it gives


@contextlib.contextmanager
def parent_is_a_file(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("here")
    yield tmp_path / "file" / "model"


@contextlib.contextmanager
def parent_cannot_be_written_to(tmp_path, monkeypatch):
    allowed = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: mode == os.R_OK and allowed(path, mode))  # as on a CD
    yield tmp_path / "model"


@contextlib.contextmanager
def no_directory_can_be_made(tmp_path, monkeypatch):
    yield directory.Path("/proc/sys/slimzoo")  # to root too


@contextlib.contextmanager
def name_too_long(tmp_path, monkeypatch):
    yield tmp_path / ("m" * 250)  # itself it would fit, what lies beside it for a while does not


@contextlib.contextmanager
def path_too_long(tmp_path, monkeypatch):
    yield tmp_path.joinpath(*["m" * 100] * 40)


@contextlib.contextmanager
def link_to_nowhere(tmp_path, monkeypatch):
    (tmp_path / "model").symlink_to(tmp_path / "nowhere")
    yield tmp_path / "model"


@contextlib.contextmanager
def mounted(tmp_path, monkeypatch):
    yield directory.Path("/proc")


@contextlib.contextmanager
def no_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    yield directory.Path(".")


@contextlib.contextmanager
def taken(tmp_path, monkeypatch):
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "thesis.tex").write_text("mine")
    yield tmp_path / "model"


@contextlib.contextmanager
def file_where_the_work_goes_on(tmp_path, monkeypatch):
    (tmp_path / "model.partial").write_text("mine")
    yield tmp_path / "model"


@contextlib.contextmanager
def no_room_for_the_weights(tmp_path, monkeypatch):
    """The kernel allows no larger file: errno is EFBIG, which a full quota gives too."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (30_000, before[1]))
    try:
        yield tmp_path / "model"
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@contextlib.contextmanager
def no_json(tmp_path, monkeypatch):
    def refuse(document):
        if "slimzoo" in document:  # config.json
            raise TypeError("keys must be str, int, float, bool or None, not tuple")
        return json.dumps(document).encode()

    monkeypatch.setattr(disk, "json_bytes", refuse)
    yield tmp_path / "model"


PLACES = [
    parent_is_a_file,
    parent_cannot_be_written_to,
    no_directory_can_be_made,
    name_too_long,
    path_too_long,
    link_to_nowhere,
    mounted,
    no_name,
    taken,
    file_where_the_work_goes_on,
]


@contextlib.contextmanager
def modules_of_another_kind(tmp_path, monkeypatch):
    """A classifier that is not the architecture's: what timm's own Linear was."""

    def other(fresh, operated):
        raise ValueError("the model's modules are not its architecture's: head; it cannot be saved")

    monkeypatch.setattr(surgery, "surgery_between", other)
    yield tmp_path / "model"


@contextlib.contextmanager
def a_tensor_that_no_file_holds(tmp_path, monkeypatch):
    import safetensors.torch

    def refuse(tensors):
        raise ValueError("a complex tensor")

    monkeypatch.setattr(safetensors.torch, "save", refuse)
    yield tmp_path / "model"


@contextlib.contextmanager
def modules_that_read_another_state(tmp_path, monkeypatch):
    load = tensors.load_tensors_

    def load_shifted(model, tensors):
        load(model, {name: t + 1 if t.is_floating_point() else t for name, t in tensors.items()})

    monkeypatch.setattr(tensors, "load_tensors_", load_shifted)
    yield tmp_path / "model"


@contextlib.contextmanager
def a_loaded_model_that_answers_otherwise(tmp_path, monkeypatch):
    """An attribute that no file keeps: the same tensors, and other logits."""

    def load(folder):
        loaded = load_model(folder)
        loaded.model.register_forward_hook(lambda module, inputs, output: output.flip(1))
        return loaded

    monkeypatch.setattr(zoo.files.rehearsal, "load_model", load)
    yield tmp_path / "model"


MODELS = [
    modules_of_another_kind,
    a_tensor_that_no_file_holds,
    modules_that_read_another_state,
    a_loaded_model_that_answers_otherwise,
]


def assert_refuses_early(verb, out):
    before = {path: path.read_bytes() for path in out.parent.glob("*") if path.is_file()} if out.name else {}
    with pytest.raises((SlimzooError, OSError)) as caught:
        verb(out=out)
    assert "\n" not in str(caught.value).strip()
    assert len(str(caught.value)) > 20
    for path, content in before.items():
        assert path.read_bytes() == content
    if out.name and not str(out).startswith("/proc"):
        partial_ = directory.partial_of(out)
        assert not os.path.isdir(partial_) or not any(partial_.iterdir())


@pytest.mark.parametrize("name", NAMES)
def test_pixels_are_read_where_nothing_is_in_the_way(here, no_pixels, tmp_path, name):
    with pytest.raises(PixelsAreRead):
        verbs(here)[name](out=tmp_path / "model")


@pytest.mark.skipif(sys.platform != "linux", reason="places and limits of Linux")
@pytest.mark.parametrize("name", NAMES)
def test_places_where_nothing_can_be_saved(here, no_pixels, tmp_path, name):
    for way in [*PLACES, no_json, no_room_for_the_weights]:
        (tmp_path / way.__name__).mkdir()
        with pytest.MonkeyPatch.context() as patch, way(tmp_path / way.__name__, patch) as out:
            assert_refuses_early(verbs(here)[name], out)


@pytest.mark.parametrize("name", SAVES_WEIGHTS)
def test_models_that_cannot_be_saved(here, no_pixels, tmp_path, name):
    for way in MODELS:
        with pytest.MonkeyPatch.context() as patch, way(tmp_path, patch) as out:
            assert_refuses_early(verbs(here)[name], out)


@pytest.mark.parametrize(
    ("module", "name"),
    [("vl_convert", "fit by scratch"), ("altair", "fit by finetune"), ("onnxruntime", "quantize with training")],
)
def test_packages_that_are_missing(here, no_pixels, tmp_path, monkeypatch, module, name):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(SlimzooError, match=module):
        verbs(here)[name](out=tmp_path / "model")


def test_a_layer_to_keep_that_is_none(here, no_pixels, tmp_path):
    for epochs in (0, 1):
        with pytest.raises(UsageError, match="conv9"):
            quantize(here / "model", data=here / "three.npz", keep=["conv9"], epochs=epochs, out=tmp_path / "model")


def test_tensorboard_that_is_missing(here, no_pixels, tmp_path, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UsageError, match="tensorboard is not installed"):
        verbs(here)["fit by scratch"](out=tmp_path / "model", tensorboard=True)


def test_pictures_that_fail_in_the_end_cost_no_model(here, tmp_path, monkeypatch):
    def fail(*args, **kwargs):
        raise ValueError("a class name that no chart shows")

    monkeypatch.setattr(sys.modules["transfer.fitting.pictures"], "write_findings", fail)
    told = []
    verbs(here)["fit by scratch"](out=tmp_path / "model", epochs=0, tell=told.append)
    assert "not all pictures were drawn (a class name that no chart shows); the model is whole" in told
    load_model(tmp_path / "model")


def test_a_rehearsal_leaves_nothing_and_changes_nothing(here, tmp_path):
    """The model after it is the one before, its modes too, and none of it lands in the directory."""
    loaded = load_model(here / "model")
    loaded.model.train()
    before = {name: tensor.clone() for name, tensor in loaded.model.state_dict().items()}
    zoo.files.rehearsal.rehearse(tmp_path, loaded.model, loaded.config, {"verb": "fit", "arguments": {}})
    assert list(tmp_path.iterdir()) == []
    assert loaded.model.training
    assert all(torch.equal(before[name], tensor) for name, tensor in loaded.model.state_dict().items())
    names = {path.name for path in (here / "model").iterdir()}
    assert directory.REHEARSAL not in names
    assert len(read_config(here / "model").lineage) == 1


def test_a_finished_model_that_cannot_take_its_place_is_kept(tmp_path, monkeypatch):
    """The place became impossible while the work went on."""
    out = tmp_path / "model"

    def refuse(old, new):
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "rename", refuse)
    with (
        pytest.raises(SlimzooError, match=r"model\.partial is complete and could not be renamed"),
        directory.new_directory(out, run={"verb": "fit", "arguments": {}}) as work,
    ):
        (work / "weights").write_bytes(b"trained")
    manifest.verify_manifest(tmp_path / "model.partial")
    assert (tmp_path / "model.partial" / "weights").read_bytes() == b"trained"


def test_notes_of_kinds_that_json_does_not_know_lose_no_model(tmp_path):
    document = {"n": np.int64(3), "mean": np.array([0.5, 1.5]), "where": tmp_path, "name": "caf\udce9"}
    disk.write_json(tmp_path / "x.json", document)
    found = json.loads((tmp_path / "x.json").read_text(encoding="utf-8"))
    assert found == {"n": 3, "mean": [0.5, 1.5], "where": str(tmp_path), "name": "caf\udce9"}


def test_export_sees_first_whether_it_may_write(here, monkeypatch):
    allowed = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: mode == os.R_OK and allowed(path, mode))
    monkeypatch.setattr(float_model, "open_float_model", None)
    with pytest.raises(UsageError, match="cannot be written to"):
        export(here / "model")
