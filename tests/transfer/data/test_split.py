"""Splits by their properties: every class in every part, equal images on one side, the same for the same seed."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.datasets import load_digits

from transfer.data.split import stratified_split
from zoo.errors import DataError, UsageError

SHARES = st.sampled_from([0.0, 0.05, 0.1, 0.2, 0.3, 0.45])
# the number of images of each class, enough for three parts
COUNTS = st.lists(st.integers(3, 30), min_size=1, max_size=5)
settings.register_profile("fast", max_examples=60, deadline=None)
settings.load_profile("fast")


def shuffled_labels(counts, seed):
    labels = np.repeat(np.arange(len(counts)), counts)
    return np.random.default_rng(seed).permutation(labels)


@given(COUNTS, SHARES, SHARES, st.integers(0, 3))
def test_every_class_has_its_share_in_every_part(counts, val, test, seed):
    labels = shuffled_labels(counts, seed)
    parts = stratified_split(labels.tolist(), val=val, test=test, seed=seed)
    for label, count in enumerate(counts):
        found = Counter(parts[labels == label].tolist())
        assert sum(found.values()) == count
        assert found["train"] >= 1
        for part, share in (("val", val), ("test", test)):
            assert (found[part] >= 1) == (share > 0)
            # within one image of the share, where the class is large enough to leave one to train on
            if count >= 10:
                assert abs(found[part] - max(1, count * share) * (share > 0)) <= 0.5


@given(COUNTS, st.integers(0, 3))
def test_the_same_seed_gives_the_same_split(counts, seed):
    labels = shuffled_labels(counts, 0).tolist()
    first, second = (stratified_split(labels, val=0.2, test=0.2, seed=seed) for _ in range(2))
    assert first.tolist() == second.tolist()


def test_another_seed_gives_another_split():
    splits = {tuple(stratified_split([0] * 30, val=0.2, test=0.2, seed=seed)) for seed in range(5)}
    assert len(splits) == 5


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 9)), min_size=1, max_size=60), st.integers(0, 3))
def test_like_images_stay_on_one_side_whatever_their_labels(extra, seed):
    own = [(label, 10 * (label + 1) + i) for label in range(3) for i in range(3)]  # three that no other class has
    labels, groups = zip(*own, *extra, strict=True)
    parts = stratified_split(labels, val=0.2, test=0.2, seed=seed, groups=groups)
    sides: dict[int, set[str]] = {}
    for group, part in zip(groups, parts.tolist(), strict=True):
        sides.setdefault(group, set()).add(part)
    assert all(len(found) == 1 for found in sides.values())
    for label in range(3):
        assert {"train", "val", "test"} == set(parts[np.array(labels) == label].tolist())


def test_without_groups_equal_images_leak():
    """The control of the test above: something has to keep them together."""
    parts = stratified_split([0] * 40, val=0.2, test=0.2)
    assert len(set(parts.tolist())) == 3


@pytest.mark.parametrize(("val", "test"), [(0.2, 0.6), (0.6, 0.3), (0.45, 0.45), (0.0, 0.9), (0.9, 0.0)])
@pytest.mark.parametrize("count", [3, 4, 5])
def test_large_shares_of_small_classes_leave_one_for_each_part(count, val, test):
    found = Counter(stratified_split([0] * count, val=val, test=test).tolist())
    assert set(found) == {"train"} | ({"val"} if val else set()) | ({"test"} if test else set())


def test_digits_by_the_written_policy():
    """60/20/20, numpy.random.default_rng(0), one permutation a class in class order, the test part taken first."""
    labels = load_digits().target
    rng, expected = np.random.default_rng(0), np.full(len(labels), "train", dtype="<U5")
    for digit in range(10):
        members = np.flatnonzero(labels == digit)
        order, fifth = rng.permutation(len(members)), round(len(members) * 0.2)
        expected[members[order[:fifth]]] = "test"
        expected[members[order[fifth : 2 * fifth]]] = "val"
    assert stratified_split(labels.tolist(), val=0.2, test=0.2).tolist() == expected.tolist()


@given(COUNTS, SHARES, SHARES, st.integers(0, 3))
def test_images_without_duplicates_are_divided_by_the_written_policy(counts, val, test, seed):
    """One permutation a class in class order, test first: groups of one image change nothing."""
    labels = shuffled_labels(counts, seed)
    rng, expected = np.random.default_rng(seed), np.full(len(labels), "train", dtype="<U5")
    for label in range(len(counts)):
        members = np.flatnonzero(labels == label)
        order = members[rng.permutation(len(members))]
        n_test, n_val = (max(1, round(len(members) * share)) if share else 0 for share in (test, val))
        n_test = min(n_test, len(members) - 1 - bool(val))
        n_val = min(n_val, len(members) - 1 - n_test)
        expected[order[:n_test]], expected[order[n_test : n_test + n_val]] = "test", "val"
    for groups in (None, [f"image {i}" for i in range(len(labels))]):
        found = stratified_split(labels.tolist(), val=val, test=test, seed=seed, groups=groups)
        assert found.tolist() == expected.tolist()


def test_classes_that_share_images_keep_their_shares():
    """40 images of each class, 10 of which the other has too: all counts are those of classes that share none."""
    labels, groups = [0] * 40 + [1] * 40, [*range(40), *range(30, 70)]
    parts = stratified_split(labels, val=0.2, test=0.2, groups=groups)
    for label in (0, 1):
        assert Counter(parts[np.array(labels) == label].tolist()) == {"train": 24, "val": 8, "test": 8}


def test_class_inside_another_still_has_every_part():
    """The smaller class places what both have, so that it gets its own parts."""
    labels, groups = [0] * 20 + [1] * 4, [*range(20), *range(4)]
    parts = stratified_split(labels, val=0.2, test=0.2, groups=groups)
    assert set(parts[20:].tolist()) == set(parts[:20].tolist()) == {"train", "val", "test"}
    assert parts[20:].tolist() == parts[:4].tolist()


def test_no_parts_asked_for_is_all_training():
    assert set(stratified_split([0, 1, 1], val=0.0, test=0.0).tolist()) == {"train"}


@pytest.mark.parametrize(
    ("labels", "groups", "message"),
    [
        ([0, 0, 0, 1], None, "class 'dog' has 1 distinct image; a split into 3 parts wants at least 3"),
        (
            [0, 0, 0, 1, 1, 1],
            list("abcddd"),
            r"class 'dog' has 1 distinct image \(3 with copies of each other; `slimzoo data check`",
        ),
        ([0, 0, 0, 1, 1], None, "class 'dog' has 2 distinct images"),
    ],
)
def test_class_too_small_is_named(labels, groups, message):
    with pytest.raises(DataError, match=message):
        stratified_split(labels, val=0.2, test=0.2, groups=groups, classes=("cat", "dog"))


@pytest.mark.parametrize(("val", "test"), [(0.5, 0.5), (1.0, 0.0), (-0.1, 0.2), (float("nan"), 0.0)])
def test_shares_that_leave_nothing_are_refused(val, test):
    with pytest.raises(UsageError, match="leave something for training"):
        stratified_split([0] * 10, val=val, test=test)
