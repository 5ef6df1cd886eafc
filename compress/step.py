"""What a command of compression leaves behind, as a Python caller sees it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from zoo.artifact import ModelConfig


@dataclass(frozen=True)
class Step:
    out: Path
    config: ModelConfig
    record: dict[str, Any]  # of this step, the last of the config's lineage
