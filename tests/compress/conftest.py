"""Data that fits of a few seconds learn."""

import numpy as np
import pytest


@pytest.fixture(scope="session")
def three(tmp_path_factory):
    """60 images of 3 colours, with noise."""
    rng = np.random.default_rng(0)
    labels = np.arange(60) % 3
    images = rng.integers(0, 160, (60, 32, 32, 3))
    images[np.arange(60), :, :, labels] += 95
    file = tmp_path_factory.mktemp("data") / "three.npz"
    np.savez(file, images=images.astype(np.uint8), labels=labels)
    return file
