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

import compress
import transfer
import zoo
from compress.verbs import STEPS
from zoo.settings import Option
from zoo.verb import Step

ROOT = Path(__file__).parents[1]
PACKAGES = {
    "zoo/__init__.pyi": zoo.HOMES,
    "transfer/__init__.pyi": transfer.HOMES,
    "compress/__init__.pyi": compress.HOMES,
    "compress/slimzoo/__init__.pyi": {**zoo.HOMES, **transfer.HOMES, **compress.HOMES},
}
IMPORTED = {"Data": "transfer.data.sources", "LoadedModel": "zoo.files.model_directory", "Progress": "zoo.progress"}
STANDARD = {
    "Any": "typing",
    "Callable": "collections.abc",
    "Literal": "typing",
    "Mapping": "collections.abc",
    "Path": "pathlib",
    "Sequence": "collections.abc",
}


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


def _imports(step: Step, homes: Mapping[str, str]) -> set[str]:
    """What the step's signature names and no public name covers."""
    return {f"from {IMPORTED[word]} import {word}" for word in words(_signature(step)) & set(IMPORTED) - set(homes)}


def _signature(step: Step) -> str:
    function = step.load_function()
    signature = inspect.signature(function)
    first, *rest = signature.parameters.values()
    options = {o.name: o for o in step.load_settings().options()}
    lines = [f"{first.name}: {first.annotation}", f"whole: {step.load_settings().__name__} | None = None", "/", "*"]
    for parameter in sorted(rest, key=lambda parameter: parameter.default is not inspect.Parameter.empty):
        said = annotation(options[parameter.name]) if parameter.name in options else parameter.annotation
        lines.append(f"{parameter.name}: {said}{_default(parameter)}")
    doc = (inspect.getdoc(function) or "").splitlines()[0]
    body = "".join("    /,\n" if line == "/" else f"    {line},\n" for line in lines)
    return f'def {step.name}(\n{body}) -> {signature.return_annotation}:\n    """{doc}"""'


def _default(parameter: inspect.Parameter) -> str:
    if parameter.default is inspect.Parameter.empty:
        return ""
    return " = ..." if callable(parameter.default) else f" = {parameter.default!r}"


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
