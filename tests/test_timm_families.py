"""Other people's networks: the smallest of each of timm's families, and one of each of torchvision's, the whole way."""

from __future__ import annotations

import json
import re

import bench_timm
import pytest
import record

RESULT = record.RESULTS / "timm.json"
ROWS = {row["model"]: row for row in json.loads(RESULT.read_text())["figures"]["rows"]} if RESULT.exists() else {}


def first_of_each_family() -> list[str]:
    """All of timm's rows; of torchvision's the first name of each that begins with the same letters."""
    theirs = {re.match(r"torchvision:[a-z]+", name)[0]: name for name in reversed(ROWS) if name[:2] == "to"}
    return [name for name in ROWS if name.startswith("timm:") or name in theirs.values()]


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("name", first_of_each_family())
def test_the_whole_way(name):
    """Each stage does what the table in the results says of it, and none crashes."""
    stages = bench_timm.in_a_process(name, limit_s=1800)["stages"]
    assert {stage: found["ok"] for stage, found in stages.items()} == {
        stage: found["ok"] for stage, found in ROWS[name]["stages"].items()
    }, stages
    assert all(found["ok"] or found["refused"] for found in stages.values()), stages
