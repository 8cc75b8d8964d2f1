"""Forecasts of series after their last observation, with names, dates and units."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from pyro_afslvm.data.arrays.source import Arrays
from pyro_afslvm.data.series.source import Series
from pyro_afslvm.data.series.table import Table, read_table, whose
from pyro_afslvm.data.series.times import times_after
from pyro_afslvm.forecasting.rollout import rollout
from pyro_afslvm.models.pair import Pair
from pyro_afslvm.utils.checks import check_minimum

if TYPE_CHECKING:
    import xarray as xr

QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
Values = NDArray[np.float64]


def forecast(
    pair: Pair,
    source: Arrays,
    *,
    horizon: int,
    num_samples: int = 100,
    covariates: Any = None,
    quantiles: Sequence[float] = QUANTILES,
    seed: int | None = None,
) -> "xr.Dataset":
    """Sample what follows the last observation of each series.

    Args:
        pair: Model and guide.
        source: The series, standardized as the model's training data were.
        horizon: Times to sample.
        num_samples: Futures of each series.
        covariates: Of the times to come, ``(horizon, K)`` for all series or ``(N, horizon, K)``;
            by default those that the data have after the last observation.
        quantiles: Probabilities.
        seed: Of torch's random numbers; as they are by default.

    Returns:
        ``samples (sample, series, time, feature)``, ``quantiles (quantile, series, ...)`` and
        ``mean``, in the units of the data, with the names they have. The dates are continued:
        the coordinate ``time`` is a dimension where all series end at the same time, otherwise
        it has the dimensions ``(series, step)``.

    Raises:
        ValueError: No series of vectors, covariates that are missing or of another length, or
            what :func:`~pyro_afslvm.forecasting.rollout.rollout` refuses.

    Example:
        >>> from pyro_afslvm import FlowModel, MLPConditioner, TemporalAffine
        >>> flow = TemporalAffine(MLPConditioner(2, window=3))
        >>> walk = np.random.default_rng(0).normal(size=(200, 2)).cumsum(0)
        >>> found = forecast(Pair(FlowModel(flow, (2,)), None), Series.of(walk), horizon=5)
        >>> found.sizes["time"], found.time.values.tolist()
        (5, [200, 201, 202, 203, 204])
    """
    check_minimum(horizon=(horizon, 1), num_samples=(num_samples, 1))
    table = table_of(source)
    values, lengths = padded(table, source)
    known = _known(table, horizon, covariates)
    if np.isnan(values).any():
        table.filled("refuse")
    drawn = rollout(
        pair.model,  # type: ignore[arg-type]
        pair.guide,
        torch.as_tensor(values, dtype=torch.float32),
        horizon=horizon,
        num_samples=num_samples,
        lengths=torch.as_tensor(lengths),
        context=None if known is None else torch.tensor(known, dtype=torch.float32),
        seed=seed,
    )
    samples = np.asarray(drawn["x_future"].values, np.float64)
    kept = source.standardization
    return as_dataset(samples if kept is None else kept.restored(samples), table, quantiles)


def table_of(source: Any) -> Table:
    """Give the series of a source of vectors, with names and times; NaN where none is to train on.

    Raises:
        ValueError: It holds something else.
    """
    if isinstance(source, Series):
        table = source.table
        return table if source.missing == "refuse" else table.filled(source.missing)
    if not isinstance(source, Arrays) or len(source.frame_shape) != 1:
        raise ValueError(
            f"forecast is for series of vectors, {type(source).__name__} holds pictures: afslvm "
            "sample draws their futures"
        )
    if source.context_features:
        raise ValueError("covariates of times to come have rows in a table: give it as Series")
    return read_table(source.whole())


def padded(table: Table, source: Arrays) -> tuple[Values, NDArray[np.int64]]:
    """Standardized series ``(N, T, D)``, zero after their ends, and their lengths."""
    kept = source.standardization
    lengths = np.array([len(values) for values in table.values])
    array = np.zeros((len(lengths), int(lengths.max()), len(table.names)))
    for place, values in zip(array, table.values, strict=True):
        place[: len(values)] = values if kept is None else kept(values)
    return array, lengths


def _known(table: Table, horizon: int, given: Any) -> Values | None:
    """Covariates of the past and the times to come, ``(N, T + horizon, K)``."""
    size = len(table.known)
    if given is not None:
        given = np.asarray(given, float)
        given = np.broadcast_to(given, (len(table.ids), *given.shape)) if given.ndim == 2 else given
        if given.shape != (wanted := (len(table.ids), horizon, size)):
            raise ValueError(
                f"expected covariates {wanted[1:]} of the times to come, or {wanted} of each "
                f"series, got {np.shape(given)}"
            )
    if not size:
        return None
    longest = max(map(len, table.values))
    found = np.zeros((len(table.ids), longest + horizon, size))
    for i, (values, known) in enumerate(zip(table.values, table.covariates, strict=True)):
        end = len(values)
        ahead = known[end : end + horizon] if given is None else given[i]
        if len(ahead) < horizon:
            raise ValueError(
                f"{whose(table.where, table.ids[i], len(table.ids))}: a forecast of {horizon} "
                f"times needs the covariates ({', '.join(table.known)}) of all of them, the data "
                f"have those of {len(ahead)} after the last observation: add rows with them alone"
            )
        found[i, : end + horizon] = np.concatenate([known[:end], ahead])
    return found


def as_dataset(samples: Values, table: Table, quantiles: Sequence[float]) -> "xr.Dataset":
    """Label samples ``(S, N, horizon, D)`` that follow the series of a table."""
    import xarray as xr

    levels = np.asarray([*quantiles], float)
    if not len(levels) or not ((levels >= 0) & (levels <= 1)).all():
        raise ValueError(f"expected quantiles between 0 and 1, got {[*quantiles]}")
    horizon = samples.shape[2]
    after = [times_after(times[-1], table.step, horizon) for times in table.times]
    together = all(times.equals(after[0]) for times in after)
    dims = ("series", "time" if together else "step", "feature")
    coords: dict[str, Any] = {"series": [*table.ids], "feature": [*table.names]}
    if together:
        coords["time"] = after[0].to_numpy()
    else:
        coords["step"] = np.arange(1, horizon + 1)
        coords["time"] = (("series", "step"), np.stack([times.to_numpy() for times in after]))
    return xr.Dataset(
        {
            "samples": (("sample", *dims), samples),
            "quantiles": (("quantile", *dims), np.quantile(samples, levels, axis=0)),
            "mean": (dims, samples.mean(0)),
        },
        {**coords, "sample": np.arange(len(samples)), "quantile": levels},
    )


def as_rows(found: "xr.Dataset") -> Any:
    """Give a DataFrame of mean and quantiles: a row for each series, time and feature."""
    import pandas as pd

    along = found["mean"].dims
    frame = found["mean"].to_dataframe()[["mean"] if "time" in along else ["time", "mean"]]
    for level in found["quantile"].values:
        frame[f"q{100 * level:g}"] = found["quantiles"].sel(quantile=level).to_series()
    rows = frame.reset_index()
    first = ["series", *(["step"] if "step" in along else []), "time", "feature"]
    assert isinstance(rows, pd.DataFrame)
    return rows[[*first, *(name for name in rows if name not in first)]]
