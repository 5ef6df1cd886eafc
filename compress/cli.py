"""The command line `slimzoo`: the verbs of all three packages, in the order of their use."""

from __future__ import annotations

import compress.verbs
import transfer.verbs
import zoo.verbs
from zoo.command_line import command_line

app = command_line(
    (*zoo.verbs.VERBS, *transfer.verbs.VERBS, *compress.verbs.VERBS),
    help="Fine-tune a vision model on a small dataset, make it small and fast, prove what that cost, ship it.",
)
