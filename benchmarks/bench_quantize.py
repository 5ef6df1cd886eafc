"""What does int8 cost, beside onnxruntime's and NNCF's quantizers; and what do equalization, learned rounding and
training with rounded weights bring?

    python benchmarks/bench_quantize.py [SEED...]

tf_efficientnet_lite0 at 96 px on emoji (Google's drawings, tested on Twitter's), ResNet-18 from scratch on emoji at
64 px, vit_tiny from scratch on scikit-learn's digits at 64 px. slimzoo: `quantize` with every option at its default.
onnxruntime: quantize_static with its defaults. NNCF: quantize with its defaults, of OpenVINO's form of the network. All
from the same fp32 network and calibration images. Accuracy on the test images; latency side by side in onnxruntime, and
in OpenVINO.

ResNet-20 from scratch on digits at 32 px with weights of 4, 3 and 2 bits: to nearest, by `quantize --bits`, and by
`quantize --bits --epochs 6`.

Then a MobileNetV2 trained on digits at 32 px, ReLU6 replaced by ReLU as Nagel et al. 2019 (arXiv 1906.04721) do, or
trained with ReLU from the start, whose channels are scaled up to three orders of magnitude apart and back, which leaves
the function as it was: one scale for each tensor of weights and of activations, with and
without equalization and bias correction, against scales by channel of the network as it was trained; and weights of
4 bits with one scale for each tensor, to nearest and learned, as trained and equalized.

Data are found by SLIMZOO_DATA (default ../shared/data). Fitted models are kept in the folder slimzoo-bench-quantize of
the system's temporary files, rows as they come in results/quantize.runs.json; what is there is not run again.
"""

from __future__ import annotations

import functools
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from record import Rows, write_result

import zoo
from compress.benchmark.harness import bench
from compress.deployment.export import export, finish, in_memory, network_of
from compress.graph.network import export_network
from compress.quantization.adaround import adaround
from compress.quantization.bias import correct_biases, input_means
from compress.quantization.calibrate import Images, watch
from compress.quantization.cpu import SCHEMES, best_scheme, convolution_at_full_scale, exact_at_full_scale
from compress.quantization.equalize import equalize
from compress.quantization.ptq import activations, quantize_static
from compress.quantization.rounding import Roundings, round_to_nearest
from compress.quantization.settings import RANGES
from compress.quantization.step import CALIBRATION_IMAGES, quantize
from compress.report.statistics import ratio_interval
from transfer.data.fitted_data import open_for
from transfer.data.loader import LabelledPixels
from transfer.data.parts import read_pixels
from transfer.evaluation.statistics import paired_drop
from transfer.fitting.step import fit
from transfer.training.finetune import TrainingData, finetune
from transfer.training.recipe import Recipe
from zoo.files.model_directory import ModelConfig, load_model

TASKS: dict[str, dict[str, Any]] = {
    "emoji, tf_efficientnet_lite0": {"model": "tf_efficientnet_lite0", "method": "finetune", "size": 96},
    "emoji, resnet18": {"model": "resnet18", "method": "scratch", "size": 64},
    "digits, vit_tiny": {"model": "vit_tiny", "method": "scratch", "size": 64},
}
FEW_BITS = {"model": "resnet20", "method": "scratch", "size": 32}
BITS, EPOCHS = (4, 3, 2), 6
APART: dict[str, dict[str, Any]] = {"mobilenet_v2": {}, "mobilenet_v2, ReLU": {"activation": "relu"}}
MOST_LOST = 0.5  # points, of the two CNNs
NO_WORSE, NO_SLOWER = -0.5, 1.05
SPREAD = 1.5  # orders of magnitude to either side, that channels are scaled by
RECOVERED, GAINED = 0.9, 5.0  # share of what scales by channel have; points of learned rounding
MOST_LOST_TRAINED = 1.0  # points, at 4 bits
MOST_LEVELS, MOST_BYTES = 0.2, 1e9
WORK = Path(tempfile.gettempdir(), "slimzoo-bench-quantize")
ROUNDS, RUNS_S = 21, 0.1  # in OpenVINO; seconds a round


