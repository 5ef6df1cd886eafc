"""The command line of this package alone: data check, fit, eval and predict."""

from __future__ import annotations

from transfer.verbs import VERBS
from zoo.command_line import command_line

app = command_line(VERBS, help="A pretrained model onto your data.")
