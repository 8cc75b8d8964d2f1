"""Surprise of each time of a series, with a threshold that normal times rarely pass."""

import math
from typing import TYPE_CHECKING

import numpy as np

from pyro_afslvm.data.arrays.source import Arrays
from pyro_afslvm.data.splits import Split
from pyro_afslvm.forecasting.backtest import PairForecast, Values
from pyro_afslvm.forecasting.series import table_of
from pyro_afslvm.models.pair import Pair

if TYPE_CHECKING:
    import xarray as xr


def anomalies(
    pair: Pair,
    source: Arrays,
    *,
    series: int = 0,
    rate: float = 0.01,
    calibrate: Split = "validation",
) -> "xr.Dataset":
    r"""Score how surprising each time of a series is: :math:`-\log p(x_t \mid x_{<t})`.

    The threshold is the smallest value that a new score of the kind of those of the split
    ``calibrate`` passes with a probability of at most ``rate``: the
    :math:`\lceil (n + 1)(1 - \mathrm{rate}) \rceil`-th of its n scores, in order (split
    conformal). That holds where scores are exchangeable, which those of one series are nearly
    once a good model has taken out what the past tells.

    Args:
        pair: Model and guide; likelihoods of one with latents are estimates.
        source: The series.
        series: Which of them, from 0.
        rate: Part of normal times that may pass.
        calibrate: Split of normal times that the model did not learn from.

    Returns:
        ``score`` and ``anomaly`` over ``time``, in nats of a frame in the units of the data, and
        ``value (time, feature)``; the attribute ``threshold``.

    Raises:
        ValueError: For a rate that is not between 0 and 1, or too small for so few times.
    """
    import xarray as xr

    if not 0 < rate < 1:
        raise ValueError(f"expected a rate between 0 and 1, got {rate:g}")
    table = table_of(source).filled("refuse")
    model = PairForecast(pair, source)
    scores = {}
    stretches = source.parts(calibrate)
    for i in {series, *(part.sequence for part in stretches)}:
        model.known = table.covariates[i] if table.known else None
        scores[i] = -model.log_prob(table.values[i])
    normal = np.concatenate(
        [scores[part.sequence][part.first : part.first + part.length] for part in stretches]
    )
    threshold = _threshold(normal[np.isfinite(normal)], rate)
    own = scores[series]
    return xr.Dataset(
        {
            "score": ("time", own, {"units": "nats"}),
            "anomaly": ("time", own > threshold),
            "value": (("time", "feature"), table.values[series]),
        },
        {"time": table.times[series].to_numpy(), "feature": [*table.names]},
        {"threshold": threshold, "rate": rate},
    )


def _threshold(normal: Values, rate: float) -> float:
    place = math.ceil((len(normal) + 1) * (1 - rate))
    if place > len(normal):
        raise ValueError(
            f"a rate of {rate:g} needs at least {math.ceil(1 / rate) - 1} normal times to be "
            f"calibrated on, there are {len(normal)}"
        )
    return float(np.sort(normal)[place - 1])
