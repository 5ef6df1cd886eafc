"""The two pages for readers: no figure that no file carries, no code, command or path that does not work."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import readme

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
TEXT = README.read_text(encoding="utf-8")
PAGES = pytest.mark.parametrize("page", readme.PAGES, ids=lambda page: str(page.relative_to(ROOT)))


def fenced(language):
    """The blocks of a language, each after as many empty lines as stand before it: an error names the README's line."""
    blocks = re.finditer(rf"^```{language}\n(.*?)^```$", TEXT, re.DOTALL | re.MULTILINE)
    return ["\n" * TEXT.count("\n", 0, block.start(1)) + block[1] for block in blocks]


FIRST, OWN, *RECIPES = fenced("python")
TITLES = re.findall(r"^\*\*An? ([a-z ]+)\*\*", TEXT, re.MULTILINE)


@PAGES
def test_figures_are_those_of_the_results(page):
    text = page.read_text(encoding="utf-8")
    assert text == readme.regenerated(text), "run python benchmarks/readme.py"


def test_every_section_stands_in_one_page():
    marked = [found[2] for page in readme.PAGES for found in readme.SECTION.finditer(page.read_text(encoding="utf-8"))]
    assert sorted(marked) == sorted((readme.OPTIONS, *readme.SECTIONS))


@PAGES
def test_a_wrong_figure_is_seen(page):
    """The control of the first test: in any section."""
    text = page.read_text(encoding="utf-8")
    for found in readme.SECTION.finditer(text):
        wrong = text[: found.end(1)] + "9" + text[found.end(1) :]
        assert readme.regenerated(wrong) == text


@PAGES
def test_paths_exist(page):
    text = re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    links = {(page.parent / link).resolve() for link in re.findall(r"\]\(([^)#:]+)\)", text)}
    named = {ROOT / name for name in re.findall(r"`((?:zoo|transfer|compress|tests|benchmarks)/[\w/.]+)`", text)}
    scripts = {ROOT / name for name in re.findall(r"`python (benchmarks/\w+\.py)", text)}
    assert len(links | named | scripts) > 5
    assert [path for path in links | named | scripts if not path.exists()] == []


def test_it_is_read_in_one_sitting():
    assert TEXT.count("\n") < 250


def commands():
    lines = "\n".join(fenced("sh")).splitlines()
    inline = re.findall(r"`(slimzoo [a-z]+ [a-z][\w/.]* [^`|]*)`", TEXT)
    return [shlex.split(line, comments=True) for line in (*lines, *inline) if line.startswith("slimzoo")]


@pytest.mark.parametrize("words", commands(), ids=" ".join)
def test_commands_have_these_options(words, slimzoo):
    """An unknown verb or option is refused before help is given."""
    done = slimzoo(*words[1:], "--help")
    assert done.code == 0, done.err


@pytest.mark.parametrize("row", re.findall(r"^\| `slimzoo .*", TEXT, re.MULTILINE), ids=lambda row: row.split("`")[1])
def test_the_table_of_commands_names_their_options(row, slimzoo, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    verb = re.match(r"\| `slimzoo ([a-z]+(?: [a-z]+)*)", row)[1].split()
    options = set(re.findall(r"(?<= )--[a-z-]+|(?<=[`\[])--[a-z-]+", row.partition("torchrun")[0]))
    assert options - set(slimzoo(*verb, "--help").out.split()) == set()


def test_an_unknown_option_is_seen(slimzoo):
    """The control of the tests of commands."""
    assert slimzoo("fit", "photos", "--nonsense", "1", "--help").code == 2


def run_block(block, folder):
    """As a reader would, in a process of its own."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
    code = f"import sys; exec(compile(sys.stdin.read(), {str(README)!r}, 'exec'), {{'__name__': '__main__'}})"
    done = subprocess.run(
        [sys.executable, "-c", code], input=block, capture_output=True, text=True, cwd=folder, env=environment
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Where the first example has left its models."""
    folder = tmp_path_factory.mktemp("reader")
    (folder / "said").write_text(run_block(FIRST, folder), encoding="utf-8")
    return folder


def test_the_example_ends_with_a_verdict(folder):
    assert "int8" in (folder / "said").read_text(encoding="utf-8")
    assert (folder / "run" / "report.html").exists()


def test_the_examples_are_typed(tmp_path):
    """By the stubs, as strictly as the packages are."""
    files = []
    for number, block in enumerate([FIRST, OWN, *RECIPES]):
        files.append(tmp_path / f"example_{number}.py")
        files[-1].write_text(block, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--config-file", ROOT / "pyproject.toml", *files],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env=os.environ | {"MYPYPATH": str(ROOT / "compress")},
    )
    assert done.returncode == 0, done.stdout


def test_own_module_and_what_it_saved(folder):
    said = run_block(OWN, folder)
    assert "Sequential-fit-prune-quantize" in said
    run_block("import slimzoo, torch; slimzoo.load_model('run/own').model(torch.zeros(3, 2, 16, 16))", folder)


@pytest.mark.parametrize("block", RECIPES, ids=TITLES)
def test_recipe(block, folder):
    run_block(block, folder)


def test_there_are_three_recipes():
    assert TITLES == ["model", "criterion", "number format"]
