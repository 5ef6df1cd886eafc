"""From a photo to its answer: what is waited for, against ten lines of Pillow and onnxruntime, and as it was before.

    python benchmarks/bench_answer.py [--before DEPLOY]

EfficientNet-Lite0 at 96 px, random weights, one thread, JPEGs of 640 x 480, 1920 x 1080 and 4000 x 3000 pixels.

ours: `load_image` at the part of its size that the network needs, then the exported file, as deploy/infer.py does.
ten lines: Pillow's `draft`, `convert`, `resize`, NumPy, and a bare onnxruntime session of the network alone.
before: the deploy/ of a version that decoded at full size and resized floats: its image.py, then its model.onnx.

Each way is measured in processes of its own, in turns; a ratio is of the medians of processes, with Student's interval.
The difference of pixels is between both sizes of decoding, at the network's size, in levels of 255.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from record import write_result

from zoo.image import least_of, load_image

SIDE, MEAN, STD = 96, (0.5,) * 3, (0.5,) * 3
WAYS = ("ours", "ten lines", "before")
LAUNCHES, RUNS = 7, 5


def one(way: str, photo: str, whole: str, network: str) -> dict[str, float]:
    """The median milliseconds of an answer, and the most memory that the process held."""
    import onnxruntime

    from compress.benchmark.worker import peak_bytes

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(network if way == "ten lines" else whole, options)
    least = least_of((SIDE, SIDE), None)

    def by_file() -> Any:
        return session.run(None, {"pixels": load_image(photo, least=least)[None]})

    def by_old_file() -> Any:
        return session.run(None, {"pixels": old_image.load_image(photo)[None]})

    if way == "before":
        sys.path.insert(0, str(Path(whole).parent))
        import image as old_image

    def by_hand() -> Any:
        image = Image.open(photo)
        image.draft("RGB", (2 * SIDE, 2 * SIDE))
        image = image.convert("RGB").resize((SIDE, SIDE), Image.Resampling.BICUBIC)
        pixels = (np.asarray(image, dtype=np.float32) / 255 - 0.5) / 0.5
        return session.run(None, {"input": np.ascontiguousarray(pixels.transpose(2, 0, 1))[None]})

    answer: Callable[[], Any] = {"ours": by_file, "ten lines": by_hand, "before": by_old_file}[way]
    answer()
    times = []
    for _ in range(RUNS):
        began = time.perf_counter()
        answer()
        times.append(1e3 * (time.perf_counter() - began))
    return {"ms": statistics.median(times), "peak_mb": peak_bytes() / 1e6}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--before", type=Path, help="the deploy/ of an older version")
    parser.add_argument("--one", nargs=4, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        print(json.dumps(one(*given.one)))
        return 0
    from compress.benchmark.answer import make_photos
    from compress.report.statistics import ratio_interval

    figures: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        whole, network = export_both(Path(folder))
        for name, photo in make_photos(Path(folder)).items():
            ways = WAYS if given.before else WAYS[:-1]
            runs: dict[str, list[dict[str, float]]] = {way: [] for way in ways}
            for launch in range(LAUNCHES):
                for way in reversed(ways) if launch % 2 else ways:
                    file = given.before / "model.onnx" if way == "before" else whole
                    command = [sys.executable, __file__, "--one", way, str(photo), str(file), str(network)]
                    done = subprocess.run(command, capture_output=True, text=True, check=True)
                    runs[way].append(json.loads(done.stdout.splitlines()[-1]))
            ms = {way: np.array([run["ms"] for run in runs[way]]) for way in ways}
            figures[name] = {way: {"ms": round(float(np.median(ms[way])), 2)} for way in ways}
            for way in ways:
                figures[name][way]["peak_mb"] = round(max(run["peak_mb"] for run in runs[way]), 1)
            for way in ways[1:]:
                ratio = ratio_interval(ms[way] / ms["ours"])
                figures[name][way]["times_ours"] = [round(v, 3) for v in (ratio.value, ratio.lo, ratio.hi)]
            figures[name]["levels_apart"] = levels_apart(photo)
            print(name, figures[name], flush=True)
    print(write_result("answer", figures, "python benchmarks/bench_answer.py --before DEPLOY"))
    return 0


def export_both(folder: Path) -> tuple[Path, Path]:
    """The file that takes photos, and the network alone."""
    from compress.graph.network import export_network
    from compress.graph.preprocessing import with_preprocessing
    from zoo.create import create_model
    from zoo.preprocess import Preprocess

    network = export_network(create_model("efficientnet_lite0").eval(), (3, SIDE, SIDE))
    whole = with_preprocessing(network, Preprocess(size=(SIDE, SIDE), mean=MEAN, std=STD))
    for name, model in (("whole", whole), ("network", network)):
        (folder / f"{name}.onnx").write_bytes(model.SerializeToString())
    return folder / "whole.onnx", folder / "network.onnx"


def levels_apart(photo: Path) -> float:
    resized = [
        np.asarray(
            Image.fromarray(load_image(photo, least=least)).resize((SIDE, SIDE), Image.Resampling.BICUBIC), float
        )
        for least in (None, least_of((SIDE, SIDE), None))
    ]
    return round(float(np.abs(resized[0] - resized[1]).mean()), 3)


if __name__ == "__main__":
    sys.exit(main())
