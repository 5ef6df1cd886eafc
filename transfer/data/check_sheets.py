"""Pictures of a dataset: what is wrong with it, and what of it enters the network."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from transfer.data.augment import Augment, augment_batch
from transfer.data.check import DataCheck
from transfer.data.contact_sheet import SIDE, Tile, save_contact_sheet
from transfer.data.duplicates import Pair
from zoo.image import ImageError
from zoo.preprocess import Preprocess

PAIRS = 32  # shown at most
EXAMPLES = 8  # of each other finding
CLASSES = 64  # of which one image is shown where nothing is wrong
VERSIONS = 3  # of an augmented image
RED, ORANGE, BLUE, GREY = "#d62728", "#ff7f0e", "#1f77b4", "#7f7f7f"


def save_check_sheet(check: DataCheck, path: str | Path) -> None:
    """A PNG of the images that findings are about, then the pairs that are alike, side by side.

    Frames: red cannot be read or has two labels, orange is in two parts, blue is alike, grey is odd. Where nothing is
    wrong: the first image of each class.
    """
    position = {item.key: i for i, item in enumerate(check.items)}
    tiles: list[Tile] = []
    for finding in check.findings:
        colour = RED if finding.level == "error" else GREY
        keys = [example.key for example in finding.examples if example.key in position]
        if finding.kind not in ("duplicates", "leakage", "conflicting labels"):
            tiles += [_tile(check, position[key], finding.kind, colour) for key in keys[:EXAMPLES]]
    if len(tiles) % 2 and check.pairs:
        tiles.append(Tile(np.full((SIDE, SIDE, 3), 255, dtype=np.uint8), ""))  # so that pairs stand in one row
    tiles += [tile for pair in _worst_first(check)[:PAIRS] for tile in _pair_tiles(check, pair)]
    if not tiles:
        firsts = {item.class_name: i for i, item in reversed(list(enumerate(check.items)))}
        tiles = [_tile(check, i, name, "") for name, i in islice(sorted(firsts.items()), CLASSES)]
    save_contact_sheet(tiles, path, title=f"{check.source}: {check.describe()[-1]}")


def save_input_sheet(
    pixels: NDArray[np.uint8],
    labels: NDArray[np.int64],
    keys: Sequence[str],
    classes: Sequence[str],
    preprocess: Preprocess,
    augment: Augment,
    path: str | Path,
    *,
    count: int = 8,
    seed: int = 0,
) -> None:
    """A PNG of what enters the network: a row for each image, as resized, augmented in three epochs, and normalized.

    The last column is the tensor mapped back to pixels (x std + mean), so it must look like the first; its caption has
    the smallest, mean and largest value of each channel of the tensor.

    Args:
        pixels: (N, H, W, C) uint8 at the network's size, as `load_pixels` gives them.
        labels: (N,) class indices.
        keys: names of the images; () where they have none.
        count: images shown, evenly spaced.
        seed: of augmentation, as in the recipe.
    """
    import torch

    chosen = np.unique(np.linspace(0, len(pixels) - 1, min(count, len(pixels))).astype(np.intp))
    plain = np.array(pixels[chosen])
    batch = torch.from_numpy(plain).permute(0, 3, 1, 2).float()
    moved = [augment_batch(batch, chosen, augment, seed=seed, epoch=epoch) for epoch in range(VERSIONS)]
    inputs = preprocess.normalize(plain)  # (n, C, H, W)
    mean, std = (np.array(values, dtype=np.float32).reshape(-1, 1, 1) for values in (preprocess.mean, preprocess.std))
    tiles = []
    for row, index in enumerate(chosen.tolist()):
        name = Path(keys[index]).name if keys else str(index)
        height, width = plain.shape[1:3]
        tiles.append(Tile(_rgb(plain[row]), f"{name}\n{classes[int(labels[index])]}, {width} x {height}"))
        tiles += [
            Tile(_rgb(_bytes(images[row].permute(1, 2, 0).numpy())), f"augmented, epoch {epoch}")
            for epoch, images in enumerate(moved)
        ]
        back = _bytes((inputs[row] * std + mean).transpose(1, 2, 0) * 255)
        values = "\n".join(f"{c.min():.2f} .. {c.mean():.2f} .. {c.max():.2f}" for c in inputs[row])
        tiles.append(Tile(_rgb(back), f"normalized\n{values}"))
    title = "what enters the network: resized, three augmented versions, the normalized tensor mapped back"
    save_contact_sheet(tiles, path, title=title, columns=VERSIONS + 2)


def _worst_first(check: DataCheck) -> list[Pair]:
    return sorted(check.pairs, key=lambda pair: (_RANK[_pair_colour(check, pair)], pair.first, pair.second))


_RANK = {RED: 0, ORANGE: 1, BLUE: 2}


def _pair_colour(check: DataCheck, pair: Pair) -> str:
    one, other = (check.listing.items[i] for i in (pair.first, pair.second))
    if one.class_name != other.class_name:
        return RED
    return ORANGE if one.part != other.part else BLUE


def _pair_tiles(check: DataCheck, pair: Pair) -> Iterator[Tile]:
    for index in (pair.first, pair.second):
        yield _tile(check, index, pair.kind, _pair_colour(check, pair))


def _tile(check: DataCheck, index: int, what: str, colour: str) -> Tile:
    item = check.items[index]
    try:
        image = check.listing.read(index)
    except ImageError:
        image = np.full((SIDE, SIDE, 3), 230, dtype=np.uint8)
    where = f"{item.class_name}, {item.part}" if item.part else item.class_name
    return Tile(image, f"{what}: {Path(item.key).name}\n{where}", colour)


def _bytes(pixels: NDArray[np.float32]) -> NDArray[np.uint8]:
    return np.clip(np.round(pixels), 0, 255).astype(np.uint8)


def _rgb(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return np.repeat(image, 3, axis=2) if image.shape[2] == 1 else image
