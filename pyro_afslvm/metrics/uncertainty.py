"""Means over sequences, their standard errors, and those of differences between models."""

import math
from collections.abc import Hashable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

FEWEST = 5  # independent units, of which a standard error is more than a guess


class Estimate(NamedTuple):
    """A mean and its standard error, NaN where fewer than five independent units stand behind."""

    mean: float
    error: float
    num_units: int


def estimate(
    values: ArrayLike,
    units: Sequence[Hashable] | None = None,
    *,
    weights: ArrayLike | None = None,
) -> Estimate:
    r"""Compute the mean of values and its standard error over independent units.

    .. math:: m = \sum_i w_i v_i, \qquad
        s^2 = \frac{G}{G - 1} \sum_{g=1}^{G} \Big( \sum_{i \in g} w_i (v_i - m) \Big)^2

    with weights :math:`w_i` that add up to one. Values of one unit, such as windows of one video,
    may depend on one another in any way. If every value is a unit and all weigh the same, s is
    the usual standard error of a mean.

    Args:
        values: (n,), of any unit.
        units: the unit that each value belongs to; by default each is one by itself.
        weights: (n,), of any sum, such as the frames that each value is the mean of; by default
            all are equal.

    Raises:
        ValueError: there are no values, or not one unit and one weight for each.

    Source: Cameron, Miller, *A Practitioner's Guide to Cluster-Robust Inference*, for a
    regression on a constant.

    >>> estimate([1.0, 2.0, 3.0, 4.0, 5.0]).error == math.sqrt(2.5 / 5)
    True
    >>> estimate([1.0, 2.0, 3.0, 4.0, 5.0], units=["a", "a", "b", "b", "c"]).error
    nan
    """
    found, names = _checked(values, units)
    shares = _shares(found, weights)
    return Estimate(float((shares * found).mean()), *_spread(_influence(found, names, shares)))


def difference(
    first: ArrayLike,
    second: ArrayLike,
    *,
    units: tuple[Sequence[Hashable], Sequence[Hashable]] | None = None,
    weights: tuple[ArrayLike | None, ArrayLike | None] = (None, None),
) -> Estimate:
    r"""Compute the difference of two means, paired by unit, over the units that both have.

    .. math:: d = m^a - m^b, \qquad s^2 = \frac{G}{G - 1} \sum_g \Big(
        \sum_{i \in g} w^a_i (a_i - m^a) - \sum_{i \in g} w^b_i (b_i - m^b) \Big)^2

    On the same values of the same units that is the error of the mean of their differences.

    Args:
        first: (n,) of one model.
        second: (k,) of another one, on the same units.
        units: the unit of each value of both; by default values are paired one by one.
        weights: of the values of both; by default all are equal.

    Raises:
        ValueError: the two share no unit, or lack units for their values.

    >>> difference([1.0, 2.0, 3.0, 4.0, 5.0], [0.0, 1.0, 2.0, 3.0, 4.0])
    Estimate(mean=1.0, error=0.0, num_units=5)
    """
    pairs = [_checked(v, u) for v, u in zip((first, second), units or (None, None), strict=True)]
    if units is None and len(pairs[0][0]) != len(pairs[1][0]):
        raise ValueError(
            f"expected as many values of both without units, got {len(pairs[0][0])} and "
            f"{len(pairs[1][0])}"
        )
    both = {*pairs[0][1]} & {*pairs[1][1]}
    if not both:
        raise ValueError("expected units that both have, got none")
    means, influences = [], []
    for (found, names), given in zip(pairs, weights, strict=True):
        kept = np.array([name in both for name in names])
        of_both = found[kept]
        shares = _shares(of_both, None if given is None else np.asarray(given)[kept])
        chosen = [name for name, is_kept in zip(names, kept, strict=True) if is_kept]
        means.append(float((shares * of_both).mean()))
        influences.append(_influence(of_both, chosen, shares))
    apart = {name: influences[0][name] - influences[1][name] for name in influences[0]}
    return Estimate(means[0] - means[1], *_spread(apart))


def _checked(
    values: ArrayLike, units: Sequence[Hashable] | None
) -> tuple[NDArray[np.float64], list[Any]]:
    found = np.asarray(values, dtype=np.float64)
    names = [*range(found.size)] if units is None else [*np.asarray(units).tolist()]
    if found.ndim != 1 or not found.size or len(names) != found.size:
        raise ValueError(
            f"expected values (n,) and a unit for each, got {found.shape} and {len(names)} units"
        )
    return found, names


def _shares(values: NDArray[np.float64], weights: ArrayLike | None) -> NDArray[np.float64]:
    """Give weights whose mean is one."""
    found = np.ones(len(values)) if weights is None else np.asarray(weights, dtype=np.float64)
    if found.shape != values.shape:
        raise ValueError(f"expected a weight for each of {len(values)} values, got {found.shape}")
    shares: NDArray[np.float64] = found / found.mean()
    return shares


def _influence(
    values: NDArray[np.float64], names: list[Any], shares: NDArray[np.float64]
) -> dict[Any, float]:
    """Add up what each unit contributes to the mean's distance from its expectation."""
    total: dict[Any, float] = dict.fromkeys(names, 0.0)
    residuals = shares * (values - (shares * values).mean()) / len(values)
    for name, residual in zip(names, residuals, strict=True):
        total[name] += float(residual)
    return total


def _spread(influence: dict[Any, float]) -> tuple[float, int]:
    """Standard error from the contributions of independent units, and how many there are."""
    count = len(influence)
    if count < FEWEST:
        return math.nan, count
    return math.sqrt(count / (count - 1) * sum(v**2 for v in influence.values())), count
