"""Choices: values that have a name, found by it; a value of the user's own works wherever a built-in one does."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from zoo.errors import UsageError, did_you_mean, first_line
from zoo.lazy import load


class Choices(Mapping[str, Any]):
    """Names of one kind of thing, each with the "module:object" where it is; nothing is imported before it is asked.

    Args:
        kind: what they are, "criterion", for messages.
        places: name -> "module:object".
        words: what may stand instead of a name, and is nobody's, such as "auto".
    """

    def __init__(self, kind: str, places: Mapping[str, str], words: tuple[str, ...] = ()) -> None:
        self.kind, self.places, self.words = kind, dict(places), words

    def __getitem__(self, name: str) -> Any:
        return load(self.places[name])

    def __iter__(self) -> Iterator[str]:
        return iter(self.places)

    def __len__(self) -> int:
        return len(self.places)

    def checked(self, value: Any) -> Any:
        """A known name, "module:object" of what can be imported, or an object, as it was given.

        Raises:
            UsageError: a word that is neither.
        """
        known = (*self.words, *self.places)
        if not isinstance(value, str) or value in known:
            return value
        if ":" not in value:
            near = did_you_mean(value, known, "it must be one of " + ", ".join(known))
            raise UsageError(f"unknown {self.kind} {value!r}; {near} (one of your own is named module:object)")
        try:
            return load(value)
        except (ImportError, AttributeError) as error:
            raise UsageError(f"{self.kind} {value!r} cannot be imported: {first_line(error)}") from error

    def value(self, given: Any) -> Any:
        """The object: that of a name, or the one that was given."""
        return self[given] if isinstance(given, str) else given

    def name(self, given: Any) -> str | None:
        """Say for records the name, or where an object of one's own is imported from."""
        if given is None or isinstance(given, str):
            return given
        for name, place in self.places.items():
            if load(place) is given:
                return name
        named = given if hasattr(given, "__qualname__") else type(given)
        return f"{named.__module__}:{named.__qualname__}"
