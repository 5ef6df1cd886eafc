"""Where timm's and torchvision's weights lie on this machine, found by the layout, importing neither."""

from __future__ import annotations

import os
import sys
from pathlib import Path

SAFETENSORS = "model.safetensors"


def hub_cache() -> Path:
    """Where huggingface_hub keeps its files, found without importing it."""
    home = os.environ.get("HF_HOME") or os.path.join(os.environ.get("XDG_CACHE_HOME", "~/.cache"), "huggingface")
    cache = os.environ.get("HF_HUB_CACHE") or os.environ.get("HUGGINGFACE_HUB_CACHE") or os.path.join(home, "hub")
    return Path(os.path.expandvars(cache)).expanduser()


def hub_file(repository: str, file: str, *, revision: str = "main") -> Path | None:
    """A file in huggingface_hub's cache, found by its layout alone: importing that library takes half a second."""
    folder = hub_cache() / f"models--{repository.replace('/', '--')}"
    try:
        commit = (folder / "refs" / revision).read_text(encoding="utf-8").strip()
    except OSError:
        commit = revision
    path = folder / "snapshots" / commit / file
    return path if path.is_file() else None


def checkpoints() -> Path:
    """Where torchvision keeps its files, found without importing torch."""
    hub = sys.modules.get("torch.hub")
    if hub is not None:
        return Path(hub.get_dir(), "checkpoints")
    home = os.environ.get("TORCH_HOME") or os.path.join(os.environ.get("XDG_CACHE_HOME", "~/.cache"), "torch")
    return Path(home).expanduser() / "hub" / "checkpoints"
