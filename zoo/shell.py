"""Commands as a person pastes them into a shell."""

from __future__ import annotations

import os
import shlex
import subprocess
from collections.abc import Sequence


def pasteable(words: Sequence[str]) -> str:
    """The words as one line for the shell of this system."""
    return subprocess.list2cmdline(words) if os.name == "nt" else shlex.join(words)
