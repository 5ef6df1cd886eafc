"""A plan: the steps that images or a fitted model go through, each with its settings; YAML in and out.

    steps:
    - fit:
        model: tf_efficientnet_lite0
    - prune:
        macs: 0.5
    - quantize: {}

The settings of a step are those of its command, and what is left out has its default. Steps come in the order of TAKES,
each at most once; those before `quantize` need float weights, and values that weights share do not outlive a training.
`distill` names its student; its teacher is what the steps before have made.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from compress.distillation.settings import Taught
from compress.plan.presets import PRESETS
from compress.verbs import DISTILL, STEPS
from zoo.errors import UsageError, did_you_mean
from zoo.settings import Settings

TAKES = ("fit", "distill", "prune", "sparsify", "cluster", "quantize")  # what a plan may hold, in this order
HEAD = "# {command}\n# Every setting with its value; those that are as by default say so.\n"


@dataclass(frozen=True)
class PlannedStep:
    verb: str
    settings: Settings

    @property
    def kind(self) -> str:
        """Of which others take about as long: those of its verb that train, or do not."""
        epochs = [getattr(self.settings, name) for name in ("recover", "epochs") if hasattr(self.settings, name)]
        return f"{self.verb} untrained" if self.verb != "fit" and epochs == [0] else self.verb

    def document(self) -> dict[str, Any]:
        """As YAML and JSON have it."""
        return {self.verb: self.settings.arguments()}


@dataclass(frozen=True)
class Plan:
    """Checked when made.

    Raises:
        UsageError: steps that cannot work in this order.
    """

    steps: tuple[PlannedStep, ...]

    def __post_init__(self) -> None:
        verbs = [step.verb for step in self.steps]
        for before, after in itertools.pairwise(verbs):
            if TAKES.index(before) >= TAKES.index(after):
                raise UsageError(f"the plan has `{after}` after `{before}`: {_why_not(before, after)}")

    @property
    def verbs(self) -> tuple[str, ...]:
        return tuple(step.verb for step in self.steps)

    @property
    def after_fit(self) -> tuple[PlannedStep, ...]:
        return tuple(step for step in self.steps if step.verb != "fit")

    @classmethod
    def of(cls, *steps: tuple[str, Mapping[str, Any]]) -> Plan:
        """Of verbs and what is not default in their settings."""
        return cls(tuple(PlannedStep(verb, _settings_of(verb)(**given)) for verb, given in steps))

    @classmethod
    def read(cls, path: str | Path, *, seed: int = 0) -> Plan:
        """A file, or one of PRESETS by its name.

        Args:
            seed: of what a preset draws.

        Raises:
            UsageError: no file of that kind; an unknown step or setting, with near names.
        """
        if str(path) in PRESETS and not Path(path).is_file():
            return cls.of(*((verb, {"seed": seed, **given}) for verb, given in PRESETS[str(path)]))
        try:
            document = yaml.load(Path(path).read_text(encoding="utf-8"), Loader=_Once)
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or error
            names = ", ".join(PRESETS)
            raise UsageError(f"--plan {path} cannot be read ({reason}); wanted a file, or one of {names}") from error
        except yaml.YAMLError as error:
            where = getattr(error, "problem_mark", None)
            line = f", line {where.line + 1}" if where is not None else ""
            raise UsageError(f"--plan {path}{line} is no YAML: {getattr(error, 'problem', None) or error}") from error
        if not isinstance(document, dict) or set(document) != {"steps"} or not isinstance(document["steps"], list):
            raise UsageError(f"--plan {path}: wanted `steps:` and a list of steps, as --dry-run writes it")
        return cls(tuple(_step(entry, path) for entry in document["steps"]))

    def text(self, command: str) -> str:
        """YAML with every setting, what it is about, and whether it is the default.

        Args:
            command: that takes it.
        """
        lines = ["steps:" if self.steps else "steps: []"]
        for step in self.steps:
            options = list(step.settings.options())
            lines.append(f"- {step.verb}:" + ("" if options else " {}"))
            values = step.settings.arguments()
            for option in options:
                value, default = values[option.name], _plain(type(step.settings), option.name)
                mark = "default; " if value == default else ""
                lines.append(f"    # {mark}{option.help}")
                lines.append(f"    {option.name}: {json.dumps(value, ensure_ascii=False)}")
        return HEAD.format(command=command) + "\n".join(lines) + "\n"


class _Once(yaml.SafeLoader):
    """A name that comes twice in one mapping is a slip, and not what comes last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        names = [key for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        for at, key in enumerate(names):
            if any(key.value == before.value for before in names[:at]):
                raise yaml.constructor.ConstructorError(None, None, f"{key.value!r} comes twice", key.start_mark)
        return super().construct_mapping(node, deep)


def _settings_of(verb: str) -> type[Settings]:
    return Taught if verb == DISTILL.name else STEPS[verb].load_settings()


def _plain(settings: type[Settings], name: str) -> Any:
    """A default as a record has it."""
    required = {option.name for option in settings.options() if option.required}
    return None if required else settings().arguments()[name]


def _step(entry: Any, path: str | Path) -> PlannedStep:
    if isinstance(entry, str):
        entry = {entry: {}}
    if not isinstance(entry, dict) or len(entry) != 1:
        raise UsageError(f"--plan {path}: wanted one step an entry, such as `- prune: {{macs: 0.5}}`, not {entry!r}")
    ((verb, given),) = entry.items()
    if verb not in TAKES:
        raise UsageError(
            f"--plan {path}: no step {verb!r}; {did_you_mean(str(verb), TAKES, 'known: ' + ', '.join(TAKES))}"
        )
    if given is not None and not isinstance(given, dict):
        raise UsageError(f"--plan {path}: `{verb}` has {given!r}, wanted its settings by name")
    try:
        return PlannedStep(verb, _settings_of(verb)(**{str(key): value for key, value in (given or {}).items()}))
    except UsageError as error:
        raise UsageError(f"--plan {path}, `{verb}`: {error}") from error


def _why_not(before: str, after: str) -> str:
    if before == after:
        return "a step comes once"
    if before == "quantize":
        return f"`{after}` needs float weights, and rounded ones are none"
    if after == "fit":
        return "a fit begins with images, so it comes first"
    if after == DISTILL.name:
        return f"a student is taught before anything is made smaller, and `{before}` would be lost on it"
    if before == "cluster":
        return f"`{after}` trains, and weights no longer share their values; cluster last"
    return f"a cut takes away what was made zero; `{after}` comes first"
