"""Every file of the torture set comes out as specified, is left as it was, and no bomb takes memory."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torture
from PIL import Image

from transfer.data.oddities import BOMB, oddities
from zoo.image import ImageError, load_image

ROOT = Path(__file__).parents[3]
CASES = list(torture.cases())


def test_the_set_is_large_and_has_no_name_twice():
    assert len({case.name for case in CASES}) == len(CASES) >= 40
    assert sum(case.bomb for case in CASES) >= 7
    assert sum(case.pixels is None for case in CASES) >= 20


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")  # Pillow tells of damaged metadata before it fails
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name.encode("ascii", "replace").decode())
def test_file_comes_out_as_specified(case, tmp_path):
    path = tmp_path / case.name
    case.make(path)
    before = hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else None
    if case.pixels is None:
        with pytest.raises(ImageError, match=case.error) as caught:
            load_image(path)
        assert str(path) in str(caught.value)
    else:
        found = load_image(path)
        assert found.dtype == np.uint8
        assert found.shape == case.pixels.shape
        assert np.abs(found.astype(int) - case.pixels).max() <= case.tolerance
        assert found.flags.writeable
    if before is not None:
        assert hashlib.sha256(path.read_bytes()).hexdigest() == before


def test_no_bomb_takes_memory(tmp_path):
    """300 MB more would be far less than any bomb's pixels."""
    bombs = [case for case in CASES if case.bomb]
    for case in bombs:
        case.make(tmp_path / case.name)
    refused, kilobytes = memory(tmp_path)
    assert refused == len(bombs)
    assert kilobytes < 300_000


def test_memory_is_seen(tmp_path):
    """The control of the test above: 24 megapixels, which are allowed, do take it."""
    Image.new("L", (6000, 4000)).save(tmp_path / "large.png")
    refused, kilobytes = memory(tmp_path)
    assert refused == 0
    assert kilobytes > 70_000


def memory(folder):
    command = [sys.executable, "-c", torture.MEMORY_OF_REFUSALS, str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    return map(int, done.stdout.split())


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("rgb.png", []),
        ("grey16.png", ["16-bit", "grey"]),
        ("cmyk.jpg", ["CMYK"]),
        ("palette-one-clear.png", ["palette", "transparency"]),
        ("rgba.webp", ["transparency"]),
        ("grey-alpha.png", ["grey", "transparency"]),
        ("exif1.jpg", []),
        ("exif6.jpg", ["rotated by EXIF"]),
        ("exif77.jpg", []),
        ("animated.webp", ["animated"]),
        ("pages.tif", ["animated"]),
        ("two-pictures.jpg", ["animated"]),
        ("jpeg-named.png", ["wrong extension"]),
        ("144-megapixels.png", [BOMB]),
        ("text.jpg", []),
        ("folder.png", []),
    ],
)
def test_oddities_are_told_from_the_header(name, expected, tmp_path):
    case = next(case for case in CASES if case.name == name)
    case.make(tmp_path / name)
    assert oddities(tmp_path / name) == expected
