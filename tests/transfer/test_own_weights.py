"""The weights that the package carries reach, on images that they never saw, what their cards say."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

import zoo
from transfer.data.dataset import open_data
from transfer.data.split import TEST
from zoo.pretrained.load import preprocess_of
from zoo.pretrained.weights import WEIGHTS


def top1_pct(name: str, images: np.ndarray, labels: np.ndarray) -> float:
    """Accuracy on (N, h, w, 3) images, counted here."""
    record, model = WEIGHTS[name], zoo.create_model(name, pretrained=True).eval()
    pixels = np.stack([preprocess_of(record).resize(image) for image in images])
    with torch.no_grad():
        best = model(torch.from_numpy(preprocess_of(record).normalize(pixels))).argmax(dim=1).numpy()
    return 100 * float(np.mean([record.classes[b] == str(label) for b, label in zip(best, labels, strict=True)]))


def test_resnet20_on_the_test_images_of_digits():
    test = open_data("digits").indices(TEST)
    bunch = load_digits()
    images = np.repeat(np.round(bunch.images[test] * (255 / 16)).astype(np.uint8)[..., None], 3, axis=-1)
    reached = top1_pct("resnet20", images, bunch.target[test])
    assert reached >= 98.0
    assert reached == pytest.approx(WEIGHTS["resnet20"].metrics["digits_test_top1_pct"].value, abs=0.3)


def test_lenet5_on_the_last_2000_of_mnist10k():
    file = Path(os.environ.get("SLIMZOO_DATA", "../shared/data"), "mnist10k.npz")
    if not file.exists():
        pytest.skip(f"{file} is not there: name the folder of the data by SLIMZOO_DATA")
    with np.load(file) as data:
        images, labels = data["images"], data["labels"]
    test = np.random.default_rng(0).permutation(10_000)[-2000:]
    reached = top1_pct("lenet5_caffe", np.repeat(images[test][..., None], 3, axis=-1), labels[test])
    assert reached >= 98.8
    assert reached == pytest.approx(WEIGHTS["lenet5_caffe"].metrics["mnist10k_test_top1_pct"].value, abs=0.06)
