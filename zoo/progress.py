"""How long work reports what is done of it."""

from __future__ import annotations

from collections.abc import Callable

Progress = Callable[[str, int, int, str], None]
"""(what, done, total, note), as `zoo.console.Console.progress` takes it."""
