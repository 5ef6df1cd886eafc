"""Where training runs, in which numbers, and how a CPU's memory is kept from being handed back at every step."""

from __future__ import annotations

import ctypes
import os
import sys
from contextlib import AbstractContextManager, nullcontext

import torch

# parameters of mallopt, from glibc's malloc.h
M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_MAX = -1, -2, -4


def training_device() -> torch.device:
    """The GPU of this process (`LOCAL_RANK`, which torchrun and accelerate set), else the CPU."""
    if not torch.cuda.is_available():
        return torch.device("cpu")
    return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")) % torch.cuda.device_count())


def reduced_precision(device: torch.device) -> torch.dtype | None:
    """What the matrix work of training runs in: bfloat16 where a GPU has it, float16 on older ones, None on a CPU.

    float16 holds gradients down to 6e-8 only, so it goes with a scaled loss (Micikevicius et al. 2018, arXiv
    1710.03740); bfloat16 has float32's range. Weights, norms and the loss stay in float32.
    """
    if device.type != "cuda":
        return None
    return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16


def autocast(device: torch.device) -> AbstractContextManager[object]:
    """The context of a training step's forward pass."""
    dtype = reduced_precision(device)
    return nullcontext() if dtype is None else torch.autocast(device.type, dtype=dtype)


def loss_scaler(device: torch.device) -> torch.amp.GradScaler:
    """Scales float16's loss; elsewhere it passes everything on as it is."""
    return torch.amp.GradScaler(device.type, enabled=reduced_precision(device) == torch.float16)


def keep_freed_memory() -> None:
    """Tell glibc's allocator not to return freed memory to the system.

    A training step allocates and frees the same activations again and again. By default each of more than 32 MB is a
    fresh mapping, and the top of the heap is cut off whenever it is free, so that the kernel clears every page anew:
    32,000 page faults a step for EfficientNet-Lite0 at 96 px and a batch of 32, 200,000 at 160 px, a quarter to a third
    of the step's CPU time (benchmarks/bench_loader.py). The process keeps the memory of its largest step instead.
    """
    if not sys.platform.startswith("linux"):
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:  # another C library
        return
    mallopt(M_MMAP_MAX, 0)
    mallopt(M_TRIM_THRESHOLD, 2**31 - 1)
    mallopt(M_TOP_PAD, 64 << 20)  # grow in steps of 64 MB