def main(seeds: list[int]) -> int:
    rows = Rows("quantize")
    parts: dict[str, Callable[[int, Path], dict[str, Any]]] = {
        **{task: functools.partial(against_others, task) for task in TASKS},
        "few bits": few_bits,
        **{task: functools.partial(far_apart, arguments) for task, arguments in APART.items()},
    }
    with tempfile.TemporaryDirectory() as folder:
        for seed in seeds:
            for part, measured in parts.items():
                if not rows.find(task=part, seed=seed):
                    rows.keep(told({"task": part, "seed": seed, **measured(seed, Path(folder))}))
    figures = compare(rows.all)
    print(write_result("quantize", figures, f"python benchmarks/bench_quantize.py {' '.join(map(str, seeds))}".strip()))
    rows.finish()
    return 4 if figures["missed"] else 0


def told(row: dict[str, Any]) -> dict[str, Any]:
    print({key: value for key, value in row.items() if not isinstance(value, str) or len(value) < 60}, flush=True)
    return row


def fitted(task: str, seed: int, data: str, test: str | None, how: dict[str, Any]) -> Path:
    """A directory that fit wrote, now or before."""
    directory = WORK / f"{task}-{seed}"
    if not directory.exists():
        fit(data, test=test, seed=seed, out=directory, **how)
    if not (directory / "model.onnx").exists():
        export(directory)
    return directory


def against_others(task: str, seed: int, folder: Path) -> dict[str, Any]:
    emoji = Path(os.environ.get("SLIMZOO_DATA", "../shared/data"), "emoji").resolve()
    data, test = ("digits", None) if task.startswith("digits") else (str(emoji / "google"), str(emoji / "twitter"))
    dense, int8 = fitted(task, seed, data, test, TASKS[task]), folder / f"{task}-{seed}-int8"
    step = quantize(dense, data=data, out=int8, seed=seed)
    loaded = load_model(dense)
    pixels = read_pixels(open_for(loaded.config, data), loaded.config.preprocess, None)
    assert pixels.test is not None
    chosen = np.random.default_rng(seed).permutation(len(pixels.train))[:CALIBRATION_IMAGES]
    network, calibration = (
        network_of(dense / "model.onnx"),
        Images(pixels.train.pixels[chosen], loaded.config.preprocess),
    )
    peer = by_onnxruntime(network, calibration, folder)
    files = {"fp32": network, "slimzoo": network_of(int8 / "model.onnx"), "onnxruntime": peer}
    if "vit" in task:
        dynamic = quantize(dense, data=data, to="int8-dynamic", out=folder / f"{task}-{seed}-dynamic").out
        files["dynamic"] = network_of(dynamic / "model.onnx")
    paths = {name: folder / f"{name}.onnx" for name in files}
    found: dict[str, Any] = {"taken": step.record["taken"], "ranges": step.record["ranges"]}
    for name, file in files.items():
        onnx.save(file, paths[name])
        found[f"{name}_bytes"] = paths[name].stat().st_size
        found[name] = answers(file, loaded.config, pixels.test.pixels, pixels.test.labels)
    order = ("onnxruntime", *(name for name in files if name != "onnxruntime"))
    timed = bench([paths[name] for name in order], runtimes=["onnxruntime"], threads=1, rounds=ROUNDS)
    for name, row in zip(order, timed["rows"], strict=True):
        if row["disturbed"]:
            sys.exit(f"no result: {'; '.join(timed['diagnoses'])}")
        found[f"{name}_times_as_fast"], found[f"{name}_times_as_fast_ci"] = row["ratio"], row["ratio_ci"]
    in_openvino = against_nncf(paths["fp32"], paths["slimzoo"], calibration, loaded.config, pixels.test)
    return found | {"noise_floor_pct": timed["noise"]["floor_pct"], **in_openvino}


