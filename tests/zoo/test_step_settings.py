"""Settings are written once: what the command line, a record and a report need is derived from a field."""

from __future__ import annotations

import inspect
import re
from dataclasses import replace
from typing import Literal

import pytest
import typer
from typer.testing import CliRunner

from compress.report.sections import command
from compress.verbs import PRUNE, STEPS
from zoo.call import takes
from zoo.command_line import command_line
from zoo.errors import UsageError
from zoo.settings import Seeded, option


class Bake(Seeded):
    """How a cake is baked."""

    minutes: float = option(30.0, "In the oven.", gt=0, le=120)
    layers: int = option(1, "Of the cake.", ge=1)
    icing: Literal["sugar", "chocolate"] | None = option(None, "On top.")
    vegan: bool = option(False, "No eggs.")
    warm: bool = option(True, "Served at once.", flags=("--warm/--cold",))
    nuts: tuple[str, ...] = option((), "Can be given again.", metavar="NUT")


STEP = replace(
    PRUNE,
    name="bake",
    settings="test_step_settings:Bake",
    function="test_step_settings:bake",
    explain="",
    adopt="",
    source="oven",
)


class Done:
    record = {}  # noqa: RUF012

    def __init__(self, arguments):
        self.arguments = arguments

    def lines(self):
        return [f"{name}={value!r}" for name, value in self.arguments.items()]

    def lost(self):
        return []

    next = lost


@takes(STEP)
def bake(oven, settings, call):
    return Done(call.run().arguments)


def baked(*words):
    done = CliRunner().invoke(command_line([STEP], help=""), ["bake", "mine", "--out", "cake", *words])
    assert done.exception is None or isinstance(done.exception, SystemExit | UsageError), done.exception
    return done


def test_a_field_is_an_option_a_keyword_an_argument_of_the_record_and_of_the_command_to_repeat():
    """The one line `layers: int = option(...)` is all there is of it."""
    assert "layers=2" in baked("--layers", "2").output
    assert "layers" in inspect.signature(bake).parameters
    arguments = bake("mine", out="cake", layers=2).arguments
    assert arguments["layers"] == 2
    assert STEPS.setdefault("bake", STEP) is STEP
    assert command({"verb": "bake", "arguments": arguments}) == "slimzoo bake mine --out cake --layers 2"
    assert bake(arguments.pop("oven"), **arguments).arguments["layers"] == 2  # as `resume` calls it
    del STEPS["bake"]


def test_the_help_says_the_default_and_no_two_options_are_lost():
    said = re.sub(r"[\s│]+", " ", baked("--help").output)
    for word in ("--minutes", "[default: 30.0]", "--cold", "--vegan", "NUT", "Can be given again."):
        assert word in said


@pytest.mark.parametrize(
    ("words", "name", "value"),
    [
        (["--minutes", "12"], "minutes", 12.0),
        (["--icing", "sugar"], "icing", "sugar"),
        (["--vegan"], "vegan", True),
        (["--cold"], "warm", False),
        (["--nuts", "hazel", "--nuts", "wal"], "nuts", ["hazel", "wal"]),
        (["--seed", "3"], "seed", 3),
    ],
)
def test_words_become_values_and_values_words_again(words, name, value):
    assert f"{name}={value!r}" in baked(*words).output
    arguments = bake("mine", out="cake", **{name: value}).arguments
    again = {each.name: each for each in Bake.options()}[name].words(arguments[name])
    assert f"{name}={value!r}" in baked(*again).output


def test_a_record_names_what_is_read_from_everywhere_and_what_is_made_as_it_was_named(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("a", "c"):
        (tmp_path / name).touch()
    found = bake("a", out="b", data="c").arguments
    assert (found["oven"], found["data"], found["out"]) == (str(tmp_path / "a"), str(tmp_path / "c"), "b")
    assert bake("digits", out="b", data="elsewhere").arguments["data"] == "elsewhere"


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"minutes": 0}, "minutes=0 must be a number above 0 and at most 120"),
        ({"minutes": "long"}, "minutes='long' must be a number above 0"),
        ({"layers": 1.5}, "layers=1.5 must be a whole number at least 1"),
        ({"vegan": "perhaps"}, "vegan='perhaps' must be true or false"),
        ({"icing": "suger"}, "unknown icing 'suger'; did you mean 'sugar'"),
        ({"seed": -1}, "seed=-1 must be a whole number at least 0"),
        ({"minuts": 3}, "unknown setting 'minuts'; did you mean 'minutes'"),
    ],
)
def test_what_does_not_hold_is_one_line(given, said):
    with pytest.raises(UsageError, match=re.escape(said)) as caught:
        Bake(**given)
    assert "\n" not in str(caught.value)


def test_settings_can_be_handed_over_whole_and_changed_by_keywords():
    whole = Bake(layers=3, vegan=True)
    assert bake("mine", whole, out="cake").arguments["layers"] == 3
    found = bake("mine", whole, out="cake", layers=4).arguments
    assert (found["layers"], found["vegan"], whole.layers) == (4, True, 3)
    with pytest.raises(TypeError, match="unexpected keyword argument 'sugar'"):
        bake("mine", out="cake", sugar=1)


@pytest.mark.parametrize("name", list(STEPS))
def test_every_step_is_what_its_record_says(name):
    """Its function takes the keywords that the command line will hand it, and the defaults make settings."""
    step = STEPS[name]
    function = step.load_function()
    assert function.__name__ == name
    parameters = inspect.signature(function).parameters
    assert next(iter(parameters)) == step.source
    fields = [each.name for each in step.load_settings().options()]
    assert set(fields) <= parameters.keys()
    assert ("data" in parameters) == (step.data != "none" or step.source == "data")
    assert ("resume" in parameters) == step.resumes
    for each in step.load_settings().options():
        assert each.help.endswith((".", ":", "5ms", "0.006.")), each.name
    app = typer.main.get_command(command_line([step], help=""))
    words = {word for each in step.load_settings().options() for flag in each.flags for word in flag.split("/")}
    said = CliRunner().invoke(command_line([step], help=""), [name, "--help"], terminal_width=200).output
    assert app.list_commands(None) == [name]
    assert all(word in said for word in words)
