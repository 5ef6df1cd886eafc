"""Weights that are NaN or infinite: told by the tensor's name, before anything is done with them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from zoo.errors import UsageError

if TYPE_CHECKING:
    from torch import nn

STATISTICS = ("running_mean", "running_var")  # buffers that act as weights do; a mask of attention may hold -inf


def check_finite(model: nn.Module, where: str | Path) -> None:
    """Refuse a model one of whose tensors holds NaN, or one of whose weights is infinite.

    Args:
        where: the tensors came from, as an error calls it.

    Raises:
        UsageError: a tensor is named.
    """
    weights = {name for name, _ in model.named_parameters()}
    for name, tensor in model.state_dict().items():
        if tensor.is_floating_point():
            acts = name in weights or name.rpartition(".")[2] in STATISTICS
            check_values(tensor.detach().float().cpu().numpy(), name, where, infinite=not acts)


def check_values(values: NDArray[Any], name: str, where: str | Path, *, infinite: bool = False) -> None:
    """Args:
        infinite: whether such values are meant, as in a mask.

    Raises:
        UsageError: there is a NaN, or an infinite value.
    """
    if np.isfinite(values).all():
        return
    nan, beyond = int(np.isnan(values).sum()), 0 if infinite else int(np.isinf(values).sum())
    if nan or beyond:
        kind = "NaN" if nan else "infinite"
        raise UsageError(
            f"{where}: {nan or beyond:,} of the {values.size:,} values of {name!r} are {kind}: its training diverged, "
            "or the file is damaged; use weights from before that"
        )
