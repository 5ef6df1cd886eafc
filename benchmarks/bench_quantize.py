"""What does int8 cost, beside onnxruntime's own quantizer; and what do equalization and learned rounding bring?

    python benchmarks/bench_quantize.py [SEED...]

tf_efficientnet_lite0 at 96 px on emoji (Google's drawings, tested on Twitter's), ResNet-18 from scratch on emoji at
64 px, vit_tiny from scratch on scikit-learn's digits at 64 px. slimzoo: `quantize` with every option at its default.
onnxruntime: quantize_static with its defaults, on the same fp32 network and calibration images. Accuracy on the test
images, latency side by side in onnxruntime.

Then a MobileNetV2 with ReLU, trained on digits at 32 px, whose channels are scaled up to three orders of magnitude
apart and back, which leaves the function as it was: one scale for each tensor of weights and of activations, with and
without equalization and bias correction, against scales by channel of the network as it was trained; and weights of
4 bits with one scale for each tensor, to nearest and learned, as trained and equalized.

Data are found by SLIMZOO_DATA (default ../shared/data). Rows are kept as they come in results/quantize.runs.json, and
what is there is not run again.
"""

from __future__ import annotations

import os
import statistics
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from record import Rows, write_result

import zoo
from compress.deploy.benchmark import bench
from compress.deploy.export import export, export_network, finish, in_memory, network_of
from compress.quantize.adaround import adaround
from compress.quantize.bias import correct_biases, input_means
from compress.quantize.calibrate import METHODS, Images, watch
from compress.quantize.cpu import SCHEMES, best_scheme, convolution_at_full_scale, exact_at_full_scale
from compress.quantize.equalize import equalize
from compress.quantize.ptq import activations, quantize_static
from compress.quantize.rounding import Roundings, round_to_nearest
from compress.quantize.step import CALIBRATION_IMAGES, quantize
from transfer.data.dataset import open_for
from transfer.data.parts import read_pixels
from transfer.evaluation.statistics import paired_drop
from transfer.fit import fit
from transfer.training.finetune import TrainingData, finetune
from transfer.training.recipe import Recipe
from zoo.artifact import ModelConfig, load_model

TASKS: dict[str, dict[str, Any]] = {
    "emoji, tf_efficientnet_lite0": {"model": "tf_efficientnet_lite0", "method": "finetune", "size": 96},
    "emoji, resnet18": {"model": "resnet18", "method": "scratch", "size": 64},
    "digits, vit_tiny": {"model": "vit_tiny", "method": "scratch", "size": 64},
}
MOST_LOST = 0.5  # points, of the two CNNs
NO_WORSE, NO_SLOWER = -0.5, 1.05
SPREAD = 1.5  # orders of magnitude to either side, that channels are scaled by
RECOVERED, GAINED = 0.9, 5.0  # share of what scales by channel have; points of learned rounding


def main(seeds: list[int]) -> int:
    rows = Rows("quantize")
    with tempfile.TemporaryDirectory() as folder:
        for seed in seeds:
            for task in TASKS:
                if not rows.find(task=task, seed=seed):
                    rows.keep(told({"task": task, "seed": seed, **against_onnxruntime(task, seed, Path(folder))}))
            if not rows.find(task="mobilenet_v2", seed=seed):
                rows.keep(told({"task": "mobilenet_v2", "seed": seed, **far_apart(seed)}))
    figures = compare(rows.all)
    print(write_result("quantize", figures, f"python benchmarks/bench_quantize.py {' '.join(map(str, seeds))}".strip()))
    rows.finish()
    return 4 if figures["missed"] else 0


def told(row: dict[str, Any]) -> dict[str, Any]:
    print({key: value for key, value in row.items() if not isinstance(value, str) or len(value) < 60}, flush=True)
    return row


