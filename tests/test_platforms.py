"""What a platform lacks is not needed: every module and every verb, without the modules that only POSIX has."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("zoo", "transfer", "compress")
SHIPPED = tuple(f"compress.deployment.{name}" for name in ("infer", "on_openvino", "bench"))  # for deploy/
BLOCKED = Path(__file__).with_name("posix_blocked")

EVERY_MODULE = """
import importlib, pkgutil, sys
assert sys.modules["fcntl"] is None
for package in {packages!r}:
    for module in pkgutil.walk_packages(importlib.import_module(package).__path__, package + "."):
        if not module.name.endswith("__main__") and module.name not in {shipped!r}:
            importlib.import_module(module.name)
"""

# one process for all verbs: importing torch costs more than they do
EVERY_VERB = """
import sys, torch
torch.set_num_threads(1)
from compress.__main__ import main
for verb in {verbs!r}:
    sys.argv = ["slimzoo", *verb]
    try:
        main()
    except SystemExit as done:
        assert not done.code, verb
"""


def run_blocked(code, **environment):
    path = os.pathsep.join(filter(None, (str(BLOCKED), str(ROOT), os.environ.get("PYTHONPATH"))))
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        encoding="utf-8",
        env=os.environ | {"PYTHONPATH": path, **environment},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_every_module_is_imported():
    run_blocked(EVERY_MODULE.format(packages=PACKAGES, shipped=SHIPPED))


def test_verbs(tmp_path):
    from PIL import Image

    picture, model = tmp_path / "seven.png", tmp_path / "mïne"
    Image.new("L", (28, 28), 200).save(picture)
    verbs = [
        ["models", "lenet*"],
        ["fit", "digits", "--model", "lenet5", "--method", "scratch", "--epochs", "1", "--size", "28", "--out", model],
        ["predict", model, picture],
        ["export", model],
        ["bench", model, "--rounds", "3", "--runtime", "onnxruntime", "--save", tmp_path / "bench.json"],
    ]
    words = [[str(word) for word in verb] for verb in verbs]
    said = run_blocked(EVERY_VERB.format(verbs=words), PYTHONIOENCODING="ascii", SLIMZOO_CACHE=str(tmp_path / "cache"))
    assert "m\\xefne" in said  # what a console cannot show is written as an escape
    assert "onnxruntime" in said
    assert "not measured" not in said


def reads_or_writes_text(call):
    name = getattr(call.func, "attr", getattr(call.func, "id", ""))
    words = [word.value for word in [*call.args, *(k.value for k in call.keywords)] if isinstance(word, ast.Constant)]
    if name == "open":  # path.open too, but not the open of other things, which has no mode
        return isinstance(call.func, ast.Name) and not any("b" in str(word) for word in words)
    options = {k.arg for k in call.keywords if getattr(k.value, "value", None) is True}
    return name in ("read_text", "write_text") or bool({"text", "universal_newlines"} & options)


@pytest.mark.parametrize("package", PACKAGES)
def test_text_has_an_encoding(package):
    """Of files and of other programs, and not the locale's, which is cp1252 on many a Windows."""
    for path in (ROOT / package).rglob("*.py"):
        for call in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(call, ast.Call) and reads_or_writes_text(call):
                assert "encoding" in {k.arg for k in call.keywords}, f"{path}:{call.lineno}: wanted encoding="
