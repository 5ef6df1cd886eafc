"""Rehearsal: what a step will write at its end is written before it trains, read back, compared and removed.

Training takes hours, and what keeps its result from being saved is there before it: an architecture that is not built
again from its record, a class name that JSON does not hold, a disk without room for the weights.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zoo.disk import NO_SPACE
from zoo.errors import SlimzooError, first_line
from zoo.files.directory import REHEARSAL
from zoo.files.manifest import write_manifest
from zoo.files.model_directory import ModelConfig, load_model, save_model

if TYPE_CHECKING:
    from torch import Tensor, nn

ALIKE = 1e-3  # of the answers' standard deviation; the same weights in another memory layout may add up otherwise


@contextmanager
def rehearsal(work: Path, what: str) -> Iterator[Path]:
    """A folder below `work` to write into as at a step's end; it is removed, and what goes wrong is said in one line.

    Args:
        work: the directory in which the step works.
        what: is written.

    Raises:
        SlimzooError: it cannot be.
        OSError: there is no room for it; `zoo.files.directory.new_directory` says so.
    """
    folder = work / REHEARSAL
    shutil.rmtree(folder, ignore_errors=True)
    try:
        folder.mkdir()
        yield folder
    except Exception as error:  # every model and every package has its own kinds
        if isinstance(error, OSError) and error.errno in NO_SPACE:
            raise
        raise SlimzooError(f"{what} could not be saved at the end: {first_line(error)}; nothing was trained") from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def rehearse(work: Path, model: nn.Module, config: ModelConfig, record: dict[str, Any], *, judge: bool = False) -> None:
    """Save the model as it is, with that record, and load it back: the same classes, tensors and answers.

    Args:
        config: of the model.
        record: the step's for the lineage, as far as it is known yet.
        judge: whether it will have one; see zoo/files/judge.py.

    Raises:
        see `rehearsal`.
    """
    with rehearsal(work, config.architecture) as folder:
        save_model(folder, model, config.with_step(record), model if judge else None)
        write_manifest(folder)
        loaded = load_model(folder, judge=judge)
        if loaded.config.classes != config.classes:
            raise ValueError("its class names come back as others")
        _check_tensors(model, loaded.model)
        _check_answers(model, loaded.model, config.input_size)


def _check_tensors(model: nn.Module, again: nn.Module) -> None:
    import torch

    before, after = model.state_dict(), again.state_dict()
    for name, tensor in before.items():
        found = after[name]  # loading was strict
        if tensor.dtype != found.dtype or not torch.equal(_bits(tensor), _bits(found)):
            raise ValueError(f"{name} comes back with other values")


def _bits(tensor: Tensor) -> Tensor:
    """So that NaN equals itself."""
    import torch

    return tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8)


def _check_answers(model: nn.Module, again: nn.Module, input_size: tuple[int, int, int]) -> None:
    import torch

    image = torch.randn(2, *input_size, generator=torch.Generator().manual_seed(0))
    modes = {module: module.training for module in model.modules()}
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        wanted, found = model.eval()(image), again.eval()(image)
    for module, training in modes.items():
        module.training = training
    if not torch.allclose(wanted, found, rtol=ALIKE, atol=ALIKE * float(wanted.std()), equal_nan=True):
        raise ValueError("the loaded model answers otherwise")
