"""Are hard image files read or refused as specified, and planted duplicates found, with little else taken for one?

    python benchmarks/bench_data.py [SEED...]

The files are those of benchmarks/torture.py. The duplicates are planted among the 1,906 emoji of `google` on white and
48 tiles of scikit-learn's two photographs: 50 with equal bytes, 50 recompressed (JPEG or WebP, quality 30 to 90) or
resized (0.5 to 2 times), 50 mirrored and recompressed (quality 75 to 90). False is the share of all images that are
grouped with an image of another picture: one that is neither planted, nor differs from it by at most 1 level of 255 on
average, straight or mirrored. The emoji are found by SLIMZOO_DATA (default ../shared/data).
"""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from planted import KINDS, emoji, find, photographs, plant
from record import write_result
from torture import MEMORY_OF_REFUSALS, Case, cases

from transfer.data.duplicates import near_pairs
from zoo.image import ImageError, load_image

EACH = 50
BARS = {"files": 40, "found_of_150": 148, "false_pct": 1.0, "bombs_mb": 300}


def torture(folder: Path) -> dict[str, Any]:
    """Every file read once, and what differs from what was specified."""
    every = list(cases())
    wrong, touched = [], []
    for case in every:
        path = folder / case.name
        case.make(path)
        before = _digest(path)
        if not _as_specified(case, path):
            wrong.append(case.name)
        if _digest(path) != before:
            touched.append(case.name)
    bombs = folder / "bombs"
    bombs.mkdir()
    for case in every:
        if case.bomb:
            case.make(bombs / case.name)
    command = [sys.executable, "-c", MEMORY_OF_REFUSALS, str(bombs)]
    refused, kilobytes = map(int, subprocess.run(command, capture_output=True, text=True, check=True).stdout.split())
    return {
        "files": len(every),
        "as_specified": len(every) - len(wrong),
        "wrong": wrong,
        "touched": touched,
        "bombs": sum(case.bomb for case in every),
        "bombs_refused": refused,
        "bombs_mb": round(kilobytes / 1e3, 1),
    }


def _as_specified(case: Case, path: Path) -> bool:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow's, of damaged metadata
            found = load_image(path)
    except ImageError as error:
        return case.pixels is None and bool(re.search(case.error, str(error))) and str(path) in str(error)
    return (
        case.pixels is not None
        and found.shape == case.pixels.shape
        and int(np.abs(found.astype(int) - case.pixels).max()) <= case.tolerance
    )


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""


def duplicates(seeds: list[int]) -> dict[str, Any]:
    folder = Path(os.environ.get("SLIMZOO_DATA", "../shared/data"), "emoji/google")
    names = [f"{path.parent.name}/{path.name}" for path in sorted(folder.glob("*/*.png"))]
    originals = [*emoji(folder), *photographs()]
    names += [f"photograph tile {i}" for i in range(len(originals) - len(names))]
    runs = []
    for seed in seeds:
        began = time.monotonic()
        found = find(originals, plant(originals, each=EACH, seed=seed))
        runs.append(
            {
                "seed": seed,
                "found": sum(found.found.values()),
                **{f"found_{kind.replace(' ', '_')}": found.found[kind] for kind in KINDS},
                "missed": [f"{names[original]}: {how}" for original, how in found.missed],
                "false_pct": round(100 * len(found.false) / found.images, 2),
                "false": [names[i] if i < len(names) else "a copy" for i in found.false],
                "images": found.images,
                "images_with_a_duplicate_before": len(found.known),
                "seconds": round(time.monotonic() - began, 1),
            }
        )
        print(runs[-1], flush=True)
    return {"planted": 3 * EACH, "runs": runs}


def scale(counts: tuple[int, ...] = (20_000, 100_000)) -> list[dict[str, float]]:
    """Seconds to compare that many thumbnails with each other: random ones, with the spectrum of photographs."""
    rng = np.random.default_rng(0)
    frequency = np.hypot(*np.meshgrid(np.fft.fftfreq(16), np.fft.fftfreq(16)))
    fall = 1 / np.maximum(frequency, 1 / 16)
    rows = []
    for count in counts:
        noise = np.fft.ifft2(np.fft.fft2(rng.normal(size=(count, 16, 16))) * fall).real
        grey = noise / noise.std() * rng.uniform(15, 60, (count, 1, 1)) + rng.normal(128, 40, (count, 1, 1))
        pictures = np.repeat(np.clip(grey, 0, 255).astype(np.uint8)[..., None], 3, axis=3)
        began = time.monotonic()
        pairs = len(near_pairs(pictures))
        rows.append({"images": count, "seconds": round(time.monotonic() - began, 1), "pairs": pairs})
    return rows


def main(seeds: list[int]) -> int:
    with tempfile.TemporaryDirectory() as folder:
        os.environ["SLIMZOO_CACHE"] = str(Path(folder, "cache"))  # every image is decoded for every run
        Path(folder, "files").mkdir()
        files = torture(Path(folder, "files"))
        planted = duplicates(seeds)
    print(files)
    fewest = min(run["found"] for run in planted["runs"])
    most_false = max(run["false_pct"] for run in planted["runs"])
    figures = {"torture": files, "duplicates": planted, "fewest_found": fewest, "most_false_pct": most_false}
    missed = [
        name
        for name, reached in (
            ("files", files["as_specified"] == files["files"] >= BARS["files"] and not files["touched"]),
            ("bombs_mb", files["bombs_mb"] < BARS["bombs_mb"] and files["bombs_refused"] == files["bombs"]),
            ("found_of_150", fewest >= BARS["found_of_150"]),
            ("false_pct", most_false < BARS["false_pct"]),
        )
        if not reached
    ]
    figures |= {"scale": scale(), "bars": BARS, "missed": missed}
    command = "python benchmarks/bench_data.py" + "".join(f" {seed}" for seed in seeds)
    print(write_result("data", figures, command))
    return 4 if missed else 0


if __name__ == "__main__":
    sys.exit(main([int(seed) for seed in sys.argv[1:]] or [100, 101, 102, 103, 104]))
