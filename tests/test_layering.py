"""Imports point down, nothing heavy is imported before it is needed, and every public name resolves."""

from __future__ import annotations

import ast
import importlib
import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ALLOWED = {"zoo": {"zoo"}, "transfer": {"zoo", "transfer"}, "compress": {"zoo", "transfer", "compress"}}
HEAVY = (
    "torch",
    "torchvision",
    "timm",
    "torch_pruning",
    "onnxruntime",
    "onnx",
    "onnxscript",
    "sklearn",
    "scipy",
    "altair",
)


def imported_packages(source):
    """Top-level packages that a file imports anywhere, also inside functions."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute here"
            found.add((node.module or "").partition(".")[0])
    return found


@pytest.mark.parametrize("layer", ALLOWED)
def test_imports_point_down(layer):
    files = list((ROOT / layer).rglob("*.py"))
    assert len(files) > 5
    for path in files:
        upward = (imported_packages(path.read_text(encoding="utf-8")) & ALLOWED.keys()) - ALLOWED[layer]
        assert not upward, f"{path} imports {sorted(upward)}, which is above {layer}"


def test_the_reader_of_imports_sees_them_all():
    source = "import compress.cli as c\ndef f():\n    from transfer.data.dataset import open_data\n"
    assert imported_packages(source) == {"compress", "transfer"}


def modules_after(code):
    """Which of HEAVY a fresh process has imported after running `code`."""
    report = f"import json, sys\nsys.stderr.write(json.dumps([m for m in {HEAVY!r} if m in sys.modules]))"
    script = f"try:\n    {code}\nexcept SystemExit as done:\n    assert not done.code, done.code\n{report}"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=ROOT, check=True)
    return json.loads(done.stderr), done.stdout


@pytest.mark.parametrize(
    ("module", "arguments"),
    [
        ("compress", ["--help"]),
        ("compress", ["fit", "--help"]),
        ("compress", ["bench", "--help"]),
        ("transfer", ["--help"]),
        ("zoo", ["--help"]),
    ],
)
def test_help_imports_nothing_heavy(module, arguments):
    code = f"from zoo.console import run; from {module}.cli import app; run(app, 'slimzoo', {arguments!r})"
    heavy, said = modules_after(code)
    assert "Usage" in said
    assert heavy == []


def test_the_console_script_is_the_same_command():
    script = Path(sys.executable).with_name("slimzoo")
    if not script.exists():
        pytest.skip("slimzoo is not installed beside this Python")
    verbs = {
        "models",
        "info",
        "fit",
        "eval",
        "predict",
        "prune",
        "quantize",
        "export",
        "bench",
        "report",
        "resume",
        "demo",
    }
    for command in ([script], [sys.executable, "-m", "compress"]):
        done = subprocess.run([*command, "--help"], capture_output=True, text=True, cwd=ROOT, check=True)
        assert verbs <= set(done.stdout.split())


@pytest.mark.parametrize("package", ALLOWED)
def test_package_is_lazy(package):
    heavy, _ = modules_after(f"import {package}")
    assert heavy == []


def test_torch_is_reached_on_first_use():
    """The control of the tests above."""
    heavy, _ = modules_after("import zoo; zoo.create_model('lenet5')")
    assert "torch" in heavy


@pytest.mark.parametrize(("package", "name"), [("transfer", "fit"), ("transfer", "predict"), ("compress", "prune")])
def test_submodule_does_not_hide_the_function_of_its_name(package, name):
    importlib.import_module(f"{package}.{name}")
    assert callable(getattr(importlib.import_module(package), name))


@pytest.mark.parametrize("package", ALLOWED)
def test_every_public_name_resolves(package):
    module = importlib.import_module(package)
    assert module.__all__
    assert dir(module) == module.__all__
    for name in module.__all__ * 2:  # twice: the first time imports the submodule, which may bear the same name
        assert callable(getattr(module, name)), name
    with pytest.raises(AttributeError, match="has no attribute 'nonsense'"):
        module.nonsense  # noqa: B018
