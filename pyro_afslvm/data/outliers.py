"""The value of stored sequences that is farthest from all others."""

import math
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

_FEWEST = 20  # values of a channel, of which a standard deviation says something


class Outlier(NamedTuple):
    """A value, and how far it is from the mean of the others of its channel or feature.

    Attributes:
        distance: In standard deviations of the others.
        value: As stored.
        sequence: Its number, from 0 on, or -1 where it is not known.
        frame: Its number in the sequence, from 0 on.
    """

    distance: float
    value: float = math.nan
    sequence: int = -1
    frame: int = -1


Block = tuple[int, int, NDArray[Any]]  # sequence, its first frame here, values (T, C, ...)


def farthest_value(blocks: Callable[[], Iterable[Block]]) -> Outlier:
    r"""Find the value that is farthest from the mean of the others of its channel or feature.

    .. math:: \frac{n}{n - 1} |v - m| \Big/ s_{-v}, \qquad
        s_{-v}^2 = \frac{1}{n - 1} \Big( \sum_i (v_i - m)^2 - \frac{n}{n - 1} (v - m)^2 \Big)

    One value alone can be no farther than :math:`\sqrt{n - 1}` standard deviations of all n from
    their mean, however large it is; from the others there is no such limit. NaN are left out.

    Args:
        blocks: Gives all values at every call, a stretch of a sequence at a time, of shape
            ``(T, C, H, W)`` or ``(T, D)``, after the number of the sequence and of its first frame.

    Example:
        >>> x = np.random.default_rng(0).normal(size=(2, 30, 1))
        >>> x[1, 4] = 1e3
        >>> found = farthest_value(lambda: [(0, 0, x[0]), (1, 0, x[1, :9]), (1, 9, x[1, 9:])])
        >>> found.distance > 500, found.sequence, found.frame
        (True, 1, 4)
    """
    count, mean = _moments(blocks, np.zeros(1), power=1)
    square = _moments(blocks, mean, power=2)[1] * count
    found = Outlier(0.0)
    for i, first, values in blocks():
        x = _by_channel(values)
        apart = np.abs(x - mean)  # (T, C, pixels)
        with np.errstate(divide="ignore", invalid="ignore"):
            ratio = count / (count - 1)
            others = (square - ratio * apart**2) / (count - 1)
            distance = np.where((others > 0) & (count >= _FEWEST), ratio * apart, np.nan)
            distance = distance / np.sqrt(others.clip(min=0))
        if np.isnan(distance).all():
            continue
        place = np.unravel_index(np.nanargmax(distance), distance.shape)
        if distance[place] > found.distance:
            found = Outlier(float(distance[place]), float(x[place]), i, first + int(place[0]))
    return found


def _by_channel(values: NDArray[Any]) -> NDArray[np.float64]:  # (T, C, ...) -> (T, C, pixels)
    return values.astype(np.float64).reshape(*values.shape[:2], -1)


def _moments(
    blocks: Callable[[], Iterable[Block]], center: NDArray[np.float64], *, power: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """How many values each channel has, and their mean power of the distance, ``(C, 1)``."""
    count, total = np.zeros(1), np.zeros(1)
    for _, _, values in blocks():
        apart = (_by_channel(values) - center) ** power
        count = count + np.isfinite(apart).sum((0, 2))[:, None]
        total = total + np.nansum(apart, (0, 2))[:, None]
    return count, total / np.maximum(count, 1)
