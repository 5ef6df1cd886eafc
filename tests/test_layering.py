"""Imports point down and form no circle, nothing heavy is imported before it is needed, public names resolve."""

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


def source_files():
    return [path for package in ALLOWED for path in sorted((ROOT / package).rglob("*.py"))]


def module_name(path):
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imported(source):
    """Names that a file imports anywhere, also inside functions: modules, and what is taken from them."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute here"
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return found


@pytest.fixture(scope="module")
def imports():
    """Module of the three packages -> those that it imports."""
    modules = {module_name(path): path for path in source_files()}
    assert len(modules) > 200
    found = {
        name: imported(path.read_text(encoding="utf-8")) & modules.keys() - {name} for name, path in modules.items()
    }
    packages = {name for name, path in modules.items() if path.name == "__init__.py"}
    for name, theirs in found.items():  # `from zoo.files import surgery` runs zoo/files/__init__.py, and takes a file
        found[name] = {
            each for each in theirs if each not in packages or not any(o.startswith(f"{each}.") for o in theirs)
        }
    return found


def room(module):
    """A folder of a package, or a file beside the folders, which is a room of its own."""
    parts = module.split(".")
    path = ROOT.joinpath(*parts)
    return module if path.is_dir() or len(parts) == 2 else module.rpartition(".")[0]


def circles(graph):
    """Strongly connected parts of more than one node (Tarjan 1972)."""
    order, low, stack, found = {}, {}, [], []

    def visit(node):
        order[node] = low[node] = len(order)
        stack.append(node)
        for other in sorted(graph.get(node, ())):
            if other not in order:
                visit(other)
            if other in stack:
                low[node] = min(low[node], low[other])
        if low[node] == order[node]:
            at = stack.index(node)
            part = stack[at:]
            del stack[at:]
            if len(part) > 1:
                found.append(sorted(part))

    for node in graph:
        if node not in order:
            visit(node)
    return found


@pytest.mark.parametrize("layer", ALLOWED)
def test_imports_point_down(layer, imports):
    for module, theirs in imports.items():
        if module.partition(".")[0] == layer:
            upward = {name.partition(".")[0] for name in theirs} - ALLOWED[layer]
            assert not upward, f"{module} imports {sorted(upward)}, which is above {layer}"


def test_no_files_import_each_other_in_a_circle(imports):
    assert circles(imports) == []


def test_no_rooms_import_each_other_in_a_circle(imports):
    rooms = {}
    for module, theirs in imports.items():
        rooms.setdefault(room(module), set()).update(room(name) for name in theirs)
    assert circles({name: theirs - {name} for name, theirs in rooms.items()}) == []


def test_the_finder_of_circles_finds_them():
    """The control of the two tests above."""
    assert circles({"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": {"a"}}) == [["a", "b", "c"]]
    assert circles({"a": {"b", "c"}, "b": {"c"}, "c": set()}) == []


def test_the_reader_of_imports_sees_them_all():
    source = "import compress.cli as c\ndef f():\n    from transfer.data.dataset import open_data\n"
    assert {"compress.cli", "transfer.data.dataset"} <= imported(source)


@pytest.mark.parametrize("package", ALLOWED)
def test_no_function_is_named_like_a_folder_or_file_beside_it(package):
    beside = {path.stem for path in (ROOT / package).glob("*.py")}
    beside |= {path.parent.name for path in (ROOT / package).glob("*/__init__.py")}
    assert not set(importlib.import_module(package).__all__) & beside


def test_tests_import_the_benchmarks_by_name():
    """`pythonpath` in pyproject.toml finds them; no test loads a file of theirs by its path."""
    for path in (ROOT / "tests").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and path != Path(__file__):
                assert not node.value.startswith("benchmarks/") or node.value.count("\n"), f"{path}:{node.lineno}"


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


@pytest.mark.parametrize("package", ALLOWED)
def test_every_public_name_resolves(package):
    module = importlib.import_module(package)
    assert module.__all__
    assert dir(module) == module.__all__
    for name in module.__all__ * 2:  # twice: the first time imports the submodule, which may bear the same name
        assert callable(getattr(module, name)), name
    with pytest.raises(AttributeError, match="has no attribute 'nonsense'"):
        module.nonsense  # noqa: B018


MOST_LINES, LONGEST_FUNCTION = 350, 60


@pytest.mark.parametrize("path", source_files(), ids=module_name)
def test_files_and_functions_are_short_enough_to_be_read(path):
    text = path.read_text(encoding="utf-8")
    assert text.count("\n") <= MOST_LINES
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef):
            assert node.end_lineno - node.lineno < LONGEST_FUNCTION, node.name
