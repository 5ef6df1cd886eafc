"""Settings: what a step can be told. Each is written once, as a field: its name, type, bounds, help and default.

The command line's options, the function's keywords, the arguments of a lineage record, the command that repeats a step
and the stubs for type checkers are derived from the fields.
"""

from __future__ import annotations

import types
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError
from pydantic.fields import FieldInfo

from zoo.errors import UsageError, argument, did_you_mean
from zoo.lineage import LARGEST_SEED

KINDS = {int: "a whole number", float: "a number", bool: "true or false", str: "a word"}
MOST_EPOCHS = 100_000  # beyond it is a slip of the finger
FLAGS, METAVAR, PATH = "flags", "metavar", "path"  # of an option, in a field's extra notes


def option(
    default: Any,
    help: str,
    *,
    flags: tuple[str, ...] = (),
    metavar: str | None = None,
    path: bool | Callable[[str], bool] = False,
    ge: float | None = None,
    gt: float | None = None,
    le: float | None = None,
    lt: float | None = None,
) -> Any:
    """A field of `Settings`.

    Args:
        help: one line for `--help`, with units.
        flags: of the command line, where they are not "--" and the name.
        metavar: what stands for the value in the help.
        path: whether it names a file, which a record names absolutely; or what tells that of a value, where some are
            names of something else.
        ge, gt, le, lt: bounds of a number.
    """
    extra: dict[str, Any] = {FLAGS: list(flags), METAVAR: metavar, PATH: path}
    return Field(default, description=help, ge=ge, gt=gt, le=le, lt=lt, json_schema_extra=extra)


class Settings(BaseModel):
    """Frozen and validated when made, also from words, as a command line or YAML has them.

    Raises:
        UsageError: an unknown name, or a value of another type or out of its range.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", arbitrary_types_allowed=True)

    def __init__(self, **given: Any) -> None:
        self._refuse_switches(given)
        try:
            super().__init__(**given)
        except ValidationError as error:
            raise _usage_error(type(self), error) from error

    @classmethod
    def _refuse_switches(cls, given: Mapping[str, Any]) -> None:
        """`no` in YAML is no number of zero.

        Raises:
            UsageError: true or false where a number is wanted.
        """
        for name in (name for name, value in given.items() if isinstance(value, bool) and name in cls.model_fields):
            field = cls.model_fields[name]
            kinds = _alternatives(field.annotation)
            if bool not in kinds and (int in kinds or float in kinds):
                said = argument(name, given[name], flag=Option(name, field).flags[0])
                raise UsageError(f"{said} must be {wanted(field)}")

    def arguments(self, locate: Callable[[Any], Any] = lambda value: value) -> dict[str, Any]:
        """Ready for JSON: what a lineage record keeps, and what makes the same settings again.

        Args:
            locate: makes a path absolute.
        """
        given, found = self.model_dump(mode="json"), {}
        for o in self.options():
            found[o.name] = o.located(given[o.name], locate)
        return found

    @classmethod
    def options(cls) -> Iterator[Option]:
        """The fields in their order."""
        return (Option(name, field) for name, field in cls.model_fields.items())


class Seeded(Settings):
    """Settings of a step that draws numbers."""

    seed: int = option(0, "Of everything that is drawn: order, augmentation, dropout.", ge=0, le=LARGEST_SEED)


class Option:
    """One field, as a command line, a report or a stub reads it.

    Attributes:
        name: the keyword.
        flags: of the command line; two for what is switched on and off.
        kind: type of one value on the command line: int, float, bool or str.
        required: whether there is no default.
        many: whether it can be given again and again.
        path: see `option`.
        annotation: its type in Python, in words where the field gives some.
    """

    def __init__(self, name: str, field: FieldInfo) -> None:
        extra = field.json_schema_extra if isinstance(field.json_schema_extra, dict) else {}
        flags: Any = extra.get(FLAGS) or ["--" + name.replace("_", "-")]
        self.name, self.field = name, field
        self.help, self.required = field.description or "", field.is_required()
        self.default: Any = None if self.required else field.default
        self.flags: tuple[str, ...] = tuple(flags)
        self.metavar: Any = extra.get(METAVAR)
        self.path: Any = extra.get(PATH)
        said = [each for each in field.metadata if isinstance(each, str)]
        self.annotation: Any = said[0] if said else field.annotation
        choices = [each for each in _alternatives(field.annotation) if each is not types.NoneType]
        self.optional = len(choices) < len(_alternatives(field.annotation))
        first = choices[0]
        self.many = get_origin(first) in (tuple, list) or get_origin(first) is Mapping or first is dict
        read_from_words = any(isinstance(each, BeforeValidator) for each in field.metadata)
        self.kind: type = first if first in (int, float, bool) and not read_from_words else str

    def located(self, value: Any, locate: Callable[[Any], Any]) -> Any:
        """A value in JSON's form, with `locate` of each file that it names."""
        if isinstance(value, list):
            return [self.located(each, locate) for each in value]
        if value is None or not self.path:
            return value
        return locate(value) if self.path is True or self.path(str(value)) else value

    def words(self, value: Any) -> list[str]:
        """What to type for this value, in JSON's form; nothing for the default."""
        if value is None or value == self.default or (isinstance(value, dict | list) and not value):
            return []
        if self.kind is bool:
            on, *off = self.flags[0].split("/")
            return [on] if value else off
        flag = self.flags[0]
        if isinstance(value, dict):
            return [word for name, each in value.items() for word in (flag, f"{name}={each}")]
        values = value if isinstance(value, list | tuple) else [value]
        return [word for each in values for word in (flag, str(each))]


