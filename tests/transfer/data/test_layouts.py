"""Folders, tables and archives as people have them are read as a person would read them, or refused with the reason."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import layouts
import pytest

from transfer.data.sources import index_listing, list_source
from zoo.errors import DataError

ROOT = Path(__file__).parents[3]
CASES = list(layouts.cases(seed=0))


def test_there_are_many_and_no_name_twice():
    assert len({case.name for case in CASES}) == len(CASES) >= 60
    assert sum(case.counts is None for case in CASES) >= 15


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_it_is_read_as_a_person_would_or_refused_with_the_reason(case, tmp_path):
    source = case.make(tmp_path / "pets")
    if case.counts is None:
        with pytest.raises(DataError, match=case.error) as caught:
            index_listing(list_source(source, layout=case.layout))
        assert "\n" not in str(caught.value)
        return
    listing = list_source(source, layout=case.layout)
    data = index_listing(listing)
    found = Counter((part, data.classes[label]) for part, label in zip(data.parts, data.labels, strict=True))
    assert found == case.counts
    for said in case.said:
        assert any(re.search(said, note) for note in listing.notes), listing.notes
