"""`prune`: from one model directory to a smaller one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from torch import nn

from compress.dependency.group import Grouping
from compress.pruning.blocks import blocks_of
from compress.pruning.cutter import INPUT, Cutter
from compress.pruning.depth import KEEPS
from compress.pruning.input_size import Sizes, grouping_of
from compress.pruning.reach import trial_cut
from compress.pruning.recover import kept_of, recipe_after_cut, recover
from compress.pruning.settings import Choice, Prune
from compress.pruning.shrink import Shrink
from compress.pruning.structured import Pruned
from compress.recovery.masks import attach_masks_, detach_masks_, hold_zeros
from compress.recovery.recipe import recovery_recipe
from compress.recovery.unlabeled import joining
from compress.sparsity.lineage import is_sparse, pattern_of
from compress.sparsity.rank import in_pattern
from compress.step import Made, Start, Work, as_judged, load_editable, run_step
from compress.verbs import PRUNE
from transfer.data.fitted_data import open_for
from transfer.fitting.plan import follow_plan
from transfer.result import ModelResult
from transfer.training.average import averaged
from transfer.training.finetune import AfterStep, TrainingData, finetune
from zoo.blocks import without
from zoo.call import Call, takes
from zoo.cost import count_macs, count_parameters
from zoo.errors import UsageError
from zoo.files.model_directory import LoadedModel
from zoo.ghost import copy_of
from zoo.preprocess import Preprocess

DECIDED = "cut.json"
KEPT, DIVERGED = "kept", "diverged"  # in the notes
FAR = 2  # times what a cut may differ untrained, and is said to be lost
ADVICE = "more epochs with --recover, or a larger --macs or --latency"


@dataclass(frozen=True, kw_only=True)
class PrunedStep(ModelResult):
    """
    Attributes:
        pruned: what the last round cut.
    """

    pruned: Pruned

    def lines(self) -> list[str]:
        found = super().lines()
        if size := self.record.get(INPUT):
            found.append(
                f"its images are of {size['side']} px"
                + ("" if size["side"] == size["before"] else f", the uncut network's of {size['before']}")
            )
        if latency := self.record.get("latency"):
            found.append(
                f"latency: {latency['before_ms']:.2f} -> {latency['measured_ms']:.2f} ms in onnxruntime, "
                f"{latency['predicted_ms']:.2f} predicted"
            )
        if nearer := self.record.get(DIVERGED, {}).get("nearer"):
            found.append(f"the cut was not brought back; by the same scores, untrained: {nearer['said']}")
        before, after = (self.record["metrics"][when] for when in ("before", "after"))
        shares = [after[key] / before[key] for key in ("macs", "params")]
        return [*found, f"{self.name}: {shares[0]:.1%} of the MACs, {shares[1]:.1%} of the parameters"]

    def next(self) -> list[list[str | Path]]:
        given = self.record["arguments"]
        return [
            ["slimzoo", "quantize", self.name, "--data", given["data"] or "DATA", "--out", f"{self.name}-int8"],
            ["slimzoo", "export", self.name],
            ["slimzoo", "bench", given["directory"], self.name],
        ]


@takes(PRUNE)
def prune(directory: str | Path | LoadedModel, settings: Prune, call: Call) -> PrunedStep:
    """Cut channels, measure BatchNorm afresh, train again, and write `out`.

    Args:
        directory: a model directory, or, without `data` and with recover=0, "timm:NAME" or "torchvision:NAME".
        settings: see `Prune` and `Choice`.
        call: `data` are those of the fit, needed to train and for accuracies; it tells what was left whole and what
            the preflight of recovery found.

    Raises:
        UsageError: a budget that cannot be met or that the model meets already; data of other classes; an int8 model;
            a model of N:M sparsity, whose pattern the cut breaks.
        SlimzooError: the cut had no effect, or the model does not survive it.
    """
    run, data = call.run(), call.data
    settings.check(images=data is not None)
    loaded = load_editable(directory, "prune")
    if call.progress is not None:
        call.progress("pruning", 0, 1, "")
    trial = trial_of(loaded, settings, grouping_of(loaded.model, loaded.config, settings), measures=not call.resume)
    start = Start(loaded, None if data is None else open_for(loaded.config, data), rehearsed=trial.model)
    if settings.unlabeled is not None and start.source is not None:
        teacher = as_judged(loaded, start.source)
        more = joining(settings.unlabeled, start.source, teacher, seed=settings.seed, progress=call.progress)
        start = replace(start, more=more)
    rounds = _Rounds(settings, call.tell)
    return run_step(run, start, rounds, PrunedStep, advice=ADVICE, progress=call.progress)


def trial_of(loaded: LoadedModel, choice: Choice, grouping: Grouping, *, measures: bool = True) -> Pruned:
    """What shapes decide of the choice, before any image is read; see compress/pruning/reach.py.

    Args:
        measures: whether a latency is measured; a run that is resumed has done so.

    Raises:
        UsageError: a budget that no cut reaches or that the model meets; a pattern that the cut breaks.
    """
    sizes = Sizes(loaded.config, choice)
    sizes.check(loaded.model)
    model, size = loaded.model, loaded.config.input_size
    if choice.blocks:
        whole, model = grouping.macs, without(model, blocks_of(model, size, choice.blocks)[: choice.blocks])
        grouping = grouping_of(model, loaded.config, choice)
        if choice.macs is not None:
            choice = choice.model_copy(update={"macs": min(1.0, choice.macs * whole / grouping.macs)})
    if choice.size is not None and (sized := sizes.at(model, grouping, choice.size)) is not None:
        if choice.macs is not None:
            left = min(1.0, choice.macs * grouping.macs / sized.cost.total)
            choice = choice.model_copy(update={"macs": left})
        size, grouping = sized.config.input_size, sized.grouping
    trial = trial_cut(model, size, grouping, choice, measures=measures and not choice.blocks)  # they may be others
    _check_pattern(loaded, trial.model)
    return trial


@dataclass(frozen=True)
class _Round:
    """Where it keeps what was decided, in how many epochs the network has learned, and which share of that is kept."""

    stage: Path
    epochs: int
    share: float = 1.0


@dataclass
class _Rounds:
    """The work of `prune`: sparse training if asked for, then cut and recover, round by round."""

    settings: Prune
    tell: Callable[[str], None]
    notes: dict[str, Any] = field(default_factory=dict)
    told: set[str] = field(default_factory=set)

    def __call__(self, work: Work) -> Made:
        settings, loaded = self.settings, work.start.loaded
        mirror = work.start.source is not None and work.start.source.mirror
        cutter = Cutter(loaded, work.pixels, settings, seed=settings.seed, mirror=mirror, progress=work.progress)
        network = loaded.model
        if settings.sparse_epochs and work.pixels is not None:
            network = self._shrunk(work, cutter)
        whole_macs, judged = None, None if work.judged is None else list[_Round](work.judged.decided)
        rounds, at = list[_Round](), None
        for number in range(1, settings.rounds + 1):
            stage = work.checkpoints / f"round-{number}"
            decided = stage if judged is None else judged[number - 1].stage
            pruned = cutter.cut(network, number, decided=decided / DECIDED)
            before = None if judged is None else judged[number - 1]
            if before is not None and before.share:
                follow_plan(stage, decided, epochs=before.epochs)
            if whole_macs is None:
                whole_macs = count_macs(loaded.model, loaded.config.input_size)
                _check_pattern(loaded, pruned.model)
            for line in [*pruned.notes, *cutter.said]:
                if line not in self.told:
                    self.told.add(line)
                    self.tell(line)
            cutter.make_up_(pruned, network)
            at = at or self._at(work, cutter.config.preprocess)
            network, done = self._recovered(at, work.start.loaded, pruned.model, cutter, number, stage, before)
            rounds.append(done)
        costs, after = {"macs": whole_macs}, {"macs": pruned.macs_after}
        if work.pixels is None:
            costs["params"], after["params"] = count_parameters(loaded.model), count_parameters(network)
        notes = {"whole": pruned.whole, **self.notes, **cutter.notes, **self._lost(work, cutter, network, pruned)}
        return Made(network, costs, after, notes, {"pruned": pruned}, decided=rounds, at=at)

    @staticmethod
    def _at(work: Work, preprocess: Preprocess) -> Work:
        """The work on the network that was cut, whose images may be smaller."""
        if preprocess == work.config.preprocess:
            return work
        judged = None if work.judged is None else work.judged.at
        read = None if judged is None or judged.pixels is None else judged.pixels.whole()
        return work.at(preprocess, read)

    def _lost(self, work: Work, cutter: Cutter, network: nn.Module, pruned: Pruned) -> dict[str, Any]:
        """How far the answers still are from the uncut network's, and, where that is far, which cut would be nearer."""
        if work.judged is not None:
            return {key: value for key, value in work.judged.notes.items() if key == DIVERGED}
        settings, held = self.settings, cutter.held_out(work.model)
        if held is None:
            return {}
        found: dict[str, Any] = {
            "nats": round(held.divergence_of(network, cutter.config.preprocess), 6),
            "images": held.images,
        }
        nothing_cut = pruned.macs_after == pruned.macs_before  # of channels: the images are smaller
        share = None if settings.rounds > 1 or settings.sparse_epochs or nothing_cut else settings.macs
        if share is not None and found["nats"] > FAR * KEEPS:
            nearer = cutter.shallower(work.model, share, held)
            found["nearer"] = None if nearer is None else {**nearer.note(), "said": str(nearer)}
        return {DIVERGED: found}

    def _shrunk(self, work: Work, cutter: Cutter) -> nn.Module:
        """Trained while a penalty draws unneeded channels to zero."""
        assert work.pixels is not None
        assert work.start.source is not None
        settings, data = self.settings, _training_data(work)
        recipe = recovery_recipe(
            work.config, mirror=work.start.source.mirror, epochs=settings.sparse_epochs, seed=settings.seed
        )
        grouping = cutter.grouping_of(work.model)
        shrink = Shrink(work.model, grouping, settings.penalty, steps=recipe.steps(len(data.train)))
        start, sparse = copy_of(work.model), is_sparse(work.config.lineage)
        if sparse:
            attach_masks_(start)
        network = finetune(
            start,
            data,
            recipe,
            after_step=_both(shrink, hold_zeros) if sparse else shrink,
            checkpoints=work.checkpoints / "sparse",
            progress=work.progress,
            title="sparse training",
        ).model
        detach_masks_(network)
        return network

    def _recovered(
        self,
        work: Work,
        uncut: LoadedModel,
        network: nn.Module,
        cutter: Cutter,
        number: int,
        stage: Path,
        judged: _Round | None,
    ) -> tuple[nn.Module, _Round]:
        """The network that was cut and made up for it, trained again as far as that brings its answers back.

        Args:
            judged: what its judge has decided.
        """
        pixels, source, settings = work.pixels, work.start.source, self.settings
        epochs = _epochs(settings.recover, number, settings.rounds)
        if pixels is None or source is None or not epochs or (judged is not None and not judged.share):
            return network, _Round(stage, 0, 0.0)
        recipe = recipe_after_cut(
            work.config, images=len(pixels.train), mirror=source.mirror, epochs=epochs, seed=settings.seed
        )
        trained, found = recover(
            network,
            uncut,
            TrainingData(pixels.train, pixels.val, work.config.preprocess),
            replace(recipe, patience=settings.patience),
            how=settings,
            sparse=is_sparse(work.config.lineage),
            checkpoints=stage,
            progress=work.progress,
            tell=self.tell,
        )
        self.notes |= found
        held = cutter.held_out(uncut.model) if cutter.few and judged is None else None
        if held is not None:
            kept = kept_of(network, trained.model, held, work.config.preprocess)
            self.notes[KEPT] = kept.note()
            self.tell(str(kept))
            share = kept.share
        else:
            share = 1.0 if judged is None else judged.share
        made = trained.model if share == 1 else averaged(network, trained.model, share) if share else network
        return made, _Round(stage, trained.epochs, share)


