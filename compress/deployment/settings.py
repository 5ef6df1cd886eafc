"""The settings of `export`."""

from __future__ import annotations

from zoo.settings import Settings, option


class Export(Settings):
    """In which form."""

    coded: bool = option(False, "Write DIR/model.slim instead: all of the model in few bytes.")
