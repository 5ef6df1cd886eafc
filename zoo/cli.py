"""The command line of this package alone: `models` and `info`."""

from __future__ import annotations

from zoo.command_line import command_line
from zoo.verbs import VERBS

app = command_line(VERBS, help="Architectures, their weights and their cost.")
