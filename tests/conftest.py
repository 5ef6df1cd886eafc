"""One thread and a cache of its own for every test, and for the processes that tests start."""

from __future__ import annotations

import os

import pytest


@pytest.fixture(scope="session", autouse=True)
def quiet_machine(tmp_path_factory):
    import torch

    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SLIMZOO_CACHE", str(tmp_path_factory.mktemp("cache")))
        patch.setenv("TORCH_HOME", str(tmp_path_factory.mktemp("torch")))  # what was downloaded before is not there
        patch.setenv("OMP_NUM_THREADS", os.environ.get("OMP_NUM_THREADS", "1"))
        yield
