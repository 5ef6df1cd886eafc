"""The settings of `export`."""

from __future__ import annotations

from zoo.settings import Settings, option


class Export(Settings):
    """In which form a model is exported."""

    coded: bool = option(False, "Write DIR/model.slim instead: all of the model in few bytes.")
