"""Series of a table: names, times, values, each series apart."""

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pyro_afslvm.data.series.formats import TIMES, Columns, of_memory, open_table
from pyro_afslvm.data.series.times import check_order, step_of

Missing = Literal["refuse", "interpolate"]
Values = NDArray[np.float64]

_IDS = ("id", "unique_id", "series", "series_id", "item_id")


class Table(NamedTuple):
    """Series with the names and times that they have.

    Attributes:
        where: What to call the data in messages.
        names: Of the features that are modelled, D.
        known: Names of covariates, K.
        ids: Of the series, N.
        times: Of each series, a pandas index of its T_n observations.
        values: Of each series, ``(T_n, D)``; NaN where a value is missing.
        covariates: Of each series, ``(T_n + A_n, K)``: those of A_n times to come too.
        step: Between two times: a pandas offset, or a number.
    """

    where: str
    names: tuple[str, ...]
    known: tuple[str, ...]
    ids: tuple[Any, ...]
    times: tuple[Any, ...]
    values: tuple[Values, ...]
    covariates: tuple[Values, ...]
    step: Any

    def filled(self, missing: Missing) -> "Table":
        """Give a table without missing values.

        Raises:
            ValueError: There are any, and they are to be refused.
        """
        if missing == "interpolate":
            return self._replace(values=tuple(map(_interpolated, self.values)))
        for name, times, values in zip(self.ids, self.times, self.values, strict=True):
            if np.isnan(values).any():
                time, j = np.argwhere(np.isnan(values))[0]
                whole = int(np.isnan(values).sum())
                raise ValueError(
                    f"{self._of(name)}: {whole} values are missing, the first of "
                    f"{self.names[j]} at {times[time]}: give missing=interpolate to train on "
                    "lines between their neighbours"
                )
        return self

    def _of(self, name: Any) -> str:
        return whose(self.where, name, len(self.ids))


def read_table(
    data: Any,
    *,
    time: str | None = None,
    id: str | None = None,
    features: Sequence[str] | None = None,
    known: Sequence[str] = (),
    resample: str | None = None,
) -> Table:
    """Read series from a file, or from a DataFrame, an xarray object or arrays in memory.

    Args:
        data: Path of a CSV, TSV or Parquet file, or the data.
        time: Column of the time stamps; by default one of that name, or of dates.
        id: Column that tells series apart; by default one of that name, or the only one of text.
        features: Columns that are modelled; by default all others.
        known: Columns that are known in advance. Rows at the end that have nothing else are of
            times to come.
        resample: Step to bring dates to, such as ``1h``: means of what falls into each, missing
            where nothing does.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: The data are no series, or a column is missing, empty or constant.

    Example:
        >>> import pandas as pd
        >>> dates = pd.date_range("2024-01-01", periods=4, name="day")
        >>> found = read_table(pd.DataFrame({"a": [1.0, 2, 4, 3]}, index=dates))
        >>> found.names, found.step.freqstr, found.values[0].shape
        (('a',), 'D', (4, 1))
    """
    is_path = isinstance(data, str | Path)
    where = str(data) if is_path else "the data in memory"
    columns = open_table(Path(data).expanduser()) if is_path else of_memory(data, where)
    frame = columns.frame.rename(columns=str)
    time, id = _named(columns._replace(frame=frame), time, id, where)
    names = _features(frame, [time, id, *known], features, where)
    for name in (*names, *known):
        frame[name] = _numbers(frame[name], name, where)
    if time is not None:
        frame[time] = _times(frame[time], time, where)
    if not len(frame):
        raise ValueError(f"{where}: has no rows")
    groups = [(None, frame)] if id is None else [*frame.groupby(id, sort=False, observed=True)]
    parts = [
        _part(group, whose(where, name, len(groups)), time, [*names], [*known], resample)
        for name, group in groups
    ]
    steps = {str(part[3]): part[3] for part in parts}
    if len(steps) > 1:
        raise ValueError(f"{where}: series have different steps in time, {' and '.join(steps)}")
    times, values, covariates = ([part[i] for part in parts] for i in range(3))
    table = Table(
        where=where,
        names=tuple(names),
        known=tuple(known),
        ids=tuple(_plain(name) for name, _ in groups),
        times=tuple(times),
        values=tuple(values),
        covariates=tuple(covariates),
        step=parts[0][3],
    )
    _check_values(table)
    return table


def whose(where: str, name: Any, count: int) -> str:
    """Name a series in messages, where there are several."""
    return where if count == 1 else f"{where}: series {name}"


def _plain(name: Any) -> Any:
    return 0 if name is None else getattr(name, "item", lambda: name)()


