"""Time stamps: in order, each once, at regular steps; and those that come after them."""

import warnings
from typing import Any

import numpy as np


def check_order(times: Any, whose: str) -> None:
    """Refuse time stamps, a pandas index, that are missing, out of order or there twice.

    Raises:
        ValueError: Naming the first one.
    """
    if times.hasnans:
        raise ValueError(f"{whose}: row {int(np.argmax(times.isna())) + 1} has no time stamp")
    if times.has_duplicates:
        twice = times[times.duplicated()][0]
        raise ValueError(
            f"{whose}: time stamp {twice} occurs {int((times == twice).sum())} times; of several "
            "series in one table, name the column that tells them apart by id"
        )
    if not times.is_monotonic_increasing:
        row = int(np.argmax(times[1:] < times[:-1])) + 1
        raise ValueError(
            f"{whose}: time stamps are not in order: {times[row]} comes after {times[row - 1]}: "
            "sort the rows"
        )


def step_of(times: Any, whose: str) -> Any:
    """Find the step between time stamps: a pandas offset, or a number; ``None`` of a single one.

    Raises:
        ValueError: They are not regular.

    >>> import pandas as pd
    >>> step_of(pd.date_range("2020-01-31", periods=4, freq="ME"), "x").freqstr
    'ME'
    """
    import pandas as pd

    if len(times) < 2:
        return None
    steps = times[1:] - times[:-1]
    dates = isinstance(times, pd.DatetimeIndex)
    if dates and (steps == steps[0]).all() and steps[0] < pd.Timedelta("28D"):
        days, rest = divmod(steps[0], pd.Timedelta("1D"))
        return pd.tseries.frequencies.to_offset(steps[0]) if rest else pd.offsets.Day(days)
    if not dates and np.allclose(steps, steps[0], rtol=1e-6, atol=0):
        return steps[0]
    named = _named(times) if dates and len(times) > 2 else None
    if named:
        return pd.tseries.frequencies.to_offset(named)
    if dates and len(times) == 2:
        return pd.tseries.frequencies.to_offset(steps[0])
    usual = pd.Series(steps).mode()[0]
    odd = int(np.argmax(steps != usual))
    what = "give resample, such as 1h or 1D" if dates else "give them as dates and resample"
    raise ValueError(
        f"{whose}: time stamps are not regular: {usual} mostly, but {steps[odd]} after "
        f"{times[odd]}: {what}"
    )


def _named(times: Any) -> Any:
    """Find a step such as months or business days; a text or an offset, as pandas has it."""
    import pandas as pd

    with warnings.catch_warnings():  # of what later releases of pandas will give
        warnings.simplefilter("ignore")
        return pd.infer_freq(times)


def times_after(last: Any, step: Any, count: int) -> Any:
    """Continue time stamps.

    >>> times_after(4, 2, 3).tolist()
    [6, 8, 10]
    """
    import pandas as pd

    if isinstance(last, pd.Timestamp):
        return pd.date_range(last, periods=count + 1, freq=step)[1:]
    return pd.Index(last + step * np.arange(1, count + 1))