def against_nncf(
    fp32: Path, int8: Path, calibration: Images, config: ModelConfig, test: LabelledPixels
) -> dict[str, Any]:
    """In OpenVINO with one thread and its default precisions: right answers, and times in turn within one process."""
    import nncf
    import openvino

    core = openvino.Core()
    images = [image[None] for batch in calibration for image in batch]
    networks = {
        "nncf": nncf.quantize(core.read_model(fp32), nncf.Dataset(images), subset_size=len(images)),
        "slimzoo": core.read_model(int8),
        "fp32": core.read_model(fp32),
    }
    settings = {"INFERENCE_NUM_THREADS": 1, "NUM_STREAMS": 1, "PERFORMANCE_HINT": "LATENCY"}
    compiled = {name: core.compile_model(network, "CPU", settings) for name, network in networks.items()}
    inputs = config.preprocess.normalize(test.pixels)
    found: dict[str, Any] = {}
    for name, model in compiled.items():
        logits = np.concatenate([model(inputs[start : start + 32])[0] for start in range(0, len(inputs), 32)])
        found[f"{name}_in_openvino"] = "".join("01"[int(right)] for right in logits.argmax(1) == test.labels)
    times = in_turn({name: functools.partial(model, inputs[:1]) for name, model in compiled.items()})
    for name in ("slimzoo", "fp32"):
        ratio = ratio_interval(np.array(times["nncf"]) / times[name])
        found[f"{name}_in_openvino_times_as_fast"] = ratio.value
        found[f"{name}_in_openvino_times_as_fast_ci"] = [ratio.lo, ratio.hi]
    return found


def in_turn(calls: dict[str, Callable[[], Any]]) -> dict[str, list[float]]:
    """Seconds of a call in each round, one after the other."""
    times: dict[str, list[float]] = {name: [] for name in calls}
    runs = {}
    for name, call in calls.items():
        began = time.perf_counter()
        for _ in range(20):
            call()
        runs[name] = max(1, round(20 * RUNS_S / (time.perf_counter() - began)))
    for _ in range(ROUNDS):
        for name, call in calls.items():
            began = time.perf_counter()
            for _ in range(runs[name]):
                call()
            times[name].append((time.perf_counter() - began) / runs[name])
    return times


def few_bits(seed: int, folder: Path) -> dict[str, Any]:
    """Right answers on the test digits."""
    dense = fitted("digits, resnet20", seed, "digits", None, FEW_BITS)
    loaded = load_model(dense)
    config = loaded.config
    pixels = read_pixels(open_for(config, "digits"), config.preprocess, None)
    test, network = pixels.test, network_of(dense / "model.onnx")
    assert test is not None
    chosen = np.random.default_rng(seed).permutation(len(pixels.train))[:CALIBRATION_IMAGES]
    seen = watch(network, activations(network), Images(pixels.train.pixels[chosen], config.preprocess))
    found = {"fp32": answers(network, config, test.pixels, test.labels)}
    for bits in BITS:
        scheme = replace(best_scheme(), bits=bits)
        near = quantize_static(network, histograms=seen, scheme=scheme).network
        found[f"{bits}_bits_nearest"] = answers(near, config, test.pixels, test.labels)
        for name, epochs in (("learned", 0), ("trained", EPOCHS)):
            out = folder / f"{bits}-{name}-{seed}"
            quantize(dense, data="digits", bits=bits, epochs=epochs, seed=seed, out=out)
            found[f"{bits}_bits_{name}"] = answers(network_of(out / "model.onnx"), config, test.pixels, test.labels)
    return found


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


