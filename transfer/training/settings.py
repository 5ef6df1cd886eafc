"""What the command line says of training, as values: `--set optimizer=sgd --set augment.rotate_deg=0 --time 10m`."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from typing import Any

from transfer.training.recipe import Recipe
from zoo.errors import UsageError, did_you_mean

KINDS = {int: "a whole number", float: "a number", bool: "true or false", str: "a word"}


def read_settings(words: Sequence[str]) -> dict[str, Any]:
    """ "name=value" each, to a dict; values are numbers, however they are written, true, false or words.

    Raises:
        UsageError: a word without "=", or a name that recipes do not have.
    """
    import yaml

    settings: dict[str, Any] = {}
    for word in words:
        name, equals, value = word.partition("=")
        if not equals or not name:
            raise UsageError(f"--set {word}: wanted NAME=VALUE, such as optimizer=sgd or augment.rotate_deg=0")
        settings[name] = _number(value) if _number(value) is not None else yaml.safe_load(value)
    with_settings(Recipe(), settings)
    return settings


def with_settings(recipe: Recipe, settings: Mapping[str, Any]) -> Recipe:
    """The recipe with these fields; "augment.flip" is a field of its augmentation.

    Raises:
        UsageError: an unknown name, or a value of another type or out of its range.
    """
    own = {name: value for name, value in settings.items() if not name.startswith("augment.")}
    augment = {name.removeprefix("augment."): v for name, v in settings.items() if name.startswith("augment.")}
    inner = replace(recipe.augment, **_checked(recipe.augment, augment, "augment."))
    return replace(recipe, **{**_checked(recipe, own), "augment": inner})


def _checked(target: Any, settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    names = [field.name for field in fields(target) if field.name != "augment"]
    found = {}
    for name, value in settings.items():
        if name not in names:
            known = [prefix + known for known in names] + ([] if prefix else ["augment.flip"])
            near = did_you_mean(prefix + name, known, f"wanted one of {', '.join(known)}")
            raise UsageError(f"unknown setting {prefix + name!r}; {near}")
        kind = type(getattr(target, name))
        if not _fits(value, kind):
            raise UsageError(f"{prefix}{name}={value!r} must be {KINDS[kind]}")
        found[name] = kind(value)
    return found


def _fits(value: Any, kind: type) -> bool:
    """Whole numbers are numbers, with a point or without: lr=1, epochs=3.0."""
    if isinstance(value, bool) or kind not in (int, float):
        return type(value) is kind
    return isinstance(value, (int, float)) and (kind is float or float(value).is_integer())


def _number(word: str) -> int | float | None:
    """Read a number by Python's rules: YAML 1.1 takes 1e-3 for a word and 010 for eight."""
    for kind in (int, float):
        with contextlib.suppress(ValueError):
            return kind(word)
    return None
