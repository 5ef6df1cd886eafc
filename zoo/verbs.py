"""What the zoo can be told to do: a record for each verb."""

from __future__ import annotations

from zoo.verb import Verb

ZOO = "The zoo"

MODELS = Verb(name="models", help="List the models of the zoo.", panel=ZOO, command="zoo.commands:models")
INFO = Verb(
    name="info",
    help="Show one model's card: cost, receptive field, weights, licence, paper.",
    panel=ZOO,
    command="zoo.commands:info",
)
VERBS = (MODELS, INFO)