def _training_data(work: Work) -> TrainingData:
    assert work.pixels is not None
    return TrainingData(work.pixels.train, work.pixels.val, work.config.preprocess)


def _both(first: AfterStep, second: AfterStep) -> AfterStep:
    def after_step(model: nn.Module, step: int) -> None:
        first(model, step)
        second(model, step)

    return after_step


def _check_pattern(loaded: LoadedModel, smaller: nn.Module) -> None:
    if (pattern := pattern_of(loaded.config.lineage)) is None:
        return
    kept = set(dict(smaller.named_modules()))  # of a block that is left out nothing is broken
    broken = in_pattern(loaded.model, pattern.n, pattern.m) & kept - in_pattern(smaller, pattern.n, pattern.m)
    if broken:
        raise UsageError(
            f"the model is {pattern.n}:{pattern.m} sparse, and the cut breaks its runs of {pattern.m} in "
            f"{min(broken)}: prune first, then `slimzoo sparsify --pattern {pattern.n}:{pattern.m}`"
        )


def _epochs(recover: int, number: int, rounds: int) -> int:
    """Half of the epochs are for the last round, the others share the rest."""
    early = max(1, recover // (2 * (rounds - 1))) if recover and rounds > 1 else 0
    return recover - early * (rounds - 1) if number == rounds else early
