"""From a photo to its answer: what decoding, preparing and the network take, as deploy/infer.py goes about it.

The worker's part imports onnxruntime, NumPy and Pillow alone.
"""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from compress.benchmark.disturbance import look, taken
from compress.report.statistics import DISTURBED
from zoo.image import least_of, load_image, open_header, opens_as_image

SIZES = ((640, 480), (1920, 1080), (4000, 3000))  # (width, height) of a camera's frames, and of a photo
RUNS, TRIES = 3, 3  # of each photo in a launch; times, where other work disturbs them
LOOKED_AT = 500  # images of a folder, for the one of median size
PHOTO_QUALITY, GRAIN = 90, 6.0  # with which a made photo takes 2 bits a pixel, as those of cameras and telephones do
CARD, PIXELS = "slimzoo", "pixels"  # of an exported file: what it says of itself, and its input
PARTS = ("decode_ms", "prepare_ms", "network_ms", "whole_ms")


class Answering:
    """The exported file of a worker's network."""

    def __init__(self, path: str, threads: int) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
        options.log_severity_level = 3
        self._session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        rule = json.loads(self._session.get_modelmeta().custom_metadata_map[CARD])["preprocess"]
        self._background = tuple(rule["background"])
        self._least = least_of(rule["size"], rule["resize_to"])
        self._own = np.full((*rule["size"], 3), 127, dtype=np.uint8)

    def measure(self, photo: str, threads: int, cpus: list[int] | None) -> dict[str, float]:
        """Medians of a few answers to one photo.

        The network's time is that of the file for pixels of the network's own size, which leave nothing to prepare,
        after the same decoding: what a decoder leaves of the caches is part of the way.
        """
        self._run(photo)
        for _ in range(TRIES):
            before = look(cpus)
            runs = [(*self._run(photo), self._run(photo, self._own)[1]) for _ in range(RUNS)]
            share = taken(before, look(cpus), threads)
            if share <= DISTURBED:
                break
        decode_ms, file_ms, network_ms = (statistics.median(run[i] for run in runs) for i in range(3))
        whole_ms = statistics.median(run[0] + run[1] for run in runs)
        found = dict(zip(PARTS, (decode_ms, max(0.0, file_ms - network_ms), network_ms, whole_ms), strict=True))
        return {**found, "taken": round(share, 4)}

    def _run(self, photo: str, instead: NDArray[np.uint8] | None = None) -> tuple[float, float]:
        """Milliseconds of the decoding, and of the exported file with what was decoded or with other pixels."""
        began = time.perf_counter_ns()
        pixels = load_image(photo, background=self._background, least=self._least)
        decoded = time.perf_counter_ns()
        self._session.run(None, {PIXELS: (pixels if instead is None else instead)[None]})
        return (decoded - began) / 1e6, (time.perf_counter_ns() - decoded) / 1e6


def takes_photos(file: Path) -> bool:
    """Whether an ONNX file was exported with its preprocessing in it."""
    import onnx

    model = onnx.load(file, load_external_data=False)
    return [x.name for x in model.graph.input] == [PIXELS] and any(entry.key == CARD for entry in model.metadata_props)


def make_photos(folder: Path) -> dict[str, Path]:
    """JPEGs of each of SIZES, coloured clouds with grain, by "640x480" and so on."""
    rng = np.random.default_rng(0)
    clouds = Image.fromarray(rng.integers(0, 256, (12, 16, 3), dtype=np.uint8))
    tile = GRAIN * rng.standard_normal((480, 640, 3), dtype=np.float32)
    found = {}
    for width, height in SIZES:
        pixels = np.asarray(clouds.resize((width, height), Image.Resampling.BICUBIC), dtype=np.float32)
        grain = np.tile(tile, (-(-height // 480), -(-width // 640), 1))[:height, :width]
        name = f"{width}x{height}"
        found[name] = folder / f"{name}.jpg"
        Image.fromarray((pixels + grain).clip(0, 255).astype(np.uint8)).save(found[name], quality=PHOTO_QUALITY)
    return found


def median_photo(folder: Path) -> dict[str, Path]:
    """The image of median size among the first of a folder's, by its size; empty where there is none."""
    sizes: list[tuple[int, int, int, Path]] = []
    for path in sorted(folder.rglob("*")):
        if len(sizes) < LOOKED_AT and path.is_file() and opens_as_image(path):
            with open_header(path) as image:
                sizes.append((image.width * image.height, image.width, image.height, path))
    if not sizes:
        return {}
    _, width, height, path = sorted(sizes)[len(sizes) // 2]
    return {f"{width}x{height}, the data's median": path}


def given_photos(paths: Sequence[str | Path]) -> dict[str, Path]:
    """Photos by their names.

    Raises:
        ImageError: one that cannot be read.
    """
    for path in paths:
        load_image(path)
    return {Path(path).name: Path(path) for path in paths}
