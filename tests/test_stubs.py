"""The stubs are those of the settings as they are, and say what the functions take."""

import inspect
import re

import pytest
import stubs

import compress
import transfer
import zoo
from compress.verbs import STEPS


@pytest.mark.parametrize("place", stubs.PACKAGES)
def test_they_are_written_by_the_generator(place):
    written = (stubs.ROOT / place).read_text(encoding="utf-8")
    assert written == stubs.stub(stubs.PACKAGES[place], whole="slimzoo" not in place), "run python benchmarks/stubs.py"


@pytest.mark.parametrize("name", STEPS)
def test_a_step_takes_what_its_stub_says(name):
    text = (stubs.ROOT / f"{STEPS[name].function.partition('.')[0]}/__init__.pyi").read_text(encoding="utf-8")
    body = text.partition(f"def {name}(")[2].partition(") ->")[0]
    said = {line.strip().partition(":")[0] for line in body.splitlines() if ":" in line}
    assert said - {"whole"} == set(inspect.signature(STEPS[name].load_function()).parameters)


@pytest.mark.parametrize("package", [zoo, transfer, compress])
def test_every_type_that_a_public_function_names_is_public(package):
    public = {**zoo.HOMES, **transfer.HOMES, **compress.HOMES}
    missing = {}
    for name in package.__all__:
        function = getattr(package, name)
        if not inspect.isfunction(function):
            continue
        signature = inspect.signature(function)
        said = " ".join([*(str(p.annotation) for p in signature.parameters.values()), str(signature.return_annotation)])
        for word in stubs.words(re.sub(r"'[^']*'", "", said)):  # without the words that a Literal lists
            known = inspect.unwrap(function).__globals__.get(word)
            module = str(getattr(known, "__module__", ""))
            if module.partition(".")[0] in ("zoo", "transfer", "compress") and word not in public:
                missing.setdefault(word, name)
    assert missing == {}
