"""What is cut of a model, and by what: a choice that is checked before torch is loaded."""

from __future__ import annotations

from dataclasses import dataclass

from zoo.errors import UsageError, did_you_mean

CRITERIA = ("l2", "l1", "bn-scale", "random", "taylor")  # compress/pruning/importance.py
ALLOCATIONS = ("global", "uniform", "isomorphic", "cost", "sensitivity")  # compress/pruning/allocate.py, sensitivity.py


@dataclass(frozen=True, kw_only=True)
class Choice:
    """What is cut.

    Attributes:
        macs: share of the multiply-accumulates to keep, in (0, 1]; one half unless `latency` says otherwise.
        latency: the most milliseconds that one image may take in onnxruntime on this machine.
        criterion: a name in `CRITERIA`, or "taylor", the default where there are images.
        allocation: a name in `ALLOCATIONS` or "sensitivity". By default "cost" for Taylor's scores, which estimate the
            loss; "isomorphic" for the others, which cannot be compared between layers of other shapes. (ResNet-20 on
            digits to 1/2 by L2, not recovered: cost 32%, global 46%, isomorphic 59%, uniform 61%; EfficientNet-Lite0 on
            emoji: 23, 37, 38, 38%.)
        rounds: cuts, each recovered from before the next.
        round_to, floor: see `allocate`; with several rounds each has its floor.
        normalized: also cut widths that a LayerNorm or GroupNorm normalizes over.
        threads: of the latency; one a physical core by default.

    Raises:
        UsageError: a name that is not known, or a value out of its range.
    """

    macs: float | None = None
    latency: float | None = None
    criterion: str | None = None
    allocation: str | None = None
    rounds: int = 1
    round_to: int = 8
    floor: float = 0.1
    normalized: bool = False
    threads: int | None = None

    def __post_init__(self) -> None:
        if self.macs is not None and self.latency is not None:
            raise UsageError("wanted a share of the MACs or a latency, not both: leave one of them out")
        if self.macs is not None and not 0 < self.macs <= 1:
            raise UsageError(f"a share of MACs of {self.macs} must be above 0 and at most 1: 0.5 keeps half")
        if self.latency is not None and not 0 < self.latency < float("inf"):
            raise UsageError(f"a latency of {self.latency:g} ms must be above 0 and finite")
        for name, value, known in (
            ("criterion", self.criterion, CRITERIA),
            ("allocation", self.allocation, ALLOCATIONS),
        ):
            if value is not None and value not in known:
                near = did_you_mean(value, known, "it must be one of " + ", ".join(known))
                raise UsageError(f"unknown {name} {value!r}; {near}")
        if self.rounds < 1 or self.round_to < 1 or not 0 <= self.floor <= 1:
            raise UsageError(
                f"rounds={self.rounds}, round_to={self.round_to} and floor={self.floor} must be at least 1, at least 1 "
                "and in [0, 1]"
            )

    def check_images(self, given: bool) -> None:
        """Refuse a choice that is made by images where there are none.

        Raises:
            UsageError: see there.
        """
        if not given and (self.criterion == "taylor" or self.allocation == "sensitivity"):
            what = "Taylor's criterion" if self.criterion == "taylor" else "allocation by sensitivity"
            raise UsageError(f"{what} needs images: name the model's with --data")