def against_onnxruntime(task: str, seed: int, folder: Path) -> dict[str, Any]:
    emoji = Path(os.environ.get("SLIMZOO_DATA", "../shared/data"), "emoji").resolve()
    data, test = ("digits", None) if task.startswith("digits") else (str(emoji / "google"), str(emoji / "twitter"))
    dense, int8 = folder / f"{task}-{seed}", folder / f"{task}-{seed}-int8"
    fit(data, test=test, seed=seed, out=dense, **TASKS[task])
    export(dense)
    step = quantize(dense, data=data, out=int8, seed=seed)
    loaded = load_model(dense)
    pixels = read_pixels(open_for(loaded.config, data), loaded.config.preprocess, None)
    assert pixels.test is not None
    chosen = np.random.default_rng(seed).permutation(len(pixels.train))[:CALIBRATION_IMAGES]
    network = network_of(dense / "model.onnx")
    peer = by_onnxruntime(network, Images(pixels.train.pixels[chosen], loaded.config.preprocess), folder)
    files = {"fp32": network, "slimzoo": network_of(int8 / "model.onnx"), "onnxruntime": peer}
    paths = {name: folder / f"{name}.onnx" for name in files}
    found: dict[str, Any] = {"taken": step.record["taken"], "ranges": step.record["ranges"]}
    for name, file in files.items():
        onnx.save(file, paths[name])
        found[f"{name}_bytes"] = paths[name].stat().st_size
        found[name] = answers(file, loaded.config, pixels.test.pixels, pixels.test.labels)
    timed = bench(
        [paths["onnxruntime"], paths["slimzoo"], paths["fp32"]], runtimes=["onnxruntime"], threads=1, rounds=21
    )
    for name, row in zip(("onnxruntime", "slimzoo", "fp32"), timed["rows"], strict=True):
        found[f"{name}_times_as_fast"], found[f"{name}_times_as_fast_ci"] = row["ratio"], row["ratio_ci"]
    return found | {"noise_floor_pct": timed["noise"]["floor_pct"]}


