"""What every method of bench_search.py begins with, the fitted network and its images, and what it gives."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from search_figures import ORT

from compress.graph.network import export_network
from compress.quantization.calibrate import Images
from compress.quantization.step import CALIBRATION_IMAGES
from transfer.data.fitted_data import open_for
from transfer.data.parts import Pixels, read_pixels
from zoo.files.model_directory import LoadedModel, load_model
from zoo.preprocess import Preprocess

SHARES = (0.5, 0.3)  # of the MACs, that is cut to

Answer = Callable[[NDArray[np.float32]], NDArray[np.float32]]


@dataclass(frozen=True)
class Made:
    """A network that a method made.

    Attributes:
        network: without preprocessing; what is timed.
        runtime: in which it answers.
        answer: what gives its logits, where that is not the network.
        facts: what else is kept of it.
    """

    network: onnx.ModelProto
    preprocess: Preprocess
    runtime: str = ORT
    answer: Answer | None = None
    facts: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Start:
    """What every method begins with.

    Attributes:
        folder: of its own, for files on the way.
        ours: the row of what `compress` made, where it is there.
    """

    fitted: Path
    data: str
    seed: int
    folder: Path
    ours: dict[str, Any] | None = None

    @functools.cached_property
    def loaded(self) -> LoadedModel:
        return load_model(self.fitted)

    @functools.cached_property
    def network(self) -> onnx.ModelProto:
        return export_network(self.loaded.model, self.loaded.config.input_size)

    @functools.cached_property
    def pixels(self) -> Pixels:
        config = self.loaded.config
        return read_pixels(open_for(config, self.data), config.preprocess, None)

    @property
    def mirror(self) -> bool:
        return open_for(self.loaded.config, self.data).mirror

    @property
    def calibration(self) -> Images:
        """As many training images as our own calibration takes."""
        train = self.pixels.train
        chosen = np.random.default_rng(self.seed).permutation(len(train))[:CALIBRATION_IMAGES]
        return Images(train.pixels[chosen], self.loaded.config.preprocess)


Maker = Callable[[Start], Iterator[tuple[str, Made]]]