def _named(
    columns: Columns, time: str | None, id: str | None, where: str
) -> tuple[str | None, str | None]:
    """Find the columns of times and identifiers."""
    from pandas.api.types import is_datetime64_any_dtype, is_numeric_dtype

    frame = columns.frame
    for name in (time, id):
        if name is not None and name not in frame:
            raise ValueError(f"{where}: no column {name!r}, but {', '.join(frame)}")
    texts = [name for name in frame if not is_numeric_dtype(frame[name])]
    dates = [name for name in texts if is_datetime64_any_dtype(frame[name])]
    called = [name for name in frame if name.lower() in TIMES]
    if time is None:
        time = columns.time or next((name for name in (*called, *dates) if name != id), None)
    if time is None:  # CSV has dates as text
        time = next((name for name in texts if name != id and _are_dates(frame[name])), None)
    if id is None:
        called = [name for name in frame if name.lower() in _IDS and name != time]
        left = [name for name in texts if name != time and {*frame} - {name, time}]
        id = columns.id or next(iter(called), left[0] if len(left) == 1 else None)
    return time, id


def _are_dates(column: Any) -> bool:
    import pandas as pd

    head = column.dropna().head(20)
    try:
        return len(head) > 0 and bool(pd.to_datetime(head, format="mixed").notna().all())
    except (ValueError, TypeError):
        return False


def _times(column: Any, name: str, where: str) -> Any:
    import pandas as pd

    if pd.api.types.is_numeric_dtype(column):
        return column
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # of dates that are guessed one by one
            dates = pd.to_datetime(column)
    except (ValueError, TypeError, UserWarning):
        raise ValueError(f"{where}: column {name!r} holds no readable time stamps") from None
    return dates.dt.tz_convert("UTC").dt.tz_localize(None) if dates.dt.tz is not None else dates


def _features(
    frame: Any, taken: Sequence[str | None], asked: Sequence[str] | None, where: str
) -> list[str]:
    for name in [*(asked or ()), *taken]:
        if name is not None and name not in frame:
            raise ValueError(f"{where}: no column {name!r}, but {', '.join(frame)}")
    names = [name for name in asked or frame if name not in taken]
    if not names:
        raise ValueError(f"{where}: no column of values beside {', '.join(filter(None, taken))}")
    return names


def _numbers(column: Any, name: str, where: str) -> Any:
    import pandas as pd

    try:
        numbers = pd.to_numeric(column).astype(float)
    except (ValueError, TypeError):
        raise ValueError(
            f"{where}: column {name!r} holds text: name it by id or time, or choose others by "
            "features"
        ) from None
    if np.isinf(numbers).any():
        raise ValueError(f"{where}: column {name!r} has an infinite value")
    return numbers


def _part(
    group: Any, whose: str, time: str | None, names: list[str], known: list[str], rule: str | None
) -> tuple[Any, Values, Values, Any]:
    """Times, values, covariates and step of one series."""
    import pandas as pd

    index = pd.RangeIndex(len(group)) if time is None else pd.Index(group[time])
    check_order(index, whose)
    frame = group[[*names, *known]].set_axis(index)
    if rule is not None:
        frame = _resampled(frame, rule, whose)
    step = step_of(frame.index, whose)
    seen = np.flatnonzero(frame[names].notna().any(axis=1))
    last = int(seen[-1]) + 1 if len(seen) and known else len(frame)
    if last < 2:
        raise ValueError(f"{whose}: has {last} row, and a series needs two at least")
    return frame.index[:last], frame[names].to_numpy()[:last], frame[known].to_numpy(), step


def _resampled(frame: Any, rule: str, whose: str) -> Any:
    import pandas as pd

    if not isinstance(frame.index, pd.DatetimeIndex):
        raise ValueError(f"{whose}: resample is for dates, these time stamps are numbers")
    try:
        return frame.resample(rule).mean()
    except ValueError:
        raise ValueError(f"resample {rule!r} is no step in time, such as 1h or 1D") from None


def _check_values(table: Table) -> None:
    """Refuse columns that say nothing, and covariates that are missing."""
    columns = np.concatenate(table.values)
    for name, column in zip(table.names, columns.T, strict=True):
        seen = column[~np.isnan(column)]
        if not len(seen):
            raise ValueError(f"{table.where}: column {name!r} has no value at all: leave it out")
        if (seen == seen[0]).all():
            raise ValueError(
                f"{table.where}: column {name!r} is constant ({seen[0]:g}), and a density of it "
                "has no bound: leave it out by features"
            )
    for name, times, known in zip(table.ids, table.times, table.covariates, strict=True):
        if np.isnan(known).any():
            row, j = np.argwhere(np.isnan(known))[0]
            at = f"at {times[row]}" if row < len(times) else f"{row - len(times) + 1} times ahead"
            raise ValueError(
                f"{whose(table.where, name, len(table.ids))}: covariate {table.known[j]!r} is "
                f"missing {at}"
            )


def _interpolated(values: Values) -> Values:  # (T, D) -> (T, D)
    import pandas as pd

    return np.asarray(pd.DataFrame(values).interpolate(limit_direction="both"))
