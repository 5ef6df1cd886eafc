"""Several processes that train one model: what each one's part is, and how they agree.

`torchrun --nproc_per_node=N -m transfer fit ...` and `accelerate launch -m transfer fit ...` start the processes and
set WORLD_SIZE, RANK, LOCAL_RANK, MASTER_ADDR and MASTER_PORT. Every process sees all the data and works out its own
contiguous part of each batch; gradients are added up in one flat all_reduce, so that the order of additions, and with
it every bit, is the same in each run. Without a launcher, everything here is the identity.
"""

from __future__ import annotations

import datetime
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

from transfer.device import training_device
from zoo.errors import SlimzooError

T = TypeVar("T")
# Longer than the main process may take for what the others wait for. A process that dies is noticed at once: its
# connections close, and the launcher ends the rest.
TIMEOUT = datetime.timedelta(hours=6)


@contextmanager
def processes() -> Iterator[None]:
    """Join the other processes, if a launcher started some, for the time of the block.

    Raises:
        SlimzooError: another process ended early.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) < 2 or dist.is_initialized():
        yield
        return
    device = training_device()
    if device.type == "cuda":
        torch.cuda.set_device(device)
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=TIMEOUT)
    try:
        yield
    except (dist.DistError, RuntimeError) as error:
        if not isinstance(error, dist.DistError) and not _is_lost_connection(error):
            raise
        raise SlimzooError(f"process {rank()} of {world_size()} lost the others: one of them ended early") from error
    finally:
        dist.destroy_process_group()


def _is_lost_connection(error: RuntimeError) -> bool:
    text = str(error)
    return any(sign in text for sign in ("Connection closed by peer", "Connection reset by peer", "gloo/transport"))


def rank() -> int:
    """The number of this process, from 0."""
    return dist.get_rank() if _joined() else 0


def world_size() -> int:
    return dist.get_world_size() if _joined() else 1


def is_main() -> bool:
    """Whether this is the process that writes files and speaks to people."""
    return rank() == 0


def barrier() -> None:
    """Wait for all processes."""
    total(0)  # an all_reduce: NCCL's own barrier needs to be told the device


@contextmanager
def main_first() -> Iterator[None]:
    """The main process runs the block alone, the others after it: for what it leaves in a cache."""
    if not is_main():
        barrier()
    yield
    if is_main():
        barrier()


def share(count: int) -> slice:
    """This process's contiguous part of `count` things; parts differ by one at most and none is counted twice."""
    quotient, more = divmod(count, world_size())
    start = rank() * quotient + min(rank(), more)
    return slice(start, start + quotient + (rank() < more))


def total(count: int) -> int:
    """The sum over processes."""
    return _reduced(count, dist.ReduceOp.SUM)


def largest(value: int) -> int:
    """The largest of all processes' values."""
    return _reduced(value, dist.ReduceOp.MAX)


def from_main(make: Callable[[], T]) -> T:
    """What `make` gives in the main process, for all; the others do not call it."""
    if world_size() == 1:
        return make()
    answer = [make() if is_main() else None]
    dist.broadcast_object_list(answer, src=0, device=_device())
    return answer[0]  # type: ignore[return-value]


def copy_from_main_(model: nn.Module) -> None:
    """Give every process the main one's parameters and buffers."""
    if world_size() == 1:
        return
    for tensor in model.state_dict().values():
        sent = tensor.detach().to(_device()).contiguous()
        dist.broadcast(sent, src=0)
        tensor.copy_(sent)


def sum_gradients_(parameters: Sequence[nn.Parameter], also: Sequence[Tensor] = ()) -> None:
    """Replace each gradient, and each tensor of `also`, by its sum over the processes.

    A parameter without a gradient in every process stays without one, so that an optimizer passes it over as it would
    in one process.
    """
    if world_size() == 1:
        return
    device, dtype = _device(), torch.float32
    present = torch.tensor([p.grad is not None for p in parameters], dtype=dtype, device=device)
    parts = [p.grad if p.grad is not None else torch.zeros_like(p) for p in parameters]
    everything = [present, *parts, *also]
    flat = torch.cat([tensor.detach().to(device, dtype).reshape(-1) for tensor in everything])
    dist.all_reduce(flat)
    present, *sums = torch.split(flat, [tensor.numel() for tensor in everything])
    for parameter, part, summed, found in zip(parameters, parts, sums, present.tolist(), strict=False):
        parameter.grad = part.copy_(summed.view(part.shape)) if found else None
    for tensor, summed in zip(also, sums[len(parameters) :], strict=True):
        tensor.copy_(summed.view(tensor.shape))


def _reduced(value: int, operation: dist.ReduceOp.RedOpType) -> int:
    if world_size() == 1:
        return value
    tensor = torch.tensor([value], device=_device())
    dist.all_reduce(tensor, operation)
    return int(tensor.item())


def _joined() -> bool:
    return dist.is_available() and dist.is_initialized()


def _device() -> torch.device:
    """The device of tensors that travel."""
    return training_device() if dist.get_backend() == "nccl" else torch.device("cpu")
