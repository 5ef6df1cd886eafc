"""Plans by name: what one would write by hand, without a search."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

PRESETS: Mapping[str, list[tuple[str, dict[str, Any]]]] = {
    "accurate": [("quantize", {})],
    "balanced": [("prune", {}), ("quantize", {})],  # to the least share with which answers hardly change
    "fast": [("prune", {"macs": 0.5}), ("quantize", {})],
    "smallest": [("prune", {"macs": 0.3}), ("quantize", {"bits": 4})],
}
