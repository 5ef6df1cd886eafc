"""The table of rules: a new operator's name behind a rule that fits is all that it takes to cut what enters it."""

import pytest
import torch
from small_networks import WIDTH, Around
from torch import nn

from compress.dependency.groups import find_groups
from compress.dependency.joining import windows
from compress.dependency.operators import RULES

NEW = torch.ops.aten.fractional_max_pool2d


def first_is_cut() -> bool:
    model = Around(nn.FractionalMaxPool2d(2, output_size=4)).eval()
    groups = find_groups(model, torch.empty(1, *model.size, device="meta")).groups
    return any(group.name == "first" and group.width == WIDTH for group in groups)


def test_a_rule_is_added_by_name(monkeypatch: pytest.MonkeyPatch):
    assert not first_is_cut()
    monkeypatch.setitem(RULES, NEW, windows)
    assert first_is_cut()
