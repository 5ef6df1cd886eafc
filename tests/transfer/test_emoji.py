"""The image folders of emoji, found by SLIMZOO_DATA (default ../shared/data); skipped where they are absent."""

import os
from pathlib import Path

import pytest

from transfer.data.dataset import open_data
from transfer.fitting.step import fit

EMOJI = Path(os.environ.get("SLIMZOO_DATA", "../shared/data"), "emoji")
pytestmark = pytest.mark.skipif(
    not EMOJI.is_dir(), reason=f"no {EMOJI}: set SLIMZOO_DATA to the folder that holds emoji/"
)


def test_two_drawing_styles():
    data = open_data(EMOJI / "google", val=0.1, test=str(EMOJI / "twitter"))
    assert len(data.classes) == 9
    sizes = data.sizes()
    assert sizes["train"] + sizes["val"] == sizes["test"] == 1906
    assert all("twitter" in data.keys[i] for i in data.indices("test"))
    assert data.read(0).shape == data.read(len(data.keys) - 1).shape == (64, 64, 3)


@pytest.mark.slow
def test_probe_carries_over(tmp_path):
    """A peer: frozen features at 96 px and logistic regression by scikit-learn gave 56.0%."""
    fitted = fit(
        EMOJI / "google", test=str(EMOJI / "twitter"), val=0.0, size=96, method="probe", out=tmp_path / "probe"
    )
    assert fitted.record["metrics"]["after"]["test"]["top1"] >= 0.55
