"""open_predictor: one way from a batch of pixels to logits, whatever file holds the model.

eval, predict, parity and the report all go through it, so that a directory and its ONNX file answer the same question.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from zoo.class_name import as_class_name
from zoo.errors import SlimzooError, UsageError
from zoo.files.model_directory import ONNX, SAFETENSORS, LoadedModel, is_model_directory, load_model, read_config
from zoo.files.onnx_session import open_session
from zoo.files.seen import Seen
from zoo.preprocess import Preprocess
from zoo.pretrained.upstream import is_upstream

BATCH = 64
CPU_BATCH_PIXELS = 1 << 18  # activations of larger batches leave a CPU's cache: EfficientNet-Lite0 takes a quarter more


class Predictor(Protocol):
    """A model that takes pixels.

    Attributes:
        classes: names in the order of the logits, or None.
        preprocess: what is done to the pixels, here or inside the ONNX graph.
    """

    classes: tuple[str, ...] | None
    preprocess: Preprocess

    def logits(self, pixels: NDArray[Any]) -> NDArray[np.float32]:
        """(B, h, w, 3) uint8 RGB of any one size to (B, classes) float32; (B, H, W, C) float32 where it takes those.

        Pixels of the network's own size are taken as `Preprocess.resize` leaves them: nothing more is cut off.
        """


class TorchPredictor:
    def __init__(self, model: Any, preprocess: Preprocess, classes: tuple[str, ...] | None) -> None:
        self.model, self.preprocess, self.classes = model, preprocess, classes

    def logits(self, pixels: NDArray[Any]) -> NDArray[np.float32]:
        import torch

        device = next(self.model.parameters()).device
        height, width = self.preprocess.size
        size = BATCH if device.type != "cpu" else max(1, min(BATCH, CPU_BATCH_PIXELS // (height * width)))
        outputs = []
        with torch.inference_mode():
            for start in range(0, len(pixels), size):
                batch = self.preprocess.normalize(fit_size(pixels[start : start + size], self.preprocess))
                inputs = torch.from_numpy(batch).to(device, memory_format=torch.channels_last)
                outputs.append(self.model(inputs).float().cpu().numpy())
        return np.concatenate(outputs)


class OnnxPredictor:
    def __init__(self, model: Path | bytes, *, threads: int = 0) -> None:
        """Open a file, or the bytes of one."""
        import onnxruntime

        from zoo.files.onnx_file import load_onnx

        path = "the exported graph" if isinstance(model, bytes) else model
        content = model if isinstance(model, bytes) else load_onnx(model).SerializeToString()
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads  # 0: onnxruntime's own choice, one per core
        options.log_severity_level = 3
        self.session = open_session(content, options, what=path)
        metadata = self.session.get_modelmeta().custom_metadata_map
        if "slimzoo" not in metadata:
            raise UsageError(f"{path} says nothing of its preprocessing and classes; export it with `slimzoo export`")
        card = read_card(metadata["slimzoo"], path)
        self.preprocess, self.classes, self.seen = card.preprocess, card.classes, card.seen

    def logits(self, pixels: NDArray[Any]) -> NDArray[np.float32]:
        if self.preprocess.is_prepared:
            return self._answers("input", self.preprocess.normalize(pixels))
        if pixels.shape[-1] == 1:  # grey as the network takes it; the graph starts from RGB
            pixels = np.repeat(pixels, 3, axis=-1)
        return self._answers("pixels", _around(pixels, self.preprocess))

    def _answers(self, name: str, images: NDArray[Any]) -> NDArray[np.float32]:
        outputs = [
            self.session.run(["logits"], {name: images[start : start + BATCH]})[0]
            for start in range(0, len(images), BATCH)
        ]
        return np.concatenate(outputs)


@dataclass(frozen=True)
class Card:
    """What an exported file says of itself: `said` is all of it, see compress/graph/card.py."""

    said: dict[str, Any]
    preprocess: Preprocess
    classes: tuple[str, ...] | None
    seen: Seen | None


def read_card(said: str, path: str | Path) -> Card:
    """What an exported file says of itself.

    Raises:
        SlimzooError: it cannot be read.
    """
    try:
        card: dict[str, Any] = json.loads(said)
        classes = None if card["classes"] is None else tuple(as_class_name(str(name)) for name in card["classes"])
        return Card(card, Preprocess.from_dict(card["preprocess"]), classes, Seen.from_json(card.get("seen")))
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise SlimzooError(f"{path} says of its preprocessing and classes what cannot be read: {error}") from error


def fit_size(pixels: NDArray[Any], preprocess: Preprocess) -> NDArray[Any]:
    """Pixels at the network's size: resized where they are not."""
    if pixels.shape[1:] == (*preprocess.size, preprocess.channels):
        return pixels
    if not len(pixels):
        return np.empty((0, *preprocess.size, preprocess.channels), dtype=np.uint8)
    return np.stack([preprocess.resize(image) for image in pixels])


def _around(pixels: NDArray[np.uint8], preprocess: Preprocess) -> NDArray[np.uint8]:
    """Pixels at the network's size with a margin that a graph which cuts out the centre takes off again, unscaled."""
    if preprocess.resize_to is None or pixels.shape[1:3] != preprocess.size:
        return pixels
    before = [(preprocess.resize_to - side) // 2 for side in preprocess.size]
    margins = [(b, preprocess.resize_to - side - b) for b, side in zip(before, preprocess.size, strict=True)]
    return np.pad(pixels, [(0, 0), *margins, (0, 0)])


def open_predictor(source: str | Path | LoadedModel) -> Predictor:
    """Open a model directory, an exported .onnx file, a coded .slim file, "timm:NAME", "torchvision:NAME", or a model
    in memory.

    Raises:
        UsageError: nothing of the kind is there.
    """
    if isinstance(source, LoadedModel):
        return TorchPredictor(source.model.eval(), source.config.preprocess, source.config.classes)
    path = Path(source)
    if is_upstream(source) or not path.exists():
        if path.suffix == ".onnx":
            raise UsageError(f"{path} does not exist; `slimzoo export DIR` writes DIR/model.onnx")
        loaded = load_model(source)
        return TorchPredictor(loaded.model, loaded.config.preprocess, loaded.config.classes)
    if not path.is_dir():
        if path.suffix == ".slim":
            from zoo.files.coded_file import load_coded

            decoded = load_coded(path)
            return TorchPredictor(decoded.model, decoded.config.preprocess, decoded.config.classes)
        return OnnxPredictor(path)
    if is_model_directory(path) and read_config(path).primary == ONNX:
        return OnnxPredictor(path / ONNX)
    loaded = load_model(path)
    assert loaded.config.primary == SAFETENSORS
    return TorchPredictor(loaded.model, loaded.config.preprocess, loaded.config.classes)
