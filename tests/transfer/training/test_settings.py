import pytest

from transfer.fitting.settings import rate, seconds
from transfer.training.recipe import Recipe
from transfer.training.settings import read_settings, with_settings
from zoo.errors import UsageError


def test_fields_of_the_recipe_and_of_its_augmentation_are_set():
    settings = read_settings(["optimizer=sgd", "lr=1", "augment.flip=false", "augment.rotate_deg=0", "patience=3"])
    recipe = with_settings(Recipe(), settings)
    assert (recipe.optimizer, recipe.lr, recipe.patience) == ("sgd", 1.0, 3)
    assert (recipe.augment.flip, recipe.augment.rotate_deg) == (False, 0.0)
    assert recipe.augment.shift == Recipe().augment.shift
    assert with_settings(Recipe(), {}) == Recipe()


@pytest.mark.parametrize(
    ("word", "value"),
    [
        ("lr=1", 1.0),
        ("lr=1e-3", 0.001),
        ("lr=1E-3", 0.001),
        ("lr=.5", 0.5),
        ("epochs=3.0", 3),
        ("epochs=1e1", 10),
        ("batch=010", 10),
        ("seed=7", 7),
        ("clip_norm=inf", float("inf")),
    ],
)
def test_a_number_is_that_number_however_it_is_written(word, value):
    name = word.partition("=")[0]
    found = getattr(with_settings(Recipe(), read_settings([word])), name)
    assert (found, type(found)) == (value, type(getattr(Recipe(), name)))


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("optimiser=sgd", "did you mean 'optimizer'"),
        ("optimizer", "wanted NAME=VALUE"),
        ("optimizer=sdg", "did you mean 'sgd'"),
        ("epochs=2.5", "must be a whole number"),
        ("epochs=true", "must be a whole number"),
        ("epochs=inf", "must be a whole number"),
        ("lr=true", "must be a number"),
        ("freeze_statistics=1", "must be true or false"),
        ("augment.flipp=true", "did you mean 'augment.flip'"),
        ("augment=1", "unknown setting 'augment'"),
        ("ema=1.5", "must be in"),
    ],
)
def test_a_wrong_setting_is_answered_with_what_was_wanted(word, message):
    with pytest.raises(UsageError, match=message):
        read_settings([word])


@pytest.mark.parametrize(("word", "wanted"), [("90s", 90), ("90", 90), ("10m", 600), ("1.5h", 5400), ("1h30m", 5400)])
def test_times_are_read(word, wanted):
    assert seconds(word) == wanted


@pytest.mark.parametrize("word", ["", "0s", "ten", "10 minutes", "-5m", "1..2m"])
def test_what_is_no_time_is_refused(word):
    with pytest.raises(UsageError, match="wanted seconds, minutes or hours"):
        seconds(word)


def test_rates_are_numbers_or_find():
    assert (rate("1e-3"), rate("find"), rate(None)) == (1e-3, "find", None)
    for word in ("0", "fnd", "nan", "inf", "-1"):
        with pytest.raises(UsageError, match="or 'find'"):
            rate(word)
