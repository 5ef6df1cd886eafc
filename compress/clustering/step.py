"""`slimzoo cluster`: from one model directory to one whose layers have few different weights."""

from __future__ import annotations

import time
from functools import partial
from pathlib import Path

from torch import nn

from compress.clustering.cluster import Allotted, check_bits, share_weights, values_for_bits
from compress.clustering.shared import different_values, shareable
from compress.deployment.coded import check_codable, encode
from compress.recovery.masks import check_zeros, density, nonzeros
from compress.recovery.mean_loss import few_of, mean_loss
from compress.recovery.recipe import recovery_recipe
from compress.recovery.teacher import taught_by
from compress.sparsity.dead import remove_dead_units
from compress.sparsity.order import in_order_of_weights
from compress.sparsity.step import is_sparse, pattern_of
from compress.step import Step, large_loss
from transfer.data.dataset import located, open_for
from transfer.data.parts import Pixels, read_pixels, seen_in
from transfer.evaluation.measure import measure, predictor_of
from transfer.training.finetune import TrainingData
from transfer.training.recipe import Recipe
from zoo import lineage
from zoo.errors import SlimzooError, UsageError
from zoo.files.directory import check_free, new_directory
from zoo.files.manifest import CHECKPOINTS
from zoo.files.model_directory import LoadedModel, load_model, save_model
from zoo.files.rehearsal import rehearsal, rehearse
from zoo.progress import Progress

ADVICE = "more --bits, or more --epochs"


def cluster(
    directory: str | Path,
    *,
    data: str | Path,
    out: str | Path,
    bits: float = 4.0,
    bit_price: float = 0.0,
    epochs: int = 4,
    seed: int = 0,
    overwrite: bool = False,
    resume: bool = False,
    progress: Progress | None = None,
) -> Step:
    """`slimzoo cluster`: let each layer's weights share a few values, more where it is sensitive, and train the values.

    Zeros stay zeros. Of a model that `sparsify` made, channels that no weight feeds or reads go whole first, and the
    others are put in the order of their weights, which a coder makes use of. What sharing saves shows in the coded file
    (`export --coded`), whose bytes are recorded; the directory is about as large as before.

    Args:
        directory: a model directory.
        data: the data of the fit.
        bits: for each weight that is not zero, on average: 4 are 16 values for most tensors. Codebooks count too.
        bit_price: how much further off a weight's value may be for each bit that a more frequent one saves in the coded
            file, in units of the tensor's mean squared weight (see `share_`); 0.006 took a tenth off LeNets.
        epochs: of the one training loop, in which the shared values are trained.

    Raises:
        UsageError: too few bits; data of other classes; an int8 model.
        SlimzooError: the sharing or zeros were lost, or the coded file is no smaller than the weights.
    """
    out = Path(out)
    check_free(out, overwrite=overwrite, resume=resume)
    Recipe(epochs=epochs, seed=seed)
    if not (0 < bits < float("inf") and 0 <= bit_price < float("inf")):
        raise UsageError(f"bits={bits:g} and bit_price={bit_price:g} must be above 0 and at least 0, and finite")
    arguments = {
        "directory": located(directory), "data": located(data), "out": str(out), "bits": bits,
        "bit_price": bit_price, "epochs": epochs, "seed": seed,
    }  # fmt: skip
    began = time.monotonic()
    loaded = load_model(directory)
    network = _without_dead_units(loaded)
    check_bits(network, bits)
    source = open_for(loaded.config, data)
    record = partial(lineage.step, "cluster", arguments, seed=seed, data=source.record())
    run = {"verb": "cluster", "arguments": arguments}
    with new_directory(out, run=run, overwrite=overwrite, resume=resume) as work:
        rehearse(work, network, loaded.config, record(seconds=0.0))
        with rehearsal(work, "the coded file"):
            check_codable(network, loaded.config)
        pixels = read_pixels(source, loaded.config.preprocess, progress)
        before = measure(predictor_of(loaded.model, loaded.config), loaded.model, loaded.config, pixels, progress)
        values = {
            name: given.values
            for name, given in _allotted(network, loaded, pixels, bits, progress, confirm=False).items()
        }
        recipe = recovery_recipe(loaded.config, mirror=source.mirror, epochs=epochs, seed=seed)
        shared = share_weights(
            network, TrainingData(pixels.train, pixels.val, loaded.config.preprocess), recipe, values,
            bit_price=bit_price, loss_fn=taught_by(loaded.model), checkpoints=work / CHECKPOINTS, progress=progress,
        )  # fmt: skip
        check_zeros(shared, nonzeros(network))
        after = measure(predictor_of(shared, loaded.config), shared, loaded.config, pixels, progress)
        before["density"], after["density"] = density(loaded.model), density(shared)
        after["coded_bytes"] = len(encode(shared, loaded.config, progress))
        if after["coded_bytes"] >= before["size_bytes"]:
            raise SlimzooError(
                f"{directory}: coded, its shared weights take {after['coded_bytes']:,} bytes, no fewer than the "
                f"{before['size_bytes']:,} of the weights; ask for fewer --bits"
            )
        done = record(
            seconds=time.monotonic() - began, before=before, after=after, recipe=recipe.to_dict(),
            values=_counted(shared, values), large_loss=large_loss(before, after, ADVICE),
        )  # fmt: skip
        config = save_model(work, shared, loaded.config.with_step(done, seen_in(source, pixels)))
    return Step(out, config, done)


def explain(
    directory: str | Path, *, data: str | Path, bits: float = 4.0, progress: Progress | None = None
) -> dict[str, Allotted]:
    """`slimzoo cluster --explain`: how many values each tensor would get, and what that costs; nothing is written.

    Raises:
        see `cluster`.
    """
    loaded = load_model(directory)
    network = _without_dead_units(loaded)
    check_bits(network, bits)
    source = open_for(loaded.config, data)
    pixels = read_pixels(source, loaded.config.preprocess, progress)
    return _allotted(network, loaded, pixels, bits, progress, confirm=True)


def _without_dead_units(loaded: LoadedModel) -> nn.Module:
    """Of a sparse model; a pattern N:M would lose its runs."""
    if not is_sparse(loaded.config.lineage) or pattern_of(loaded.config.lineage) is not None:
        return loaded.model
    size = loaded.config.input_size
    return in_order_of_weights(remove_dead_units(loaded.model, size), size)


def _allotted(
    network: nn.Module, loaded: LoadedModel, pixels: Pixels, bits: float, progress: Progress | None, *, confirm: bool
) -> dict[str, Allotted]:
    """By the loss on validation images, or on training ones where there are no others."""
    images = few_of(pixels.train if pixels.val is None else pixels.val)
    loss = mean_loss(images, loaded.config.preprocess)
    return values_for_bits(network, bits, loss, confirm=confirm, progress=progress)


def _counted(model: nn.Module, values: dict[str, int]) -> dict[str, int]:
    tensors = shareable(model)
    return {name: different_values(tensors[name]) for name in values}
