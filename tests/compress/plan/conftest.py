"""A search that is short, and what it begins with."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from compress.plan import beginning, searching, side_by_side, step, timing
from compress.plan.step import compress
from transfer.fitting.step import fit

SHARES = (0.6, 0.4)


@pytest.fixture(scope="module")
def short(tmp_path_factory):
    """Few shares, few and short rounds, all taken for disturbed, so that sizes choose; a cache of this module's own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SLIMZOO_CACHE", str(tmp_path_factory.mktemp("cache")))
        patch.setattr("compress.report.statistics.DISTURBED", -1.0)
        patch.setattr(side_by_side, "TIMED", {"rounds": 3, "launches": 1, "seconds_per_round": 0.02, "photos": []})
        patch.setattr(timing, "QUICK", {"rounds": 3, "launches": 1, "seconds_per_round": 0.02})
        patch.setattr(searching, "TOO_BUSY_S", 0.0)
        patch.setattr(step, "runtimes_here", lambda: ("onnxruntime",))
        patch.setattr(beginning, "SHARES", SHARES)
        yield


@pytest.fixture(scope="module")
def dense(short, photos, tmp_path_factory):
    out = tmp_path_factory.mktemp("dense") / "dense"
    fit(photos, model="lenet5_caffe", method="scratch", epochs=2, size=28, out=out)
    return out


@pytest.fixture(scope="module")
def done(dense, photos, tmp_path_factory):
    out = tmp_path_factory.mktemp("compress") / "out"
    told = []
    return compress(dense, data=photos, max_drop=100, out=out, tell=told.append), told


@pytest.fixture(scope="module")
def pictures(photos, tmp_path_factory):
    """The same images as files."""
    folder, held = tmp_path_factory.mktemp("pictures"), np.load(photos)
    for number, (pixels, label) in enumerate(zip(held["images"], held["labels"], strict=True)):
        (folder / str(label)).mkdir(exist_ok=True)
        Image.fromarray(pixels).save(folder / str(label) / f"{number}.png")
    return folder
