"""`prune --explain`: what the first cut would take from each group, what that costs and saves; nothing is written."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from compress.dependency.group import describe_whole
from compress.pruning.budget import Cost
from compress.pruning.cutter import Cutter
from compress.pruning.input_size import grouping_of
from compress.pruning.latency import latency_table
from compress.pruning.settings import Prune
from compress.pruning.step import trial_of
from compress.pruning.structured import Pruned
from compress.step import as_judged, load_editable
from compress.verbs import PRUNE
from transfer.data.fitted_data import open_for
from transfer.data.parts import read_pixels
from zoo.call import Call, takes
from zoo.files.model_directory import LoadedModel


@dataclass(frozen=True)
class Explained:
    """The first round's cut, group by group.

    Attributes:
        macs_saved, ms_saved: of each cut alone.
        before_ms, after_ms: predicted for onnxruntime.
        when: which cut is shown, where it is not the only one.
    """

    pruned: Pruned
    macs_saved: list[float]
    ms_saved: list[float]
    before_ms: float
    after_ms: float
    when: str

    def lines(self) -> list[str]:
        """A table for people."""
        found = [f"shown is {self.when}"] if self.when else []
        found.append(" width    kept  importance      MACs        ms   group (each cut alone)")
        pruned = self.pruned
        for cut, macs, ms in zip(pruned.cuts, self.macs_saved, self.ms_saved, strict=True):
            found.append(
                f"{cut.group.width:>6} -> {len(cut.keep):<5} {-cut.lost:>9.1%} {-macs / pruned.macs_before:>9.1%} "
                f"{-ms:>9.3f}   {cut.group}"
            )
        return [
            *found,
            f"MACs {pruned.macs_before:,} -> {pruned.macs_after:,}; about {self.before_ms:.2f} -> {self.after_ms:.2f} "
            "ms in onnxruntime; nothing was written",
        ]

    def document(self) -> dict[str, Any]:
        """Ready for JSON."""
        pruned = self.pruned
        rows = [
            {
                "group": cut.group.name,
                "kind": cut.group.kind,
                "width": cut.group.width,
                "keep": len(cut.keep),
                "importance_lost": cut.lost,
                "macs_saved": macs,
                "ms_saved": ms,
            }
            for cut, macs, ms in zip(pruned.cuts, self.macs_saved, self.ms_saved, strict=True)
        ]
        return {
            "macs_before": pruned.macs_before,
            "macs_after": pruned.macs_after,
            "ms_before": self.before_ms,
            "ms_after": self.after_ms,
            "cuts": rows,
            "whole": pruned.whole,
        }


@takes(PRUNE, writes=False)
def explain(directory: str | Path | LoadedModel, settings: Prune, call: Call) -> Explained:
    """What `prune` would cut first.

    Args:
        call: it tells at once what stays whole and why, since that is why a budget cannot be met.

    Raises:
        see `prune`.
    """
    settings.check_images(call.data is not None)
    loaded = load_editable(directory, "prune")
    grouping = grouping_of(loaded.model, loaded.config, settings)
    told = describe_whole(grouping.whole)
    for line in told:
        call.tell(line)
    trial_of(loaded, settings, grouping)
    pixels, mirror = None, False
    if call.data is not None:
        source = open_for(loaded.config, call.data)
        pixels, mirror = read_pixels(source, loaded.config.preprocess, call.progress), source.mirror
        loaded = as_judged(loaded, source)  # by which `prune` decides
    cutter = Cutter(loaded, pixels, settings, seed=settings.seed, mirror=mirror, progress=call.progress)
    pruned = cutter.cut(loaded.model)
    for line in [*pruned.notes, *cutter.said]:
        if line not in told:
            call.tell(line)
    table = latency_table(
        cutter.shortened(loaded.model),
        loaded.config.input_size,
        pruned.grouping,
        threads=settings.threads,
        round_to=settings.round_to,
        floor=settings.floor,
        progress=call.progress,
    )
    keeps = [cut.keep for cut in pruned.cuts]
    return Explained(
        pruned=pruned,
        macs_saved=Cost.macs(pruned.grouping).saved_alone(keeps),
        ms_saved=table.cost.saved_alone(keeps),
        before_ms=float(table.ms[0]),
        after_ms=table.cost.after(keeps),
        when=_when(settings),
    )


def _when(settings: Prune) -> str:
    said = f"the first of {settings.rounds} rounds" if settings.rounds > 1 else ""
    if settings.blocks:
        said = "what goes of the network without the blocks"
    if settings.sparse_epochs:
        said += " as the model is before sparse training" if said else "before sparse training"
    return said
