"""The stubs of the packages' public names, __init__.pyi: the keywords of each step come from its settings.

    python benchmarks/stubs.py

A type checker sees the names where they are, and for a step a signature with every field of its settings.
"""

from __future__ import annotations

import importlib
import inspect
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import compress
import transfer
import zoo
from compress.verbs import STEPS
from zoo.settings import Option
from zoo.verb import ADOPTED, Step

ROOT = Path(__file__).parents[1]
PACKAGES = {
    "zoo/__init__.pyi": zoo.HOMES,
    "transfer/__init__.pyi": transfer.HOMES,
    "compress/__init__.pyi": compress.HOMES,
    "compress/slimzoo/__init__.pyi": {**zoo.HOMES, **transfer.HOMES, **compress.HOMES},
}
STANDARD = {"Any": "typing", "Callable": "collections.abc", "Literal": "typing", "Mapping": "collections.abc",
            "Path": "pathlib", "Sequence": "collections.abc"}  # fmt: skip


def stub(homes: Mapping[str, str], *, whole: bool) -> str:
    """The text of one stub.

    Args:
        homes: public name -> its module.
        whole: whether the steps' signatures are written out; else they are those of another stub.
    """
    steps = [STEPS[name] for name in sorted(homes) if name in STEPS] if whole else []
    signatures = [_signature(step) for step in steps]
    taken = {name for name in homes if name in STEPS} if whole else set()
    lines = {f"from {homes[name]} import {name} as {name}" for name in homes if name not in taken}
    if not whole:
        package = {name: home.partition(".")[0] for name, home in homes.items() if name in STEPS}
        lines = {line for line in lines if line.split()[-1] not in package}
        lines |= {f"from {home} import {name} as {name}" for name, home in package.items()}
    text = "\n\n".join(signatures)
    for word in sorted(words(text)):
        if word in STANDARD:
            lines.add(f"from {STANDARD[word]} import {word}")
    lines |= {line for step in steps for line in _imports(step, homes)}
    found = ['"""Written by benchmarks/stubs.py: do not edit."""', "", *sorted(lines)]
    if "from zoo.create" in text or not whole:
        found += ["", "__version__: str"]
    found += ["", "HOMES: dict[str, str]", "__all__: list[str]", ""]
    return "\n".join(found) + ("\n\n" + text + "\n" if text else "")


def words(text: str) -> set[str]:
    """The identifiers in an annotation, or in all of a stub."""
    return set(re.findall(r"[A-Za-z_]\w*", text))


def _own_parameters(step: Step) -> list[inspect.Parameter]:
    function = step.load_function()
    return list(inspect.signature(inspect.unwrap(function)).parameters.values())


def _imports(step: Step, homes: Mapping[str, str]) -> set[str]:
    """What the step's own signature names and no public name covers."""
    function = inspect.unwrap(step.load_function())
    signature = inspect.signature(function)
    said = " ".join(str(p.annotation) for p in signature.parameters.values()) + f" {signature.return_annotation}"
    found = set()
    for word in words(said):
        known: Any = function.__globals__.get(word)
        module = getattr(known, "__module__", None)
        if word == "Progress":
            module = "zoo.progress"
        ours = str(module).partition(".")[0] in ("zoo", "transfer", "compress")
        if ours and word not in homes and word not in STANDARD:
            found.add(f"from {module} import {word}")
    return found


def _signature(step: Step) -> str:
    function = inspect.unwrap(step.load_function())
    first, settings, *rest = _own_parameters(step)
    options = list(step.load_settings().options())
    lines = [f"{first.name}: {first.annotation}"]
    lines.append(f"whole: {settings.annotation} | None = None")
    lines += ["/", "*"]
    lines += [_own(parameter) for parameter in rest if parameter.default is inspect.Parameter.empty]
    lines += [f"{o.name}: {annotation(o)}" + ("" if o.required else f" = {o.default!r}") for o in options]
    lines += [_own(parameter) for parameter in rest if parameter.default is not inspect.Parameter.empty]
    named = {parameter.name for parameter in rest}
    lines += [f"{name}: str | Path | None = None" for name in ADOPTED if step.adopt and name not in named]
    lines.append("offline: bool = False")
    doc = (inspect.getdoc(function) or "").splitlines()[0]
    body = "".join(f"    {line},\n" if line != "/" else "    /,\n" for line in lines)
    returns = inspect.signature(function).return_annotation
    return f'def {step.name}(\n{body}) -> {returns}:\n    """{doc}"""'


def _own(parameter: inspect.Parameter) -> str:
    said = f"{parameter.name}: {parameter.annotation}"
    if parameter.default is inspect.Parameter.empty:
        return said
    plain = parameter.default is None or isinstance(parameter.default, bool | int | float | str)
    return f"{said} = {parameter.default!r}" if plain else f"{said} = ..."


def annotation(option: Option) -> str:
    """A field's type as one writes it; words are taken wherever a command line would."""
    said = option.annotation.__name__ if isinstance(option.annotation, type) else str(option.annotation)
    said = re.sub(r"\b(typing|collections\.abc|pathlib)\.", "", said)
    if said.startswith("tuple[str"):
        return "Sequence[str]"
    if option.kind is str and "str" not in said and "Any" not in said and "Literal" not in said:
        said = f"{said.removesuffix(' | None')} | str{' | None' if said.endswith(' | None') else ''}"
    return "str | Path" if option.path and said == "str" else said


def main() -> int:
    for place, homes in PACKAGES.items():
        (ROOT / place).write_text(stub(homes, whole="slimzoo" not in place), encoding="utf-8")
        print(place)
    return 0


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    importlib.invalidate_caches()
    sys.exit(main())
