"""Values with names: the built-in ones, and the user's own by object and by module:object."""

import pytest

from compress.pruning.settings import CRITERIA, Choice
from zoo.choices import Choices
from zoo.errors import UsageError

MEANS = Choices("mean", {"arithmetic": "statistics:mean", "geometric": "statistics:geometric_mean"})


def own(values):
    return max(values)


def test_names_are_found_and_nothing_is_imported_before():
    import statistics

    assert list(MEANS) == ["arithmetic", "geometric"]
    assert MEANS.value("geometric") is statistics.geometric_mean
    assert Choices("x", {"a": "no_such_module:a"}).checked("a") == "a"
    assert MEANS.name(statistics.mean) == "arithmetic"
    assert MEANS.value(None) is None


def test_ones_own_object_works_and_is_named_by_where_it_is():
    assert MEANS.value(own) is own
    assert MEANS.name(own) == "test_choices:own"
    assert MEANS.value(MEANS.checked("test_choices:own")) is own


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("arithmetik", "unknown mean 'arithmetik'; did you mean 'arithmetic'. .one of your own is named module:object"),
        ("nowhere:own", "mean 'nowhere:own' cannot be imported: No module named 'nowhere'"),
        ("statistics:middle", "mean 'statistics:middle' cannot be imported"),
    ],
)
def test_what_is_neither_is_refused(word, said):
    with pytest.raises(UsageError, match=said):
        MEANS.checked(word)


def test_a_choice_is_recorded_by_its_name():
    assert Choice(criterion="l1").arguments()["criterion"] == "l1"
    assert Choice(criterion=CRITERIA["l1"]).arguments()["criterion"] == "l1"
    assert Choice(criterion=own).arguments()["criterion"] == "test_choices:own"
    assert Choice(**Choice(criterion=own, rounds=2).arguments()) == Choice(criterion="test_choices:own", rounds=2)
