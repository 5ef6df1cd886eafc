"""What can be done with your images: a record for each verb."""

from __future__ import annotations

from transfer.data.options import DATA_HELP
from zoo.verb import Step, Verb

IMAGES = "Your images"

DATA = Verb(
    name="data",
    help="Look at a dataset before training on it: data check.",
    panel=IMAGES,
    command="transfer.commands:data",
)
FIT = Step(
    name="fit",
    help="Fit a pretrained model to your images.",
    panel=IMAGES,
    function="transfer.fitting.step:fit",
    settings="transfer.fitting.settings:Fit",
    source="data",
    metavar="DATA",
    source_help=DATA_HELP,
    data="none",
    adopt="",
    dry_run="transfer.fitting.step:plan",
    console="transfer.fitting.command:console",
    distributed=True,
    needs="labelled images",
    gives="float weights",
)
EVAL = Verb(
    name="eval",
    help="Measure a model's accuracy on labelled images, leaving out those that it was trained on.",
    panel=IMAGES,
    command="transfer.commands:evaluate",
)
PREDICT = Verb(
    name="predict",
    help="Classify images, one by one. Exit code 3 where some cannot be read; the others are answered.",
    panel=IMAGES,
    command="transfer.commands:predict",
)
VERBS = (DATA, FIT, EVAL, PREDICT)
