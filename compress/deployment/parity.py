"""Parity: do two forms of a model give the same answers on the same images?"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from compress.graph.network import BATCHES
from zoo.errors import SlimzooError
from zoo.files.predictor import Predictor

ROOT = Path(__file__).parents[2]
Pixels = NDArray[np.uint8]
Logits = NDArray[np.float32]


def compare(
    reference: Predictor, other: Predictor | bytes, pixels: Pixels, raw: Sequence[Pixels] = ()
) -> dict[str, Any]:
    """Run both over (N, H, W, C) pixels at the network's size, in batches of 1, 3 and 8 in turn.

    Args:
        other: a predictor, or an exported file, which a fresh process runs: nothing that this one holds can help it.
        raw: images of any size, which each form resizes by itself: the difference of the two resizers is told apart.

    Returns:
        n; fresh_process; max_abs, mean_abs: differences of logits; logits_std; sqnr_db: signal power over the power of
        the difference; top1_agreement; flips: `image`, `before`, `after` (classes) and `margin` (between the two best
        logits of the reference) of each image whose answer differs; resized_max_abs over `raw`.

    Raises:
        SlimzooError: the fresh process fails.
    """
    expected, resized = answers(reference, pixels, raw)
    got, resized_by_other = (
        _in_fresh_process(other, pixels, raw) if isinstance(other, bytes) else answers(other, pixels, raw)
    )
    a, b = expected.astype(np.float64), got.astype(np.float64)
    noise = float(np.square(a - b).mean())
    best_two = np.sort(a, axis=1)[:, -2:]
    before, after = a.argmax(1), b.argmax(1)
    record: dict[str, Any] = {
        "n": len(a),
        "fresh_process": isinstance(other, bytes),
        "max_abs": float(np.abs(a - b).max()),
        "mean_abs": float(np.abs(a - b).mean()),
        "logits_std": float(a.std()),
        "sqnr_db": None if noise == 0 else round(10 * float(np.log10(np.square(a).mean() / noise)), 1),
        "top1_agreement": float((before == after).mean()),
        "flips": [
            {"image": int(i), "before": int(before[i]), "after": int(after[i]), "margin": float(np.ptp(best_two[i]))}
            for i in np.flatnonzero(before != after)
        ],
    }
    if len(raw):
        record["resized_max_abs"] = max(
            float(np.abs(x - y).max()) for x, y in zip(resized, resized_by_other, strict=True)
        )
    return record


def answers(predictor: Predictor, pixels: Pixels, raw: Sequence[Pixels]) -> tuple[Logits, list[Logits]]:
    """Logits of the pixels, in batches of 1, 3 and 8 in turn, and of each raw image."""
    found = []
    start, turn = 0, 0
    while start < len(pixels):
        size = BATCHES[turn % len(BATCHES)]
        found.append(predictor.logits(pixels[start : start + size]))
        start, turn = start + size, turn + 1
    return np.concatenate(found), [predictor.logits(image[None])[0] for image in raw]


def _in_fresh_process(file: bytes, pixels: Pixels, raw: Sequence[Pixels]) -> tuple[Logits, list[Logits]]:
    with tempfile.TemporaryDirectory() as folder:
        model, given, got = (Path(folder, name) for name in ("model.onnx", "pixels.npz", "logits.npz"))
        model.write_bytes(file)
        arrays: dict[str, Any] = {"pixels": pixels, **{f"raw{i}": image for i, image in enumerate(raw)}}
        np.savez(given, **arrays)
        path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
        done = subprocess.run(
            [sys.executable, "-P", "-m", "compress.deployment.parity", str(model), str(given), str(got)],
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            env=os.environ | {"PYTHONPATH": path},
            check=False,
        )
        if done.returncode:
            why = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
            raise SlimzooError(f"the exported file does not run in a fresh process: {why}")
        with np.load(got) as found:
            return found["logits"], [found[f"raw{i}"] for i in range(len(raw))]


def main(model: str, given: str, got: str) -> None:
    """Answer in the fresh process."""
    from zoo.files.predictor import OnnxPredictor

    with np.load(given) as found:
        raw = [found[f"raw{i}"] for i in range(len(found.files) - 1)]
        logits, resized = answers(OnnxPredictor(Path(model)), found["pixels"], raw)
    arrays: dict[str, Any] = {"logits": logits, **{f"raw{i}": each for i, each in enumerate(resized)}}
    np.savez(got, **arrays)


if __name__ == "__main__":
    main(*sys.argv[1:])
