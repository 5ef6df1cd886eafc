"""`slimzoo prune`: from one model directory to a smaller one."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from compress.dependency.groups import Grouping, find_groups
from compress.pruning.allocate import ALLOCATIONS, Allocation, Scores, check_reachable, narrowed
from compress.pruning.budget import Cost
from compress.pruning.choice import Choice
from compress.pruning.importance import CRITERIA, Importance, Random, Taylor
from compress.pruning.latency import latency_table, measured_ms
from compress.pruning.reach import trial_cut
from compress.pruning.reconstruct import reconstruct_
from compress.pruning.recover import recipe_after_cut
from compress.pruning.recover import recover as train_back
from compress.pruning.sensitivity import Sensitivity
from compress.pruning.shrink import Penalty, Shrink, check_penalty
from compress.pruning.structured import Pruned, accepted, cut_channels, scored
from compress.recovery.distillation import Distillation
from compress.recovery.gradient_batches import gradient_batches
from compress.recovery.masks import attach_masks_, detach_masks_, hold_zeros
from compress.recovery.recipe import recovery_recipe
from compress.sparsity.rank import in_pattern
from compress.sparsity.step import is_sparse, pattern_of
from compress.step import Step, large_loss
from transfer.data.dataset import located, open_for
from transfer.data.parts import Pixels, read_pixels, seen_in
from transfer.evaluation.measure import measure, predictor_of
from transfer.training.finetune import AfterStep, TrainingData, finetune
from transfer.training.recipe import Recipe
from zoo import lineage
from zoo.cost import count_parameters
from zoo.disk import write_json
from zoo.errors import SlimzooError, UsageError
from zoo.files.directory import check_free, new_directory
from zoo.files.manifest import CHECKPOINTS
from zoo.files.model_directory import LoadedModel, ModelConfig, load_model, save_model
from zoo.files.rehearsal import rehearse
from zoo.ghost import copy_of
from zoo.progress import Progress

LATENCY_TRIES = 4  # cuts, each measured, until one is below the milliseconds that were asked for
LATENCY_MARGIN = 0.98
DECIDED = "cut.json"
ADVICE = "more epochs with --recover, or a larger --macs or --latency"


@dataclass(frozen=True)
class PrunedStep(Step):
    pruned: Pruned  # what the last round cut


def prune(
    directory: str | Path,
    *,
    data: str | Path | None = None,
    out: str | Path,
    macs: float | None = None,
    latency: float | None = None,
    recover: int = 8,
    criterion: str | None = None,
    allocation: str | None = None,
    rounds: int = 1,
    sparse_epochs: int = 0,
    penalty: Penalty = "group-lasso",
    round_to: int = 8,
    floor: float = 0.1,
    normalized: bool = False,
    threads: int | None = None,
    temperature: float = Distillation.temperature,
    weight: float = Distillation.weight,
    features: float = 0.0,
    patience: int = 0,
    seed: int = 0,
    overwrite: bool = False,
    resume: bool = False,
    progress: Progress | None = None,
    tell: Callable[[str], None] = lambda line: None,
) -> PrunedStep:
    """Cut channels, measure BatchNorm afresh, train again for `recover` epochs, and write `out`.

    Recovery learns from the labels and from what the unpruned model answers.

    Args:
        directory: a model directory, or, without `data` and with recover=0, "timm:NAME" or "torchvision:NAME".
        data: the data of the fit; needed to train and for accuracies.
        macs, latency, criterion, allocation, rounds, round_to, floor, normalized, threads: what is cut, see `Choice`;
            half of the MACs by default.
        recover: epochs after the cut, of all rounds together.
        sparse_epochs: before the cut, in which a `penalty` draws channels to zero (compress/pruning/shrink.py).
        temperature, weight, features: what recovery learns from the unpruned model, see `Distillation`.
        patience: see `Recipe`. By default recovery goes on to its end, where its rate is lowest.
        tell: told what was left whole and what the preflight of recovery found.

    Raises:
        UsageError: a budget that cannot be met or that the model meets already; data of other classes; an int8 model;
            a model of N:M sparsity, whose pattern the cut breaks.
        SlimzooError: the cut had no effect, or the model does not survive it.
    """
    out = Path(out)
    choice = Choice(
        macs=macs, latency=latency, criterion=criterion, allocation=allocation, rounds=rounds, round_to=round_to,
        floor=floor, normalized=normalized, threads=threads,
    )  # fmt: skip
    how = Distillation(temperature=temperature, weight=weight, features=features)
    check_free(out, overwrite=overwrite, resume=resume)
    _check(choice, data, sparse_epochs, penalty, recover, patience, seed)
    arguments = {
        "directory": located(directory), "data": located(data), "out": str(out), "recover": recover, **vars(choice),
        "sparse_epochs": sparse_epochs, "penalty": penalty, **vars(how), "patience": patience, "seed": seed,
    }  # fmt: skip
    began = time.monotonic()
    loaded = load_model(directory)
    if progress is not None:
        progress("pruning", 0, 1, "")
    trial = trial_of(loaded, choice, grouping_of(loaded.model, loaded.config, choice), measures=not resume)
    source = None if data is None else open_for(loaded.config, data)
    notes: dict[str, Any] = {}
    record = partial(
        lineage.step, "prune", arguments, seed=seed, data=None if source is None else source.record()
    )  # fmt: skip
    with new_directory(out, run={"verb": "prune", "arguments": arguments}, overwrite=overwrite, resume=resume) as work:
        rehearse(work, trial.model, loaded.config, record(seconds=0.0))
        pixels = None if source is None else read_pixels(source, loaded.config.preprocess, progress)
        cutter = Cutter(loaded, pixels, choice, seed=seed, progress=progress)
        before: dict[str, Any] = {"params": count_parameters(loaded.model)}
        if pixels is not None:
            before = measure(predictor_of(loaded.model, loaded.config), loaded.model, loaded.config, pixels, progress)
        network = loaded.model
        if sparse_epochs and pixels is not None and source is not None:
            recipe = recovery_recipe(loaded.config, mirror=source.mirror, epochs=sparse_epochs, seed=seed)
            shrink = Shrink(network, cutter.grouping_of(network), penalty, steps=recipe.steps(len(pixels.train)))
            start, sparse = copy_of(network), is_sparse(loaded.config.lineage)
            if sparse:
                attach_masks_(start)
            network = finetune(
                start, TrainingData(pixels.train, pixels.val, loaded.config.preprocess), recipe,
                after_step=_both(shrink, hold_zeros) if sparse else shrink, checkpoints=work / CHECKPOINTS / "sparse",
                progress=progress, title="sparse training",
            ).model  # fmt: skip
            detach_masks_(network)
        whole_macs = None
        told: set[str] = set()
        for number in range(1, choice.rounds + 1):
            stage = work / CHECKPOINTS / f"round-{number}"
            pruned = cutter.cut(network, number, decided=stage / DECIDED)
            if whole_macs is None:
                whole_macs = pruned.macs_before
                _check_pattern(loaded, pruned.model)
            for line in pruned.notes:
                if line not in told:
                    told.add(line)
                    tell(line)
            uncut, network = network, pruned.model
            if pixels is None or source is None:
                continue
            reconstruct_(
                network, uncut, pruned.cuts, pixels.train, loaded.config.preprocess,
                weights=not is_sparse(loaded.config.lineage), seed=seed,
            )  # fmt: skip
            if epochs := _epochs(recover, number, choice.rounds):
                recipe = recipe_after_cut(loaded.config, mirror=source.mirror, epochs=epochs, seed=seed)
                network, notes = train_back(
                    network, loaded, pixels, replace(recipe, patience=patience), how=how,
                    sparse=is_sparse(loaded.config.lineage), progress=progress, checkpoints=stage, tell=tell,
                )  # fmt: skip
        before["macs"] = whole_macs
        after: dict[str, Any] = {"params": count_parameters(network), "macs": pruned.macs_after}
        if pixels is not None:
            after = measure(predictor_of(network, loaded.config), network, loaded.config, pixels, progress)
        done = record(
            seconds=time.monotonic() - began, before=before, after=after, whole=pruned.whole, **notes, **cutter.notes,
            large_loss=large_loss(before, after, ADVICE),
        )  # fmt: skip
        seen = None if source is None or pixels is None else seen_in(source, pixels)
        config = save_model(work, network, loaded.config.with_step(done, seen))
    return PrunedStep(out, config, done, pruned)


def grouping_of(network: nn.Module, config: ModelConfig, choice: Choice) -> Grouping:
    return find_groups(network, torch.empty(1, *config.input_size, device="meta"), normalized=choice.normalized)


def trial_of(loaded: LoadedModel, choice: Choice, grouping: Grouping, *, measures: bool = True) -> Pruned:
    """What shapes decide of the choice, before any image is read; see compress/pruning/reach.py.

    Args:
        measures: whether a latency is measured; a run that is resumed has done so.

    Raises:
        UsageError: a budget that no cut reaches or that the model meets; a pattern that the cut breaks.
    """
    trial = trial_cut(
        loaded.model, loaded.config.input_size, grouping, macs=choice.macs, latency=choice.latency, measures=measures,
        rounds=choice.rounds, round_to=choice.round_to, floor=choice.floor, threads=choice.threads,
    )  # fmt: skip
    _check_pattern(loaded, trial.model)
    return trial


def _both(first: AfterStep, second: AfterStep) -> AfterStep:
    def after_step(model: nn.Module, step: int) -> None:
        first(model, step)
        second(model, step)

    return after_step


def _check(
    choice: Choice, data: str | Path | None, sparse_epochs: int, penalty: str, recover: int, patience: int, seed: int
) -> None:
    check_penalty(penalty)
    for epochs in (recover, sparse_epochs):
        Recipe(epochs=epochs, patience=patience, seed=seed)
    if choice.macs == 1:
        raise UsageError("100% of the MACs keeps every channel: nothing to cut; ask for less")
    choice.check_images(data is not None)
    if choice.threads is not None and choice.latency is None:
        raise UsageError(f"threads={choice.threads} are for measuring a latency: name one, or leave them out")
    if data is None and recover:
        raise UsageError("recovery needs images: name the model's with --data, or skip it with --recover 0")
    if data is None and sparse_epochs:
        raise UsageError("sparse training needs images: name the model's with --data")
    if recover and recover < choice.rounds:
        raise UsageError(
            f"{choice.rounds} rounds share {recover} epochs of recovery: wanted at least one for each, --recover "
            f"{choice.rounds}"
        )


def _check_pattern(loaded: LoadedModel, smaller: nn.Module) -> None:
    if (pattern := pattern_of(loaded.config.lineage)) is None:
        return
    broken = in_pattern(loaded.model, pattern.n, pattern.m) - in_pattern(smaller, pattern.n, pattern.m)
    if broken:
        raise UsageError(
            f"the model is {pattern.n}:{pattern.m} sparse, and the cut breaks its runs of {pattern.m} in "
            f"{min(broken)}: prune first, then `slimzoo sparsify --pattern {pattern.n}:{pattern.m}`"
        )


def _epochs(recover: int, number: int, rounds: int) -> int:
    """Half of the epochs are for the last round, the others share the rest."""
    early = max(1, recover // (2 * (rounds - 1))) if recover and rounds > 1 else 0
    return recover - early * (rounds - 1) if number == rounds else early


class Cutter:
    """Finds what to cut of a model, and how much of it, by a `Choice`.

    Attributes:
        notes: of the last cut, for the lineage: what was predicted and measured of a latency.
    """

    def __init__(
        self,
        loaded: LoadedModel,
        pixels: Pixels | None,
        choice: Choice,
        *,
        seed: int = 0,
        progress: Progress | None = None,
    ) -> None:
        choice.check_images(pixels is not None)
        self.config, self.pixels, self.choice, self.seed, self.progress = loaded.config, pixels, choice, seed, progress
        self.notes: dict[str, Any] = {}
        self._whole: float | None = None  # what the model cost before the first cut

    def grouping_of(self, network: nn.Module) -> Grouping:
        return grouping_of(network, self.config, self.choice)

    def cut(self, network: nn.Module, number: int = 1, *, decided: Path | None = None) -> Pruned:
        """The cut of that round, of as many as the choice has; each keeps the same share of what the last left.

        Args:
            decided: the file where the decision is kept, and read again: a run that is resumed must not measure anew.
        """
        grouping = self.grouping_of(network)
        scores = scored(network, grouping, self._importance(network))
        if decided is not None and decided.exists():
            kept = json.loads(decided.read_text(encoding="utf-8"))
            self._whole, self.notes = kept["whole"], kept["notes"]
            keeps = [np.array(keep, dtype=np.intp) for keep in kept["keeps"]]
            scores = [s for s, g in zip(scores, grouping.groups, strict=True) if g.name not in kept["unequal"]]
            grouping = grouping.without(kept["unequal"])
            return cut_channels(network, self.config.input_size, grouping, keeps, scores)
        done = number / self.choice.rounds
        by = self._cut_to_macs if self.choice.latency is None else self._cut_to_latency
        pruned = accepted(lambda grouping, scores: by(network, grouping, scores, done), grouping, scores)
        unequal = {name: why for name, why in pruned.whole.items() if name not in grouping.whole}
        if decided is not None:
            decided.parent.mkdir(parents=True, exist_ok=True)
            keeps_ = [cut.keep.tolist() for cut in pruned.cuts]
            write_json(decided, {"whole": self._whole, "notes": self.notes, "unequal": unequal, "keeps": keeps_})
        return pruned

    def _cut_to_macs(self, network: nn.Module, grouping: Grouping, scores: Scores, done: float) -> Pruned:
        choice = self.choice
        cost = Cost.macs(grouping)
        wanted = 0.5 if choice.macs is None else choice.macs
        if self._whole is None:
            self._whole = cost.total
            self._check_reachable(grouping, cost, wanted)
        share = wanted**done * self._whole / cost.total
        keeps = self._allocation(network)(
            grouping, scores, share=min(1.0, share), cost=cost, round_to=choice.round_to, floor=choice.floor
        )
        pruned = cut_channels(network, self.config.input_size, grouping, keeps, scores)
        if pruned.macs_after > share * pruned.macs_before * (1 + 1e-9):
            raise SlimzooError(f"wanted {share:.2%} of the MACs, got {pruned.macs_after:,}: less effect than counted")
        if done == 1 and pruned.macs_after == self._whole:
            raise UsageError(f"{100 * wanted:.4g}% of the MACs keeps every channel: nothing to cut; ask for less")
        return pruned

    def _check_reachable(self, grouping: Grouping, cost: Cost, share: float) -> None:
        """Of all rounds together, before the first: each has its floor."""
        floor = self.choice.floor**self.choice.rounds
        narrowest = narrowed(grouping, np.zeros(len(grouping.groups)), round_to=self.choice.round_to, floor=floor)
        check_reachable(cost, narrowest, share)

    def _cut_to_latency(self, network: nn.Module, grouping: Grouping, scores: Scores, done: float) -> Pruned:
        """Cut by predicted milliseconds, measure, and cut deeper where the prediction was too low."""
        choice, size = self.choice, self.config.input_size
        table = latency_table(
            network, size, grouping, threads=choice.threads, round_to=choice.round_to, floor=choice.floor,
            wanted_ms=choice.latency if self._whole is None else None, progress=self.progress,
        )  # fmt: skip
        assert choice.latency is not None
        if self._whole is None:
            self._whole = float(table.ms[0])
            if self._whole <= choice.latency:
                raise UsageError(
                    f"the model takes {self._whole:.2f} ms here, which is below {choice.latency:g} ms: nothing to cut"
                )
            self._check_reachable(grouping, table.cost, choice.latency / table.cost.total)
        wanted = self._whole * (choice.latency / self._whole) ** done
        target, least = LATENCY_MARGIN * wanted, float("inf")
        narrowest = table.cost.after(
            narrowed(grouping, np.zeros(len(grouping.groups)), round_to=choice.round_to, floor=choice.floor)
        )
        for _ in range(LATENCY_TRIES):
            keeps = self._allocation(network)(
                grouping, scores, share=min(1.0, max(target, narrowest * (1 + 1e-9)) / table.cost.total),
                cost=table.cost, round_to=choice.round_to, floor=choice.floor,
            )  # fmt: skip
            pruned = cut_channels(network, size, grouping, keeps, scores)
            predicted = table.cost.after(keeps)
            whole, found = measured_ms([network, pruned.model], size, threads=choice.threads)
            ms = found / whole * float(table.ms[0])  # beside the whole one, which may run faster now than it did then
            self.notes = {
                "latency": {
                    "runtime": "onnxruntime", "wanted_ms": wanted, "predicted_ms": predicted, "measured_ms": ms,
                    "before_ms": self._whole, "table_error": table.error,
                }
            }  # fmt: skip
            if ms <= wanted:
                return pruned
            least = min(least, ms)
            target *= LATENCY_MARGIN * wanted / ms
        raise SlimzooError(
            f"wanted {wanted:.4g} ms, and {LATENCY_TRIES} cuts took {least:.4g} ms at best: ask for more"
        )

    @property
    def _criterion(self) -> str:
        return self.choice.criterion or ("l2" if self.pixels is None else "taylor")

    def _importance(self, network: nn.Module) -> Importance:
        name = self._criterion
        if name == "taylor":
            assert self.pixels is not None
            return Taylor(network, gradient_batches(self.pixels.train, self.config.preprocess, self.seed))
        if name == "random":
            return Random(self.seed)
        return CRITERIA[name]

    def _allocation(self, network: nn.Module) -> Allocation:
        name = self.choice.allocation or ("cost" if self._criterion == "taylor" else "isomorphic")
        if name == "sensitivity":
            assert self.pixels is not None
            images = self.pixels.train if self.pixels.val is None else self.pixels.val
            return Sensitivity(network, images, self.config.preprocess, progress=self.progress)
        return ALLOCATIONS[name]
