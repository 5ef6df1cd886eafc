"""torchvision's classification datasets by name: their own parts, their own files, nothing fetched unasked."""

from __future__ import annotations

import struct

import numpy as np
import pytest
from PIL import Image

from transfer.data.dataset import open_data
from transfer.data.torchvision_data import torchvision_names
from zoo.errors import SlimzooError, UsageError


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("SLIMZOO_CACHE", str(tmp_path))
    monkeypatch.setenv("SLIMZOO_OFFLINE", "1")
    return tmp_path / "datasets"


def idx(array):
    """The file format of MNIST's authors: magic number, sizes, bytes."""
    return struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape) + array.tobytes()


def write_mnist(cache, counts):
    images = {}
    folder = cache / "MNIST" / "MNIST" / "raw"
    folder.mkdir(parents=True)
    for seed, (part, count) in enumerate(counts.items()):
        pixels = np.random.default_rng(seed).integers(0, 256, (count, 28, 28), dtype=np.uint8)
        labels = (np.arange(count) % 10).astype(np.uint8)
        (folder / f"{part}-images-idx3-ubyte").write_bytes(idx(pixels))
        (folder / f"{part}-labels-idx1-ubyte").write_bytes(idx(labels))
        images[part] = pixels
    return images


def test_dataset_with_train_as_a_flag(cache):
    images = write_mnist(cache, {"train": 30, "t10k": 20})
    data = open_data("torchvision:MNIST")
    assert data.sizes() == {"train": 20, "val": 10, "test": 20}  # validation is taken from train, test is theirs
    assert [name[:4] for name in data.classes] == [f"{digit} - " for digit in range(10)]
    assert data.keys[0] == "torchvision:MNIST/train/0"
    for index, expected in ((7, images["train"][7]), (30 + 13, images["t10k"][13])):
        np.testing.assert_array_equal(data.read(index), np.repeat(expected[..., None], 3, axis=2))
        assert data.classes[data.labels[index]].startswith(str(index % 10))
    assert (data.parts[30:] == "test").all()
    assert not data.mirror


def test_dataset_with_splits_of_files(cache):
    root = cache / "Country211" / "country211"
    for number, (part, name) in enumerate((p, c) for p in ("train", "valid", "test") for c in ("AD", "ZW")):
        (root / part / name).mkdir(parents=True)
        Image.new("RGB", (20, 20), (40 * number, 9, 9)).save(root / part / name / "1.png")
        (root / part / name / "1.png").rename(root / part / name / "1.jpg")
    data = open_data("torchvision:Country211")
    assert data.sizes() == {"train": 2, "val": 2, "test": 2}
    assert data.classes == ("AD", "ZW")
    assert data.mirror
    assert [data.read(i)[0, 0, 0] for i in range(6)] == [0, 40, 80, 120, 160, 200]


def test_nothing_is_fetched_offline(cache):
    with pytest.raises(
        UsageError, match=r"torchvision:CIFAR10 is not on this machine and downloads are forbidden; .*CIF"
    ):
        open_data("torchvision:CIFAR10")


def test_download_that_fails_is_one_line(monkeypatch):
    from torchvision.datasets import utils

    def refuse(*arguments, **options):
        raise OSError("no route to host")

    monkeypatch.delenv("SLIMZOO_OFFLINE")
    for module in ("cifar", "utils"):
        monkeypatch.setattr(f"torchvision.datasets.{module}.download_and_extract_archive", refuse)
    before = utils.tqdm
    with pytest.raises(SlimzooError, match=r"torchvision:CIFAR10 could not be fetched into .*: no route to host"):
        open_data("torchvision:CIFAR10")
    assert utils.tqdm is before


def test_download_is_announced_and_shown(monkeypatch, cache, caplog):
    """torchvision's own bar, as its downloader drives it, told on as progress."""
    from torchvision.datasets import utils

    def fetch(*arguments, **options):
        with utils.tqdm(total=12_000_000, unit="B", unit_scale=True) as bar:
            bar.update(5_000_000)
        raise OSError("the line was cut")

    told = []
    monkeypatch.delenv("SLIMZOO_OFFLINE")
    monkeypatch.setattr("torchvision.datasets.cifar.download_and_extract_archive", fetch)
    with pytest.raises(SlimzooError, match="the line was cut"):
        open_data("torchvision:CIFAR10", progress=lambda *line: told.append(line))
    assert told == [("downloading torchvision:CIFAR10", 5, 12, "5.0 MB of 12.0 MB")]
    assert "downloading torchvision:CIFAR10 (12.0 MB)" in caplog.text


def test_names_are_the_classification_datasets():
    names = {name.removeprefix("torchvision:") for name in torchvision_names()}
    assert names >= {
        "CIFAR10",
        "CIFAR100",
        "Caltech101",
        "Country211",
        "DTD",
        "EuroSAT",
        "FGVCAircraft",
        "FashionMNIST",
        "Flowers102",
        "Food101",
        "GTSRB",
        "Imagenette",
        "KMNIST",
        "MNIST",
        "OxfordIIITPet",
        "PCAM",
        "RenderedSST2",
        "STL10",
        "SUN397",
        "SVHN",
        "StanfordCars",
        "USPS",
    }
    assert not names & {
        "CelebA",
        "Cityscapes",
        "CocoDetection",
        "FakeData",
        "ImageFolder",
        "Kinetics",
        "Kitti",
        "LFWPairs",
        "LSUN",
        "MovingMNIST",
        "PhotoTour",
        "SBU",
        "Sintel",
        "VOCDetection",
        "VOCSegmentation",
        "VisionDataset",
        "WIDERFace",
    }


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("CIFAR", "torchvision has no dataset 'CIFAR': did you mean 'torchvision:CIFAR10'"),
        ("VOCDetection", "is no dataset of images with one class each: its targets are something else"),
        ("EMNIST", "it wants split"),
        ("ImageNet", "is not offered for download; put its files into"),
    ],
)
def test_others_are_refused_in_one_line(name, message):
    with pytest.raises(UsageError, match=message) as caught:
        open_data(f"torchvision:{name}")
    assert "\n" not in str(caught.value)