def far_apart(arguments: dict[str, Any], seed: int, folder: Path) -> dict[str, Any]:
    """Accuracy on the test digits, in percent."""
    torch.manual_seed(seed)
    model = zoo.create_model("mobilenet_v2", num_classes=10, **arguments)
    rectified = zoo.create_model("mobilenet_v2", activation="relu", num_classes=10).eval()
    config = ModelConfig(
        architecture="mobilenet_v2",
        model_args={"num_classes": 10},
        classes=tuple("0123456789"),
        preprocess=zoo.Preprocess(size=(32, 32)),
    )
    source = open_for(config, "digits")
    pixels = read_pixels(source, config.preprocess, None)
    assert pixels.test is not None
    recipe = Recipe.for_data(len(pixels.train), 32, classes=10, method="scratch", mirror=False, seed=seed)
    model = finetune(model, TrainingData(pixels.train, pixels.val, config.preprocess), recipe).model.eval()
    rectified.load_state_dict(model.state_dict())
    trained = export_network(rectified, config.input_size)
    scale_apart_(rectified, seed)
    network = export_network(rectified, config.input_size)
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
        "as_trained_pct": top1(export_network(model, config.input_size)),
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
    missed: list[str] = []
    cells = [compared(task, sorted_runs(runs, task), missed) for task in TASKS]
    bits = few_bits_cells(sorted_runs(runs, "few bits"))
    if bits[0]["trained_loses_points"] > MOST_LOST_TRAINED:
        missed.append(f"four bits, trained: {bits[0]['trained_loses_points']:.2f} points are lost")
    apart = {}
    for task in APART:
        rows = sorted_runs(runs, task)
        apart[task] = {key: round(statistics.mean(row[key] for row in rows), 2) for key in rows[0] if "_pct" in key}
    mean = apart["mobilenet_v2"]
    if mean["equalized_and_corrected_pct"] < RECOVERED * mean["by_channel_as_trained_pct"]:
        missed.append("equalized: below nine tenths of what scales by channel have")
    if mean["four_bits_learned_pct"] < mean["four_bits_nearest_pct"] + GAINED:
        missed.append("four bits: learned rounding gains less than 5 points")
    pixels = preprocessing_error()
    if pixels["worst_mean_levels"] > MOST_LEVELS:
        missed.append(f"preprocessing: {pixels['worst_mean_levels']:.2f} grey levels off in the mean")
    memory = calibration_memory()
    if memory["peak_bytes"] > MOST_BYTES:
        missed.append(f"calibration: {memory['peak_bytes'] / 1e9:.2f} GB")
    right = {str(scheme): [convolution_at_full_scale(scheme), exact_at_full_scale(scheme)] for scheme in SCHEMES}
    return {
        "cells": cells,
        "few_bits": bits,
        "far_apart": apart,
        "sums_at_full_scale": right,
        "preprocessing": pixels,
        "calibration_memory": memory,
        "scheme": str(best_scheme()),
        "methods": list(RANGES),
        "missed": missed,
        "runs": runs,
    }


def sorted_runs(runs: list[dict[str, Any]], task: str) -> list[dict[str, Any]]:
    return sorted((run for run in runs if run["task"] == task), key=lambda run: run["seed"])


def compared(task: str, rows: list[dict[str, Any]], missed: list[str]) -> dict[str, Any]:
    """All seeds of one task; what does not hold is added to `missed`."""
    right = {
        name: "".join(row[name] for row in rows)
        for name in ("fp32", "slimzoo", "onnxruntime", "slimzoo_in_openvino", "nncf_in_openvino")
    }
    lost = paired_drop(right["fp32"], right["slimzoo"])
    cell = {
        "task": task,
        "seeds": len(rows),
        **{f"{name}_top1_pct": round(top1_pct(each), 2) for name, each in right.items()},
        "int8_loses_points": round(lost.points, 2),
        "int8_loses_ci_points": [round(edge, 2) for edge in lost.ci_points],
        "taken": [row["taken"] for row in rows],
    }
    if "dynamic" in rows[0]:
        cell["int8_dynamic_top1_pct"] = round(top1_pct("".join(row["dynamic"] for row in rows)), 2)
        cell["int8_dynamic_times_as_fast_as_onnxruntime"] = median_of(rows, "dynamic_times_as_fast")
    if "vit" not in task and lost.points > MOST_LOST:
        missed.append(f"{task}: int8 loses {lost.points:.2f} points")
    for runtime, peer, ours, theirs in (
        ("onnxruntime", "onnxruntime", "slimzoo", "onnxruntime"),
        ("openvino", "nncf", "slimzoo_in_openvino", "nncf_in_openvino"),
    ):
        gained = paired_drop(right[ours], right[theirs])
        speed = [row[f"{ours}_times_as_fast_ci"] for row in rows]
        cell |= {
            f"gains_over_{peer}_points": round(gained.points, 2),
            f"gains_over_{peer}_ci_points": [round(edge, 2) for edge in gained.ci_points],
            f"times_as_fast_as_{peer}": median_of(rows, f"{ours}_times_as_fast"),
            f"times_as_fast_as_{peer}_ci": [min(ci[0] for ci in speed), max(ci[1] for ci in speed)],
            f"fp32_times_as_fast_as_{peer}": median_of(rows, f"{ours.replace('slimzoo', 'fp32')}_times_as_fast"),
        }
        if gained.ci_points[0] < NO_WORSE:
            missed.append(f"{task}: may be less accurate than {peer}'s")
        if all(1 / ci[1] > NO_SLOWER for ci in speed):
            missed.append(f"{task}: slower than {peer}'s in {runtime}")
    return cell


