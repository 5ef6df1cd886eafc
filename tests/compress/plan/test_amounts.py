"""Amounts as a person writes them."""

import pytest

from compress.plan.settings import Compress
from zoo.errors import UsageError


@pytest.mark.parametrize(
    ("name", "given", "value"),
    [
        ("latency", "5ms", 5),
        ("latency", "5", 5),  # of this kind everybody means milliseconds
        ("latency", " 0.5 MS ", 0.5),
        ("latency", "250us", 0.25),
        ("latency", "250µs", 0.25),  # the micro sign
        ("latency", "250μs", 0.25),  # the Greek letter
        ("latency", "1.5s", 1500),
        ("latency", 5, 5),
        ("size", "2MB", 2e6),
        ("size", "2 MiB", 2 * 1024**2),
        ("size", "500kB", 5e5),
        ("size", "5GB", 5e9),
        ("size", "2000000", 2e6),
        ("size", 2e6, 2e6),
        ("macs", "50M", 5e7),
        ("macs", "1.5G", 1.5e9),
        ("macs", "5e7", 5e7),
    ],
)
def test_units(name, given, value):
    assert getattr(Compress(**{name: given}), name) == pytest.approx(value)


@pytest.mark.parametrize(
    ("name", "given", "said"),
    [
        ("latency", "5MB", "MB measures a size; wanted a time, such as 5ms"),
        ("latency", "fast", "wanted a time, such as 5ms"),
        ("latency", "0ms", "must be above 0 and finite"),
        ("latency", "-1ms", "wanted a time, such as 5ms"),
        ("latency", "1e999", "must be above 0 and finite"),
        ("latency", 0, "must be above 0 and finite"),
        ("latency", float("nan"), "must be above 0 and finite"),
        ("latency", "5 parsecs", "there is no unit parsecs"),
        ("size", "2", "is a size of what unit. Write 2MB"),
        ("size", "5ms", "ms measures a time; wanted a size, such as 2MB"),
        ("macs", "50", "only 50. Write 50M"),
        ("macs", "50MB", "MB measures a size"),
        ("max_drop", -1, "must be a number from 0 to 100"),
    ],
)
def test_what_is_no_amount_is_said_in_a_line(name, given, said):
    with pytest.raises(UsageError, match=said) as error:
        Compress(**{name: given})
    assert name in str(error.value)
    assert "\n" not in str(error.value)
