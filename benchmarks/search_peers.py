"""What `slimzoo compress` is held against: NNCF, onnxruntime's quantizer, torch-pruning and fasterai.

Each takes the fitted network itself, trains and calibrates on its training images, and gives one network after another.
"""

from __future__ import annotations

import copy
import functools
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import onnx
import torch
from bench_quantize import by_onnxruntime, in_turn
from search_figures import OPENVINO
from search_start import SHARES, Made, Maker, Start
from torch import nn
from torch_pruning_peer import CUTS, cut_by_torch_pruning, plain_fine_tuning, traceable

from compress.benchmark.machine import default_threads
from compress.graph.network import export_network
from compress.pruning.recover import recipe_after_cut
from compress.pruning.settings import Prune
from compress.report.statistics import ratio_interval
from transfer.training.finetune import TrainingData, finetune
from zoo.classifier import classifier
from zoo.cost import count_macs

EPOCHS = Prune().recover  # of everyone's training after a cut
BATCH = 32  # of fastai's training


def by_nncf(start: Start) -> Iterator[tuple[str, Made]]:
    """`nncf.quantize` with its defaults, of OpenVINO's form of the network, which answers.

    It is timed beside the others as the ONNX file that NNCF makes in the same way, and how much faster its own form is
    than that file is measured in turns; its seconds are those of its own form.
    """
    import nncf
    import openvino

    core, path = openvino.Core(), start.folder / "network.onnx"
    onnx.save(start.network, path)
    images = [image[None] for batch in start.calibration for image in batch]
    began = time.monotonic()
    own = nncf.quantize(core.read_model(path), nncf.Dataset(images), subset_size=len(images))
    facts: dict[str, Any] = {"seconds": round(time.monotonic() - began, 1)}
    settings = {"INFERENCE_NUM_THREADS": default_threads(), "NUM_STREAMS": 1, "PERFORMANCE_HINT": "LATENCY"}
    compiled = core.compile_model(own, "CPU", settings)
    name = start.network.graph.input[0].name
    dataset = nncf.Dataset(images, lambda image: {name: image})
    network = nncf.quantize(start.network, dataset, subset_size=len(images))
    onnx.save(network, start.folder / "quantized.onnx")
    other = core.compile_model(core.read_model(start.folder / "quantized.onnx"), "CPU", settings)
    one = images[0]
    times = in_turn({"own": lambda: compiled(one), "file": lambda: other(one)})
    faster = ratio_interval(np.array(times["file"]) / times["own"])
    facts |= {"own_form_times_as_fast": faster.value, "own_form_times_as_fast_ci": [faster.lo, faster.hi]}
    made = Made(network, start.loaded.config.preprocess, OPENVINO, lambda batch: compiled(batch)[0], facts)
    yield "nncf", made


def by_quantize_static(start: Start) -> Iterator[tuple[str, Made]]:
    """onnxruntime's, with its defaults."""
    yield "onnxruntime int8", _int8(start, start.network)


def by_torch_pruning(start: Start, share: float) -> Iterator[tuple[str, Made]]:
    """Taylor's criterion and plain fine-tuning on the labels, as long as our recovery; then onnxruntime's int8."""
    loaded, pixels = start.loaded, start.pixels
    cut = cut_by_torch_pruning("taylor", loaded, pixels, share, start.seed)
    recipe = recipe_after_cut(
        loaded.config, images=len(pixels.train), mirror=start.mirror, epochs=EPOCHS, seed=start.seed
    )
    data = TrainingData(pixels.train, None, loaded.config.preprocess)
    trained = finetune(cut, data, plain_fine_tuning(recipe)).model
    name = f"torch-pruning {share}"
    yield name, (made := _exported(start, trained))
    yield f"{name} int8", _int8(start, made.network, made.facts)


