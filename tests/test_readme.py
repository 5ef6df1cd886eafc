"""The README's table of models is the registry's."""

from __future__ import annotations

from pathlib import Path

import zoo
from zoo.cards import brief

README = Path(__file__).parents[1] / "README.md"


def test_the_table_of_models_is_the_registrys():
    table = README.read_text(encoding="utf-8").partition("<!-- zoo -->\n")[2].partition("<!-- /zoo -->")[0]
    rows = [[cell.strip(" `") for cell in line.split("|")[1:-1]] for line in table.splitlines()[2:]]
    assert [row[0] for row in rows] == zoo.list_models(), "run python benchmarks/readme.py"
    for name, params, macs, size, *_ in rows:
        card = brief(name)
        assert params == f"{card['params']:,}"
        assert macs == f"{card['macs'] / 1e6:,.1f} M"
        assert size == "x".join(map(str, card["input_size"]))
