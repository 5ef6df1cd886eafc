"""`cluster`: from one model directory to one whose layers have few different weights."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from compress.clustering.cluster import LADDER, Allotted, check_bits, share_weights, values_for_bits
from compress.clustering.settings import Cluster
from compress.clustering.shared import different_values, shareable
from compress.deployment.coded import check_codable, encode
from compress.recovery.masks import check_zeros, density, nonzeros
from compress.recovery.mean_loss import few_of, mean_loss
from compress.recovery.recipe import recovery_recipe
from compress.recovery.teacher import taught_by
from compress.sparsity.dead import remove_dead_units
from compress.sparsity.lineage import is_sparse, pattern_of
from compress.sparsity.order import in_order_of_weights
from compress.step import Made, Start, Work, load_editable, run_step
from compress.verbs import CLUSTER
from transfer.data.fitted_data import open_for
from transfer.data.parts import Pixels, read_pixels
from transfer.result import ModelResult
from transfer.training.finetune import TrainingData
from transfer.training.recipe import Recipe
from zoo.call import Call, takes
from zoo.errors import SlimzooError
from zoo.files.model_directory import LoadedModel
from zoo.files.rehearsal import rehearsal
from zoo.progress import Progress

ADVICE = "more --bits, or more --epochs"


@dataclass(frozen=True, kw_only=True)
class ClusteredStep(ModelResult):
    def lines(self) -> list[str]:
        after, before = (self.record["metrics"][when] for when in ("after", "before"))
        times = before["size_bytes"] / after["coded_bytes"]
        source = self.record["arguments"]["directory"]
        return [
            *super().lines(),
            f"{self.name}: " + ", ".join(f"{name} {count} values" for name, count in self.record["values"].items()),
            f"coded it takes {after['coded_bytes']:,} bytes, {times:.1f} times fewer than {source}'s weights",
        ]

    def next(self) -> list[list[str | Path]]:
        return [["slimzoo", "export", self.name, "--coded"]]


@takes(CLUSTER)
def cluster(directory: str | Path | LoadedModel, settings: Cluster, call: Call) -> ClusteredStep:
    """Let each layer's weights share a few values, more where it is sensitive, and train the values.

    Zeros stay zeros. Of a model that `sparsify` made, channels that no weight feeds or reads go whole first, and the
    others are put in the order of their weights, which a coder makes use of. What sharing saves shows in the coded file
    (`export --coded`), whose bytes are recorded; the directory is about as large as before.

    Args:
        directory: a model directory, or a model in memory.
        settings: see `Cluster`.
        call: `data` are those of the fit.

    Raises:
        UsageError: too few bits; data of other classes; an int8 model.
        SlimzooError: the sharing or zeros were lost, or the coded file is no smaller than the weights.
    """
    run = call.run()
    loaded = load_editable(directory, "cluster")
    network = _without_dead_units(loaded)
    check_bits(network, settings.bits)

    def rehearse_coded(folder: Path, network: nn.Module) -> None:
        with rehearsal(folder, "the coded file"):
            check_codable(network, loaded.config)

    def work(at: Work) -> Made:
        assert at.pixels is not None
        assert at.start.source is not None
        network = _without_dead_units(at.start.loaded)
        if at.judged is None:
            allotted = _allotted(network, loaded, at.pixels, settings.bits, at.progress, confirm=False)
            values = {name: given.values for name, given in allotted.items()}
        else:
            values = {name: at.judged.decided.get(name, LADDER[0]) for name in shareable(network)}
        recipe = recovery_recipe(at.config, mirror=at.start.source.mirror, epochs=settings.epochs, seed=settings.seed)
        shared = share_weights(
            network,
            TrainingData(at.pixels.train, at.pixels.val, at.config.preprocess),
            recipe,
            values,
            bit_price=settings.bit_price,
            loss_fn=taught_by(at.model),
            checkpoints=at.checkpoints,
            progress=at.progress,
        )
        check_zeros(shared, nonzeros(network))
        coded = _coded_bytes(shared, at.start.loaded, directory, at.progress)
        after = {"density": density(shared), "coded_bytes": coded}
        return Made(shared, {"density": density(at.model)}, after, _notes(recipe, shared, values), decided=values)

    start = Start(loaded, open_for(loaded.config, call.data), rehearsed=network)
    return run_step(run, start, work, ClusteredStep, advice=ADVICE, rehearse_too=rehearse_coded, progress=call.progress)


@dataclass(frozen=True)
class Explained:
    """How many values each tensor would get, and what that costs."""

    tensors: dict[str, Allotted]

    def lines(self) -> list[str]:
        """A table for people."""
        found = ["  not zero  values      bytes  loss alone   tensor"]
        for name, tensor in self.tensors.items():
            found.append(
                f"{tensor.living:>10,} {tensor.values:>7} {tensor.bits / 8:>10,.0f} {tensor.loss_rise:>+11.4f}   {name}"
            )
        living, bits = (sum(getattr(tensor, key) for tensor in self.tensors.values()) for key in ("living", "bits"))
        return [
            *found,
            f"{bits / living:.2f} bits for each of {living:,} weights, codebooks too; places and entropy coding are "
            "not counted; MACs and milliseconds stay; nothing was written",
        ]

    def document(self) -> dict[str, Any]:
        """Ready for JSON."""
        return {"tensors": {name: vars(tensor) for name, tensor in self.tensors.items()}}


@takes(CLUSTER, writes=False)
def explain(directory: str | Path | LoadedModel, settings: Cluster, call: Call) -> Explained:
    """How many values `cluster` would give each tensor, and what that costs; nothing is written.

    Raises:
        see `cluster`.
    """
    loaded = load_editable(directory, "cluster")
    network = _without_dead_units(loaded)
    check_bits(network, settings.bits)
    pixels = read_pixels(open_for(loaded.config, call.data), loaded.config.preprocess, call.progress)
    return Explained(_allotted(network, loaded, pixels, settings.bits, call.progress, confirm=True))


def _coded_bytes(shared: nn.Module, loaded: LoadedModel, name: object, progress: Progress | None) -> int:
    coded = len(encode(shared, loaded.config, progress))
    plain = sum(tensor.numel() * tensor.element_size() for tensor in loaded.model.state_dict().values())
    if coded >= plain:
        raise SlimzooError(
            f"{name}: coded, its shared weights take {coded:,} bytes, no fewer than the {plain:,} of the weights; "
            "ask for fewer --bits"
        )
    return coded


def _without_dead_units(loaded: LoadedModel) -> nn.Module:
    """Remove the dead units of a sparse model; a pattern N:M, which would lose its runs, stays whole."""
    if not is_sparse(loaded.config.lineage) or pattern_of(loaded.config.lineage) is not None:
        return loaded.model
    size = loaded.config.input_size
    return in_order_of_weights(remove_dead_units(loaded.model, size), size)


def _allotted(
    network: nn.Module, loaded: LoadedModel, pixels: Pixels, bits: float, progress: Progress | None, *, confirm: bool
) -> dict[str, Allotted]:
    """Allot values by the loss on validation images, or on training ones where there are no others."""
    images = few_of(pixels.train if pixels.val is None else pixels.val)
    loss = mean_loss(images, loaded.config.preprocess)
    return values_for_bits(network, bits, loss, confirm=confirm, progress=progress)


def _notes(recipe: Recipe, shared: nn.Module, values: dict[str, int]) -> dict[str, Any]:
    return {"recipe": recipe.to_dict(), "values": _counted(shared, values)}


def _counted(model: nn.Module, values: dict[str, int]) -> dict[str, int]:
    tensors = shareable(model)
    return {name: different_values(tensors[name]) for name in values}
