"""One thread and caches of their own for every test, and for the processes that tests start.

SLIMZOO_TEST_BLOCK=1 runs the suite without the modules that only POSIX has, see posix_blocked/sitecustomize.py.
"""

from __future__ import annotations

import gc
import hashlib
import io
import os
import runpy
import signal
from pathlib import Path
from typing import NamedTuple

import pytest

POSIX_BLOCKED = Path(__file__).with_name("posix_blocked")

if os.environ.get("SLIMZOO_TEST_BLOCK"):
    runpy.run_path(str(POSIX_BLOCKED / "sitecustomize.py"))  # here, and by PYTHONPATH in every process that is started
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (str(POSIX_BLOCKED), os.environ.get("PYTHONPATH"))))


@pytest.fixture(scope="session", autouse=True)
def quiet_machine(tmp_path_factory):
    import torch

    torch.set_num_threads(1)
    gc.freeze()
    gc.set_threshold(50_000, 20, 20)  # torch's exporter makes objects by the million, and few circles of them
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SLIMZOO_CACHE", str(tmp_path_factory.mktemp("cache")))
        patch.setenv("TORCH_HOME", str(tmp_path_factory.mktemp("torch")))  # what was downloaded before is not there
        patch.setenv("OMP_NUM_THREADS", os.environ.get("OMP_NUM_THREADS", "1"))
        yield


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """40 noisy images of two kinds."""
    import numpy as np

    rng = np.random.default_rng(0)
    labels = np.arange(40) % 2
    images = rng.integers(0, 200, (40, 28, 28, 3))
    images[labels == 1, 8:20, 8:20] += 40
    file = tmp_path_factory.mktemp("data") / "photos.npz"
    np.savez(file, images=images.astype(np.uint8), labels=labels)
    return file


class Done(NamedTuple):
    code: int
    out: str
    err: str


@pytest.fixture
def slimzoo(capsys, monkeypatch):
    """The command line, in this process."""
    from compress.cli import app
    from zoo.console import run

    def command(*words, stdin=b""):
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(stdin)))
        handler = signal.getsignal(signal.SIGTERM)
        try:
            with pytest.raises(SystemExit) as done:
                run(app, "slimzoo", [str(word) for word in words])
        finally:
            signal.signal(signal.SIGTERM, handler)
        said = capsys.readouterr()
        return Done(done.value.code, said.out, said.err)

    return command


@pytest.fixture
def no_network(monkeypatch, tmp_path):
    """Empty caches, and nobody answers."""
    from zoo.pretrained import download

    monkeypatch.setattr(download, "reachable", lambda address: False)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    for variable in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "SLIMZOO_OFFLINE"):
        monkeypatch.delenv(variable, raising=False)


@pytest.fixture
def cache_on_hub(no_network, tmp_path):
    """Lay out timm/NAME in the hub's cache as its library does: (name, state) to the file that holds the bytes."""
    from safetensors.torch import save

    def cache(name, state):
        content = save(state)
        folder = tmp_path / "hf" / "hub" / f"models--timm--{name}"
        blob = folder / "blobs" / hashlib.sha256(content).hexdigest()
        link = folder / "snapshots" / "0123abc" / "model.safetensors"
        for path in (blob, link, folder / "refs" / "main"):
            path.parent.mkdir(parents=True)
        blob.write_bytes(content)
        link.symlink_to(Path("../../blobs", blob.name))
        (folder / "refs" / "main").write_text("0123abc")
        return blob

    return cache