def by_fasterai(start: Start, share: float) -> Iterator[tuple[str, Made]]:
    """Its pruner, layer by layer by magnitude; its distillation from the fitted network in a Learner; int8.

    Everything is at its default, but that it prunes until the MACs are met, to multiples of 8.
    """
    from fastai.vision import all as vision
    from fasterai.distill.distillation_callback import KnowledgeDistillationCallback
    from fasterai.distill.losses import SoftTarget

    vision.set_seed(start.seed)
    cut = _cut_by_fasterai(start, share)
    teacher = copy.deepcopy(start.loaded.model).eval().requires_grad_(False)
    callback = KnowledgeDistillationCallback(teacher, SoftTarget)
    learner = vision.Learner(_loaders(start), cut, loss_func=vision.CrossEntropyLossFlat(), cbs=callback)
    with learner.no_bar(), learner.no_logging():
        learner.fit_one_cycle(EPOCHS)
    made = _exported(start, learner.model.eval())
    yield f"fasterai {share} int8", _int8(start, made.network, made.facts)


def _cut_by_fasterai(start: Start, share: float) -> nn.Module:
    from fasterai.core.criteria import large_final
    from fasterai.prune.pruner import Pruner

    size = start.loaded.config.input_size
    model = traceable(start.loaded).requires_grad_(True)
    whole = count_macs(model, size)
    pruner = Pruner(
        model,
        1.0,
        "local",
        large_final,
        ignored_layers=[classifier(model)],
        example_inputs=torch.zeros(1, *size),
        max_pruning_ratio=0.9,
        iterative_steps=CUTS,
        round_to=8,
    )
    for _ in range(CUTS):
        pruner.prune_model()
        if count_macs(model, size) <= share * whole:
            return model
    raise RuntimeError(f"fasterai does not get to {share:.0%} of the MACs")


def _loaders(start: Start) -> Any:
    """fastai's, of the training images, with its own augmentation; validation is only looked at."""
    from fastai.vision import all as vision

    preprocess, train, val = start.loaded.config.preprocess, start.pixels.train, start.pixels.val
    assert val is not None
    images = np.concatenate([train.pixels, val.pixels])
    labels = np.concatenate([train.labels, val.labels]).tolist()
    block = vision.DataBlock(
        blocks=(vision.ImageBlock, vision.CategoryBlock(vocab=list(range(len(start.loaded.config.classes or ()))))),
        get_x=lambda index: images[index],
        get_y=lambda index: labels[index],
        splitter=vision.IndexSplitter(list(range(len(train), len(images)))),
        batch_tfms=[
            *vision.aug_transforms(do_flip=start.mirror),
            vision.Normalize.from_stats(preprocess.mean, preprocess.std),
        ],
    )
    return block.dataloaders(list(range(len(images))), bs=BATCH, num_workers=0)


def _exported(start: Start, model: nn.Module) -> Made:
    size = start.loaded.config.input_size
    share = count_macs(model, size) / count_macs(start.loaded.model, size)
    facts = {"macs_share": round(share, 4)}
    return Made(export_network(model, size), start.loaded.config.preprocess, facts=facts)


def _int8(start: Start, network: onnx.ModelProto, facts: dict[str, Any] | None = None) -> Made:
    quantized = by_onnxruntime(network, start.calibration, start.folder)
    return Made(quantized, start.loaded.config.preprocess, facts=facts or {})


PEERS: dict[str, tuple[Maker, tuple[str, ...]]] = {  # by name: what runs it, and the methods that it gives
    "nncf": (by_nncf, ("nncf",)),
    "onnxruntime": (by_quantize_static, ("onnxruntime int8",)),
    **{
        f"torch-pruning {share}": (
            functools.partial(by_torch_pruning, share=share),
            (f"torch-pruning {share}", f"torch-pruning {share} int8"),
        )
        for share in SHARES
    },
    **{
        f"fasterai {share}": (functools.partial(by_fasterai, share=share), (f"fasterai {share} int8",))
        for share in SHARES
    },
}
