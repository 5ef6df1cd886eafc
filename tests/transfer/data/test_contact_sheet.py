"""A sheet shows every tile, in order, whatever its size and caption."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from transfer.data.contact_sheet import GAP, SIDE, Tile, printable, save_contact_sheet
from zoo.image import load_image


def plain(colour, height=32, width=32):
    return np.full((height, width, 3), colour, dtype=np.uint8)


def test_tiles_stand_in_rows_in_their_order(tmp_path):
    colours = [(250, 0, 0), (0, 250, 0), (0, 0, 250), (250, 250, 0), (0, 250, 250)]
    tiles = [Tile(plain(colour), f"tile {i}") for i, colour in enumerate(colours)]
    save_contact_sheet(tiles, tmp_path / "sheet.png", columns=3)
    sheet = load_image(tmp_path / "sheet.png")
    assert sheet.shape[1] == 3 * (SIDE + GAP) + GAP
    row = GAP + SIDE // 2
    for i, colour in enumerate(colours[:3]):
        assert tuple(sheet[row, GAP + i * (SIDE + GAP) + SIDE // 2]) == colour
    below = sheet[row + SIDE :]
    assert [(below == colour).all(-1).any() for colour in colours] == [False, False, False, True, True]


@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 4000), (3000, 7), (500, 400), (8, 8)])
def test_any_size_fits(tmp_path, height, width):
    save_contact_sheet([Tile(plain((9, 99, 9), height, width), "x")], tmp_path / "sheet.png")
    sheet = load_image(tmp_path / "sheet.png")
    assert sheet.shape[1] == SIDE + 2 * GAP
    assert (np.abs(sheet.astype(int) - (9, 99, 9)).max(-1) <= 1).any()


def test_frame_has_its_colour_and_the_caption_makes_ink(tmp_path):
    for name, tile in (("bare", Tile(plain(255), "")), ("framed", Tile(plain(255), "caption", colour="#ff0000"))):
        save_contact_sheet([tile], tmp_path / f"{name}.png", title="")
    bare, framed = (load_image(tmp_path / f"{name}.png") for name in ("bare", "framed"))
    assert (bare == 255).all()
    assert ((framed == (255, 0, 0)).all(-1)).sum() > 4 * SIDE
    assert (framed[GAP + SIDE :] < 128).any()


def test_hostile_captions_are_drawn(tmp_path):
    names = ["a\nb", "x" * 255, "<b>&", "\U0001f600", "\udcff\x1b[2J", "", " " * 300]
    save_contact_sheet([Tile(plain(1), name) for name in names], tmp_path / "s.png", title="t" * 500, columns=2)
    with Image.open(tmp_path / "s.png") as sheet:
        assert sheet.size[0] == 2 * (SIDE + GAP) + GAP
    assert printable("a\nb\x1b\udcff ü😀") == "a\\nb\\x1b\\udcff ü😀"


def test_no_tiles_are_refused(tmp_path):
    with pytest.raises(ValueError, match="no tiles"):
        save_contact_sheet([], tmp_path / "sheet.png")