def preprocessing_error() -> dict[str, Any]:
    """Of what an exported file feeds its network, against Pillow's resize: noise of 20 sizes, all modes."""
    given = onnx.helper.make_tensor_value_info("input", onnx.TensorProto.FLOAT, ["batch", 3, 96, 96])
    same = onnx.helper.make_tensor_value_info("logits", onnx.TensorProto.FLOAT, ["batch", 3, 96, 96])
    graph = onnx.helper.make_graph([onnx.helper.make_node("Identity", ["input"], ["logits"])], "same", [given], [same])
    identity = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 20)], ir_version=10)
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 256, (*rng.integers(16, 700, 2), 3), dtype=np.uint8) for _ in range(20)]
    means, largest = [], 0.0
    modes = [("squash", None), ("crop", 110), ("pad", None)]
    for mode, resize_to in modes:
        for interpolation in ("bilinear", "bicubic"):
            how = zoo.Preprocess(size=(96, 96), mode=mode, resize_to=resize_to, interpolation=interpolation)
            config = ModelConfig(architecture="resnet20", model_args={}, classes=None, preprocess=how)
            session = in_memory(finish(identity, config, None)).session
            for image in images:
                off = session.run(["logits"], {"pixels": image[None]})[0][0] - how.normalize(how.resize(image)[None])[0]
                levels = np.abs(off) * np.array(how.std).reshape(3, 1, 1) * 255
                means.append(float(levels.mean()))
                largest = max(largest, float(levels.max()))
    return {
        "sizes": len(images),
        "modes": 2 * len(modes),
        "mean_levels": round(statistics.mean(means), 4),
        "worst_mean_levels": round(max(means), 4),
        "largest_levels": round(largest, 2),
    }


def calibration_memory() -> dict[str, Any]:
    """The largest memory of a process that watches all activations of a ResNet-18 over 1,000 images of 224 px."""
    program = (
        "import sys, numpy, onnx\n"
        "from compress.benchmark.worker import peak_bytes\n"
        "from compress.quantization.calibrate import Images, watch\n"
        "from compress.quantization.ptq import activations\n"
        "from zoo.preprocess import Preprocess\n"
        "network = onnx.load(sys.argv[1])\n"
        "pixels = numpy.random.default_rng(0).integers(0, 256, (1000, 224, 224, 3), dtype=numpy.uint8)\n"
        "watch(network, activations(network), Images(pixels, Preprocess(size=(224, 224))))\n"
        "print(peak_bytes())\n"
    )
    with tempfile.TemporaryDirectory() as folder:
        onnx.save(export_network(zoo.create_model("resnet18").eval(), (3, 224, 224)), Path(folder, "resnet18.onnx"))
        given = [sys.executable, "-W", "ignore", "-c", program, str(Path(folder, "resnet18.onnx"))]
        done = subprocess.run(given, capture_output=True, text=True, check=True)
    return {"images": 1000, "size": 224, "peak_bytes": int(done.stdout)}


def few_bits_cells(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    fp32 = "".join(row["fp32"] for row in rows)
    cells = []
    for bits in BITS:
        cell: dict[str, Any] = {"bits": bits, "seeds": len(rows), "fp32_top1_pct": round(top1_pct(fp32), 2)}
        for name in ("nearest", "learned", "trained"):
            right = "".join(row[f"{bits}_bits_{name}"] for row in rows)
            lost = paired_drop(fp32, right)
            cell |= {
                f"{name}_top1_pct": round(top1_pct(right), 2),
                f"{name}_loses_points": round(lost.points, 2),
                f"{name}_loses_ci_points": [round(edge, 2) for edge in lost.ci_points],
            }
        cells.append(cell)
    return cells


def top1_pct(right: str) -> float:
    return 100 * right.count("1") / len(right)


def median_of(rows: list[dict[str, Any]], key: str) -> float:
    return round(statistics.median(row[key] for row in rows), 3)


if __name__ == "__main__":
    sys.exit(main([int(seed) for seed in sys.argv[1:]] or [0, 1, 2]))
