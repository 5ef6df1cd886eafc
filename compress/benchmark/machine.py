"""What a figure was measured on: processor, the instructions that decide its speed, cores, GPU."""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

# int8 dot products (vnni, amx, dotprod, i8mm) and vector widths: what a speed of fp32 or int8 depends on
_FLAGS = re.compile(r"avx2|avx512\w*|avx_vnni\w*|amx_\w+|asimd|asimddp|i8mm|bf16|sve2?")


def describe_machine() -> dict[str, Any]:
    """JSON-ready; `load_average` is of the last minute, before the measurement if this is called before it."""
    info = _cpuinfo()
    words = (info[0].get("flags") or info[0].get("Features") or "").split() if info else []
    return {
        "processor": _processor(info),
        "flags": sorted({word for word in words if _FLAGS.fullmatch(word)}),
        "cores": len(_cores()),
        "threads": os.cpu_count(),
        "cpu_quota": _cpu_quota(),
        "load_average": round(_load_average(), 2),
        "gpu": gpu_names(),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
    }


def default_threads() -> int:
    """One thread for each physical core that this process may use, no more than its container's quota."""
    cores = len(_cores())
    if not _cpuinfo():  # nothing says which processors share a core, but how many cores there are
        import psutil

        cores = min(cores, psutil.cpu_count(logical=False) or cores)
    return max(1, min(cores, int(_cpu_quota() or cores)))


def cpus_for(threads: int) -> list[int]:
    """The logical processors to pin `threads` threads to: one of each core first, then their siblings."""
    cores = _cores()
    deepest = max(len(siblings) for siblings in cores)
    return [core[turn] for turn in range(deepest) for core in cores if turn < len(core)][:threads]


def gpu_names() -> list[str]:
    """The NVIDIA devices by the driver's word, so that asking does not cost an import of torch."""
    if (tool := shutil.which("nvidia-smi")) is None:
        return []
    command = [tool, "--query-gpu=name", "--format=csv,noheader"]
    try:
        answer = subprocess.run(command, capture_output=True, encoding="utf-8", errors="replace", timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        return []
    return [line.strip() for line in answer.stdout.splitlines() if line.strip()] if answer.returncode == 0 else []


def _cpuinfo() -> list[dict[str, str]]:
    """One record a logical processor; empty where there is no /proc."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return []
    blocks = [dict(re.findall(r"^(.+?)\s*: (.*)$", block, re.M)) for block in text.split("\n\n")]
    return [block for block in blocks if "processor" in block]


def _processor(info: list[dict[str, str]]) -> str:
    if info and "model name" in info[0]:
        return info[0]["model name"]
    if sysctl := shutil.which("sysctl"):  # macOS
        answer = subprocess.run(
            [sysctl, "-n", "machdep.cpu.brand_string"], capture_output=True, encoding="utf-8", errors="replace"
        )
        if answer.returncode == 0:
            return answer.stdout.strip()
    return platform.processor() or platform.machine()


def _cores() -> list[list[int]]:
    """The logical processors that this process may run on, grouped by the physical core they share."""
    count = os.cpu_count() or 1
    allowed = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else list(range(count))
    where = {
        int(block["processor"]): (block["physical id"], block["core id"])
        for block in _cpuinfo()
        if "physical id" in block and "core id" in block  # ARM says neither: each is a core
    }
    cores: dict[tuple[str, str], list[int]] = {}
    for cpu in allowed:
        cores.setdefault(where.get(cpu, ("", str(cpu))), []).append(cpu)
    return list(cores.values())


def _load_average() -> float:
    if hasattr(os, "getloadavg"):
        return os.getloadavg()[0]
    import psutil

    return float(psutil.getloadavg()[0])  # Windows: counted from the first call on


def _cpu_quota() -> float | None:
    """Processors that the container may use (cgroup v2, then v1); None where there is no limit."""
    root = Path("/sys/fs/cgroup")
    try:
        quota, period = (root / "cpu.max").read_text(encoding="utf-8").split()
    except (OSError, ValueError):
        try:
            quota = (root / "cpu/cpu.cfs_quota_us").read_text(encoding="utf-8").strip()
            period = (root / "cpu/cpu.cfs_period_us").read_text(encoding="utf-8").strip()
        except OSError:
            return None
    return int(quota) / int(period) if quota.isdigit() else None
