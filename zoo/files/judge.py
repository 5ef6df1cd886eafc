"""The judge of a model: its twin that was not trained on the validation images, by which later steps choose.

Of a small dataset what is written is trained on every image (`transfer.data.sources.Data.refit`), and no image is left
that could say how good it is. So a step does its work twice: on the judge, whose answers to the held-out images decide
and are reported, and on the model, as was decided.

DIR/judge.safetensors   the judge's tensors that are not, bit for bit, the model's: of a probe the classifier alone
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zoo.disk import write_tensors

if TYPE_CHECKING:
    from torch import Tensor, nn

JUDGE = "judge.safetensors"


def write_judge(directory: Path, judge: nn.Module, model: nn.Module, surgery: list[dict[str, Any]]) -> None:
    """Write a judge beside its model.

    Args:
        surgery: the judge's own, see zoo/files/surgery.py.
    """
    own, theirs = judge.state_dict(), model.state_dict()
    differing = {name: tensor for name, tensor in own.items() if name not in theirs or not _same(tensor, theirs[name])}
    said = {"surgery": json.dumps(surgery), "absent": json.dumps(sorted(theirs.keys() - own.keys()))}
    write_tensors(directory / JUDGE, differing, said)


def read_judge(directory: Path, tensors: dict[str, Tensor]) -> tuple[dict[str, Tensor], list[dict[str, Any]]] | None:
    """All tensors of the judge, and its surgery; None where the model has none.

    Args:
        tensors: the model's.
    """
    from safetensors import safe_open

    if not (directory / JUDGE).is_file():
        return None
    with safe_open(directory / JUDGE, framework="pt") as file:
        said = file.metadata()
        own = {name: file.get_tensor(name) for name in file.keys()}
    kept = {name: tensor for name, tensor in tensors.items() if name not in set(json.loads(said["absent"]))}
    return {**kept, **own}, json.loads(said["surgery"])


def _same(one: Tensor, other: Tensor) -> bool:
    import torch

    if one.dtype != other.dtype or one.shape != other.shape:
        return False
    return torch.equal(*(t.detach().cpu().contiguous().reshape(-1).view(torch.uint8) for t in (one, other)))