def by_onnxruntime(network: onnx.ModelProto, images: Images, folder: Path) -> onnx.ModelProto:
    from onnxruntime import quantization

    class Reader(quantization.CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self.batches: Iterator[NDArray[np.float32]] = iter(images)

        def get_next(self) -> dict[str, Any] | None:
            batch = next(self.batches, None)
            return None if batch is None else {network.graph.input[0].name: batch}

    before, after = folder / "before.onnx", folder / "after.onnx"
    onnx.save(network, before)
    quantization.quantize_static(before, after, Reader())
    return onnx.load(after)


def answers(network: onnx.ModelProto, config: ModelConfig, pixels: NDArray[np.uint8], labels: NDArray[np.int64]) -> str:
    """One character an image, "1" where the answer is right."""
    right = in_memory(finish(network, config, None)).logits(pixels).argmax(1) == labels
    return "".join("01"[int(each)] for each in right)


def far_apart(seed: int) -> dict[str, Any]:
    """Accuracy on the test digits, in percent."""
    torch.manual_seed(seed)
    model = zoo.create_model("mobilenet_v2", activation="relu", num_classes=10)
    config = ModelConfig(
        architecture="mobilenet_v2", model_args={"num_classes": 10}, classes=tuple("0123456789"),
        preprocess=zoo.Preprocess(size=(32, 32)),
    )  # fmt: skip
    source = open_for(config, "digits")
    pixels = read_pixels(source, config.preprocess, None)
    assert pixels.test is not None
    recipe = Recipe.for_data(len(pixels.train), 32, classes=10, method="scratch", mirror=False, seed=seed)
    model = finetune(model, TrainingData(pixels.train, pixels.val, config.preprocess), recipe).model.eval()
    trained = export_network(model, config.input_size)
    scale_apart_(model, seed)
    network = export_network(model, config.input_size)
    chosen = np.random.default_rng(seed).permutation(len(pixels.train))[:CALIBRATION_IMAGES]
    images = Images(pixels.train.pixels[chosen], config.preprocess)

    def top1(network: onnx.ModelProto) -> float:
        right = answers(network, config, pixels.test.pixels, pixels.test.labels)  # type: ignore[union-attr]
        return round(100 * right.count("1") / len(right), 2)

    def int8(exact: onnx.ModelProto, roundings: Roundings, bits: int = 8) -> onnx.ModelProto:
        scheme = replace(best_scheme(), bits=min(bits, best_scheme().bits))
        seen = watch(exact, activations(exact), images)
        return quantize_static(exact, histograms=seen, scheme=scheme, roundings=roundings).network

    bits = best_scheme().bits
    equal, _ = equalize(network)
    rounded = int8(equal, round_to_nearest(equal, bits, by_channel=False))
    corrected = correct_biases(equal, rounded, input_means(equal, images))
    four = {
        name: round_to_nearest(each, 4, by_channel=False) for name, each in (("trained", trained), ("equal", equal))
    }
    return {
        "fp32_pct": top1(network),
        "by_channel_as_trained_pct": top1(int8(trained, round_to_nearest(trained, bits))),
        "by_channel_pct": top1(int8(network, round_to_nearest(network, bits))),
        "by_tensor_pct": top1(int8(network, round_to_nearest(network, bits, by_channel=False))),
        "equalized_pct": top1(rounded),
        "equalized_and_corrected_pct": top1(int8(corrected, round_to_nearest(corrected, bits, by_channel=False))),
        "four_bits_nearest_pct": top1(int8(trained, four["trained"], 4)),
        "four_bits_learned_pct": top1(int8(trained, adaround(trained, four["trained"], images, seed=seed), 4)),
        "equalized_four_bits_nearest_pct": top1(int8(equal, four["equal"], 4)),
        "equalized_four_bits_learned_pct": top1(int8(equal, adaround(equal, four["equal"], images, seed=seed), 4)),
    }


@torch.no_grad()
def scale_apart_(model: torch.nn.Module, seed: int) -> None:
    """Each hidden channel of each block times a factor, and what reads it divided by that: the same function."""
    generator = torch.Generator().manual_seed(seed)
    for block in list(model.features)[2:18]:  # type: ignore[arg-type]
        norm, depthwise = block.conv[0][1], block.conv[1][0]
        channels = len(norm.weight)
        factors = torch.logspace(-SPREAD, SPREAD, channels)[torch.randperm(channels, generator=generator)]
        norm.weight.mul_(factors)
        norm.bias.mul_(factors)
        depthwise.weight.div_(factors[:, None, None, None])


def compare(runs: list[dict[str, Any]]) -> dict[str, Any]:
    cells, missed = [], []
    for task in TASKS:
        rows = sorted((run for run in runs if run["task"] == task), key=lambda run: run["seed"])
        fp32, ours, peer = ("".join(row[name] for row in rows) for name in ("fp32", "slimzoo", "onnxruntime"))
        lost, gained = paired_drop(fp32, ours), paired_drop(ours, peer)
        speed = [row["slimzoo_times_as_fast_ci"] for row in rows]
        cell = {
            "task": task,
            "seeds": len(rows),
            **{f"{name}_top1_pct": round(100 * right.count("1") / len(right), 2)
               for name, right in (("fp32", fp32), ("slimzoo", ours), ("onnxruntime", peer))},
            "int8_loses_points": round(lost.points, 2),
            "int8_loses_ci_points": [round(edge, 2) for edge in lost.ci_points],
            "gains_over_onnxruntime_points": round(gained.points, 2),
            "gains_over_onnxruntime_ci_points": [round(edge, 2) for edge in gained.ci_points],
            **{f"{name}_times_as_fast": round(statistics.median(row[f"{name}_times_as_fast"] for row in rows), 3)
               for name in ("slimzoo", "fp32")},
            "slimzoo_times_as_fast_ci": [min(ci[0] for ci in speed), max(ci[1] for ci in speed)],
        }  # fmt: skip
        if "vit" not in task and lost.points > MOST_LOST:
            missed.append(f"{task}: int8 loses {lost.points:.2f} points")
        if gained.ci_points[0] < NO_WORSE:
            missed.append(f"{task}: may be less accurate than onnxruntime's")
        if all(1 / ci[1] > NO_SLOWER for ci in speed):
            missed.append(f"{task}: slower than onnxruntime's")
        cells.append(cell)
    apart = [run for run in runs if run["task"] == "mobilenet_v2"]
    mean = {key: round(statistics.mean(run[key] for run in apart), 2) for key in apart[0] if key.endswith("_pct")}
    if mean["equalized_and_corrected_pct"] < RECOVERED * mean["by_channel_as_trained_pct"]:
        missed.append("equalized: below nine tenths of what scales by channel have")
    if mean["four_bits_learned_pct"] < mean["four_bits_nearest_pct"] + GAINED:
        missed.append("four bits: learned rounding gains less than 5 points")
    right = {str(scheme): [convolution_at_full_scale(scheme), exact_at_full_scale(scheme)] for scheme in SCHEMES}
    return {
        "cells": cells, "far_apart": mean, "sums_at_full_scale": right, "scheme": str(best_scheme()),
        "methods": list(METHODS), "missed": missed, "runs": runs,
    }  # fmt: skip


if __name__ == "__main__":
    sys.exit(main([int(seed) for seed in sys.argv[1:]] or [0, 1, 2]))
