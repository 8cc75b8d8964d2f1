"""Standard errors over independent units, and of differences between models."""

import math

import numpy as np
import pytest

from pyro_afslvm.metrics.uncertainty import FEWEST, difference, estimate

RNG = np.random.default_rng


def test_units_of_one_value_give_the_usual_error() -> None:
    values = RNG(0).normal(size=50)
    found = estimate(values)
    assert found.mean == pytest.approx(values.mean())
    assert found.error == pytest.approx(values.std(ddof=1) / math.sqrt(50))
    assert found.num_units == 50


def test_windows_of_one_video_count_once() -> None:
    """Copies of a value say nothing new: the error is that of the units."""
    values = RNG(0).normal(size=20)
    repeated = estimate(values.repeat(8), units=np.arange(20).repeat(8).tolist())
    assert repeated.error == pytest.approx(estimate(values).error)
    assert estimate(values.repeat(8)).error < 0.4 * repeated.error


def test_covers_the_truth_where_windows_hang_together() -> None:
    """Videos of different lengths, whose windows share most of their variance."""
    sizes, inside, naive = np.array([1, 2, 5, 8, 3] * 6), 0, 0
    units = np.arange(len(sizes)).repeat(sizes)
    for seed in range(400):
        rng = RNG(seed)
        values = rng.normal(size=len(sizes)).repeat(sizes) + 0.3 * rng.normal(size=sizes.sum())
        inside += abs(values.mean()) < 2 * estimate(values, units.tolist()).error
        naive += abs(values.mean()) < 2 * estimate(values).error
    assert 0.90 < inside / 400 < 0.98
    assert naive / 400 < 0.75


@pytest.mark.parametrize("count", [1, 2, FEWEST - 1])
def test_no_error_from_fewer_than_five_units(count: int) -> None:
    values = RNG(0).normal(size=40)
    units = (np.arange(40) % count).tolist()
    found = estimate(values, units)
    assert math.isnan(found.error)
    assert found.num_units == count
    assert found.mean == pytest.approx(values.mean())
    assert math.isnan(difference(values, values + 1, units=(units, units)).error)
    assert not math.isnan(estimate(values, (np.arange(40) % FEWEST).tolist()).error)


def test_differences_are_paired() -> None:
    rng = RNG(1)
    shared = 10 * rng.normal(size=30)
    a, b = shared + 0.1 * rng.normal(size=30), shared - 0.5
    found = difference(a, b)
    assert found.mean == pytest.approx((a - b).mean())
    assert found.error == pytest.approx((a - b).std(ddof=1) / math.sqrt(30))
    assert found.error < 0.05 * estimate(a).error


def test_differences_are_paired_by_unit_where_windows_differ() -> None:
    """As for one and two transforms, whose crops are of different lengths."""
    rng = RNG(2)
    videos = 10 * rng.normal(size=25)
    units = np.arange(25).repeat(4), np.arange(25).repeat(3)
    a = videos.repeat(4) + rng.normal(size=100)
    b = videos.repeat(3) + rng.normal(size=75) - 2
    found = difference(a, b, units=(units[0].tolist(), units[1].tolist()))
    means = a.reshape(25, 4).mean(1) - b.reshape(25, 3).mean(1)
    assert found.mean == pytest.approx(means.mean())
    assert found.error == pytest.approx(means.std(ddof=1) / 5)


def test_differences_are_over_units_that_both_have() -> None:
    a, b = np.arange(8.0), np.arange(8.0) ** 2
    found = difference(a, b, units=([*range(8)], [*range(2, 10)]))
    expected = difference(a[2:], b[:6])
    assert found == expected
    assert found.num_units == 6


@pytest.mark.parametrize(
    ("first", "second", "units", "message"),
    [
        ([1.0], [1.0, 2.0], None, "as many values of both"),
        ([], [], None, "expected values"),
        ([1.0], [2.0], (["a"], ["b"]), "units that both have"),
        ([1.0], [2.0], (["a", "b"], ["b"]), "a unit for each"),
    ],
)
def test_values_that_cannot_be_compared(first, second, units, message) -> None:
    with pytest.raises(ValueError, match=message):
        difference(first, second, units=units)