def _alternatives(annotation: Any) -> tuple[Any, ...]:
    return get_args(annotation) if get_origin(annotation) in (Union, types.UnionType) else (annotation,)


def _kinds(annotation: Any) -> list[Any]:
    """Types of a value, or of one among several."""
    found = _alternatives(annotation)
    return [kind for each in found for kind in (get_args(each)[:1] if get_origin(each) in (tuple, list) else (each,))]


def _usage_error(settings: type[Settings], error: ValidationError) -> UsageError:
    """The first thing that is wrong, in a line."""
    first = error.errors()[0]
    own = (first.get("ctx") or {}).get("error")
    if isinstance(own, UsageError):
        return own
    name, value = str(first["loc"][0]) if first["loc"] else "", first["input"]
    fields = {each.name: each for each in settings.options()}
    if name not in fields:
        near = did_you_mean(name, fields, f"wanted some of {', '.join(fields)}")
        return UsageError(f"unknown setting {name!r}; {near}")
    given = argument(name, value, flag=fields[name].flags[0].partition("/")[0])
    if own is not None:
        return UsageError(f"{given}: {own}")
    if first["type"] == "missing":
        return UsageError(f"{argument(name, flag=fields[name].flags[0])} is needed: {fields[name].help}")
    if first["type"] in ("tuple_type", "list_type"):
        return UsageError(f"{given} must be a list, such as [{value}]")
    kinds = [kind for kind in _kinds(fields[name].annotation) if get_origin(kind) is Literal]
    if kinds:
        choices = [choice for kind in kinds for choice in get_args(kind)]
        near = did_you_mean(str(value), choices, "it must be one of " + ", ".join(choices))
        return UsageError(f"unknown {name} {value!r}; {near}")
    return UsageError(f"{given} must be {wanted(fields[name].field)}")


def wanted(field: FieldInfo) -> str:
    """What values a field takes, in words: "a whole number from 0 to 10"."""
    bounds = {
        key: getattr(each, key) for each in field.metadata for key in ("ge", "gt", "le", "lt") if hasattr(each, key)
    }
    kinds = [KINDS[each] for each in _kinds(field.annotation) if each in KINDS]
    said = " or ".join(kinds) or "another value"
    words = {"ge": "at least", "gt": "above", "le": "at most", "lt": "below"}
    if {"ge", "le"} <= bounds.keys() and bounds["le"] < LARGEST_SEED:
        return f"{said} from {bounds['ge']:.9g} to {bounds['le']:.9g}"
    limits = " and ".join(f"{words[key]} {value:.9g}" for key, value in bounds.items() if abs(value) < LARGEST_SEED)
    return f"{said} {limits}".strip()
