"""The command line of all verbs: what a shell completes, what it says of itself, and in which order."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from typer.testing import CliRunner

import compress.verbs
import transfer.verbs
import zoo.verbs
from compress.cli import app

VERBS = [*zoo.verbs.VERBS, *transfer.verbs.VERBS, *compress.verbs.VERBS]


@pytest.mark.parametrize(
    ("typed", "completed"),
    [
        ("slimzoo pr", ["predict", "prune"]),
        ("slimzoo prune --spa", ["--sparse-epochs"]),
        ("slimzoo data ch", ["check"]),
    ],
)
def test_a_shell_completes_verbs_and_their_options(typed, completed):
    asked = {"_SLIMZOO_COMPLETE": "complete_bash", "COMP_WORDS": typed, "COMP_CWORD": str(typed.count(" "))}
    done = subprocess.run(
        [sys.executable, "-c", "from compress.__main__ import main; main()"],
        capture_output=True,
        text=True,
        env={**os.environ, **asked},
    )
    assert done.stdout.split() == completed, done.stderr


def test_help_has_panels_by_the_order_of_use():
    said = CliRunner().invoke(app, ["--help"]).output
    panels = list(dict.fromkeys(verb.panel for verb in VERBS))
    assert len(panels) == 4
    places = [said.index(panel) for panel in panels]
    assert places == sorted(places)
    names = [line.split()[1] for line in said[places[0] :].splitlines() if line.startswith("│ ") and line[2] != " "]
    assert names == [verb.name for verb in VERBS]


@pytest.mark.parametrize("verb", VERBS, ids=lambda verb: verb.name)
def test_every_verb_is_what_its_record_says(verb):
    done = CliRunner().invoke(app, [verb.name, "--help"], terminal_width=400)
    assert done.exit_code == 0, done.output
    assert verb.help.split(":")[0].split(".")[0] in " ".join(done.output.split())


def test_a_typo_is_answered_with_the_right_word():
    assert "Did you mean 'prune'" in CliRunner().invoke(app, ["prun"]).output
