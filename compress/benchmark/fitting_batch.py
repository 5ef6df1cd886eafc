"""A batch that does not fit into memory, and a smaller one that does."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable

# What allocators say: torch's on a CPU and on a GPU, NumPy's, onnxruntime's arena, OpenVINO's.
SIGNS = ("out of memory", "can't allocate memory", "unable to allocate", "failed to allocate", "bad_alloc", "bad alloc")
WITHIN_S = 60.0


def is_out_of_memory(error: Exception) -> bool:
    """Whether a runtime failed for want of memory; each has an exception of its own, and words of its own."""
    said = str(error).lower()
    return isinstance(error, MemoryError) or any(sign in said for sign in SIGNS)


def largest_batch(runs: Callable[[int], object], too_large: int, *, within_s: float = WITHIN_S) -> int:
    """The largest batch that fits below one that did not, by halving; the best by then where time runs out, 0 if none.

    Args:
        runs: tries one; raises where it does not fit.

    Raises:
        Exception: what `runs` raises for another reason.
    """
    fits, fails, deadline = 0, too_large, time.monotonic() + within_s
    while fails - fits > 1 and time.monotonic() < deadline:
        middle = (fits + fails) // 2
        try:
            runs(middle)
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            fails = middle
        else:
            fits = middle
    return fits


def bound_memory() -> None:
    """Let this process fail where it asks for more memory than there is, where it can: else the system kills one.

    On Linux; elsewhere nothing happens.
    """
    with contextlib.suppress(ImportError, AttributeError, OSError, ValueError):
        import resource

        import psutil

        most = psutil.Process().memory_info().data + psutil.virtual_memory().available
        resource.setrlimit(resource.RLIMIT_DATA, (most, resource.getrlimit(resource.RLIMIT_DATA)[1]))
