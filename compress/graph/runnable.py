"""An ONNX graph in onnxruntime as it came: given the number of images that it wants, of pixels or prepared."""

from __future__ import annotations

import numpy as np
import onnx
from numpy.typing import NDArray

from zoo.files.predictor import BATCH, fit_size
from zoo.preprocess import Preprocess

Prepared = NDArray[np.float32]


class Runnable:
    """An ONNX graph in onnxruntime, given its own number of images at a time."""

    def __init__(self, model: onnx.ModelProto) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4  # what fails is told in our words
        self._session = onnxruntime.InferenceSession(
            model.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
        self._given = self._session.get_inputs()[0]

    @property
    def size(self) -> int | None:
        """How many images the file wants at a time; None is any number."""
        return self._given.shape[0] if isinstance(self._given.shape[0], int) else None

    def all(self, batch: Prepared) -> dict[str, NDArray[np.float32]]:
        """Every output by its name, of as many images as the file wants."""
        names = [output.name for output in self._session.get_outputs()]
        filled = np.resize(batch, (self.size or len(batch), *batch.shape[1:]))
        return dict(zip(names, self._session.run(None, {self._given.name: filled}), strict=True))

    def __call__(self, batch: Prepared) -> NDArray[np.float32]:
        """(B, C, H, W) to (B, ...), in pieces of the size that the file fixes, the last one filled up."""
        size = self.size or len(batch)
        found = []
        for start in range(0, len(batch), size):
            piece = batch[start : start + size]
            filled = np.concatenate([piece, *[piece[-1:]] * (size - len(piece))])
            found.append(self._session.run(None, {self._given.name: filled})[0][: len(piece)])
        return np.concatenate(found)


class OriginalPredictor:
    """Pixels to logits by the file as it came, which gets prepared tensors; see `zoo.files.predictor.Predictor`."""

    def __init__(self, original: onnx.ModelProto, preprocess: Preprocess, classes: tuple[str, ...] | None) -> None:
        self.preprocess, self.classes, self._run = preprocess, classes, Runnable(original)

    def logits(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        prepared = self.preprocess.normalize(fit_size(pixels, self.preprocess))
        return np.concatenate([self._run(prepared[start : start + BATCH]) for start in range(0, len(prepared), BATCH)])
