"""The wheel in an environment of its own, outside the repository: `import slimzoo`, and the main job."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("zoo", "transfer", "compress")
MAIN_JOB = """
import slimzoo

fitted = slimzoo.fit("digits", model="lenet5", method="scratch", epochs=1, out="mine")
pruned = slimzoo.prune("mine", slimzoo.Prune(macs=0.6, recover=0), data="digits", out="small")
exported = slimzoo.export("small")
print(fitted.after.val.top1, pruned.after.macs / pruned.before.macs, exported.file)
"""


def run(*command, cwd, **environment):
    done = subprocess.run(
        [str(word) for word in command],
        capture_output=True,
        text=True,
        cwd=cwd,
        env={k: v for k, v in os.environ.items() if k != "PYTHONPATH"} | {"OMP_NUM_THREADS": "1", **environment},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def environment(tmp_path_factory):
    """The folder of an environment's programs: the wheel is in it, and what it depends on is found where it is here."""
    folder = tmp_path_factory.mktemp("installed")
    source = folder / "source"
    source.mkdir()
    for name in (*PACKAGES, "pyproject.toml", "README.md", "LICENSE"):
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, source / name)
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]
    run(*pip, "wheel", source, "--no-deps", "--no-build-isolation", "--wheel-dir", folder, cwd=folder)
    (wheel,) = folder.glob("*.whl")
    run(sys.executable, "-m", "venv", "--without-pip", folder / "venv", cwd=folder)
    programs = folder / "venv" / ("Scripts" if os.name == "nt" else "bin")
    run(*pip, "--python", programs / "python", "install", "--no-deps", wheel, cwd=folder)
    (site,) = (folder / "venv").glob("**/site-packages")
    (site / "here.pth").write_text(sysconfig.get_paths()["purelib"] + "\n")  # its own .pth files are not read
    return programs


@pytest.mark.parametrize("beside", [(), ("zoo", "transfer", "compress")])
def test_the_main_job_runs_from_anywhere(environment, tmp_path, beside):
    """Also where the user has folders of those names, of photographs say."""
    for name in beside:
        (tmp_path / name / "cats").mkdir(parents=True)
    (tmp_path / "job.py").write_text(MAIN_JOB)
    top1, share, file = run(environment / "python", "job.py", cwd=tmp_path).split()
    assert float(top1) > 0.2
    assert 0.3 < float(share) <= 0.6
    assert file == str(Path("small") / "model.onnx")
    said = json.loads(run(environment / "slimzoo", "info", "small", "--json", cwd=tmp_path))
    assert said["architecture"] == "lenet5"


def test_one_name_has_all_and_the_version(environment, tmp_path):
    script = "import slimzoo, zoo; print(zoo.__file__, slimzoo.__version__, *slimzoo.__all__)"
    where, version, *names = run(environment / "python", "-c", script, cwd=tmp_path).split()
    assert Path(where).is_relative_to(environment.parent)
    assert run(environment / "slimzoo", "--version", cwd=tmp_path).strip() == version
    assert {"fit", "prune", "create_model", "Recipe"} <= set(names)
    with (ROOT / "pyproject.toml").open("rb") as file:
        assert tomllib.load(file)["project"]["version"] == version


def test_every_folder_is_in_the_wheel():
    with (ROOT / "pyproject.toml").open("rb") as file:
        packages = tomllib.load(file)["tool"]["setuptools"]["packages"]
    folders = {
        ".".join(path.parent.relative_to(ROOT).parts)
        for name in PACKAGES
        for path in (ROOT / name).rglob("__init__.py")
    }
    assert set(packages) == folders - {"compress.slimzoo"} | {"slimzoo"}
    for package in packages:
        assert package in ("slimzoo",) or (ROOT / Path(*package.split("."))).is_dir()
