"""Series from tables of all kinds, and what is refused of them, in one line each."""

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import xarray as xr

from pyro_afslvm.data import Series
from pyro_afslvm.data.registry import guess_source, source_from_config

DAYS = pd.date_range("2024-01-01", periods=120, name="day")
VALUES = np.random.default_rng(0).normal(size=(120, 2)).cumsum(0) * [1, 40] + [0, 500]
NAMES = ["sales", "price"]
WIDE = pd.DataFrame(VALUES, index=DAYS, columns=NAMES)
LONG = pd.concat([WIDE.iloc[: 60 + 20 * i].assign(shop=name) for i, name in enumerate("abc")])
ROWS = WIDE.reset_index()


def check(source: Series) -> None:
    table = source.table
    assert table.names == tuple(NAMES)
    np.testing.assert_allclose(table.values[0], VALUES)
    assert list(table.times[0]) == list(DAYS)
    crop = source.dataset("validation", num_frames=12)[0]
    first = len(VALUES) - 24 - 10 - 12  # rows before test, gap and validation
    kept = source.standardization
    assert kept is not None
    np.testing.assert_allclose(kept.restored(crop.numpy()), VALUES[first:][:12], rtol=1e-4)


@pytest.mark.parametrize(
    "data",
    [
        WIDE,
        ROWS,
        WIDE.to_xarray(),
        xr.DataArray(
            WIDE.to_numpy(), {"time": DAYS.to_numpy(), "feature": NAMES}, ("time", "feature")
        ),
        WIDE.tz_localize("UTC"),
    ],
    ids=["index", "column", "dataset", "array", "zone"],
)
def test_one_series_of_any_kind(data: Any) -> None:
    check(Series.of(data))


@pytest.mark.parametrize("name", ["x.csv", "x.tsv"])
def test_a_file_is_guessed_and_made_again(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    WIDE.to_csv(path, sep="\t" if name == "x.tsv" else ",")
    source = guess_source(str(path))
    assert isinstance(source, Series)
    check(source)
    again = source_from_config(source.config())
    assert again.describe() == source.describe()
    assert source.describe()["features"] == NAMES


def test_parquet_is_read_or_named(tmp_path: Path) -> None:
    path = tmp_path / "x.parquet"
    if find_spec("pyarrow"):
        WIDE.to_parquet(path)
        check(Series(path=str(path)))
        return
    path.write_bytes(b"PAR1")
    with pytest.raises(ImportError, match="needs pyarrow: install the extra parquet"):
        _ = Series(path=str(path)).table


def test_several_series_of_different_lengths() -> None:
    table = Series.of(LONG).table
    assert table.ids == ("a", "b", "c")
    assert [len(times) for times in table.times] == [60, 80, 100]
    assert Series.of(LONG).describe()["sequences"] == 3
    category = LONG.assign(shop=LONG["shop"].astype("category"))
    assert Series.of(category).table.ids == table.ids
    numbers = LONG.assign(shop=LONG["shop"].map(ord)).rename(columns={"shop": "unit"})
    assert Series.of(numbers, id="unit").table.ids == (97, 98, 99)


def test_a_dataset_of_padded_series_has_their_lengths() -> None:
    data = LONG.reset_index().set_index(["shop", "day"]).to_xarray()
    table = Series.of(data).table
    assert [len(times) for times in table.times] == [60, 80, 100]
    np.testing.assert_allclose(table.values[2], VALUES[:100])


def test_arrays_of_different_lengths() -> None:
    source = Series.of([VALUES[:50], VALUES[50:]])
    assert source.table.names == ("feature_1", "feature_2")
    assert source.describe()["frames"] == 120
    assert source.frame_shape == (2,)


def test_more_columns_than_one_of_text_are_chosen_from() -> None:
    frame = LONG.assign(town="x")
    with pytest.raises(ValueError, match="column 'shop' holds text: name it by id or time, or"):
        _ = Series.of(frame).table
    assert Series.of(frame, id="shop", features=["price"]).table.names == ("price",)


def test_covariates_of_times_to_come() -> None:
    frame = ROWS.assign(holiday=(DAYS.day_of_week > 4).astype(float))
    frame.loc[frame.index[-7:], NAMES] = np.nan
    source = Series.of(frame, context=["holiday"])
    assert source.context_features == 1
    assert len(source.table.times[0]) == 113
    assert source.table.covariates[0].shape == (120, 1)
    data = source.dataset("train", num_frames=10)
    np.testing.assert_array_equal(np.unique(data.context(0)), [0.0, 1.0])


def test_gaps_are_filled_by_resampling_and_lines() -> None:
    frame = WIDE.drop(WIDE.index[[5, 6]])
    source = Series.of(frame, resample="1D", missing="interpolate")
    assert len(source.table.times[0]) == 120
    assert np.isnan(source.table.values[0]).sum() == 4
    filled = source.table.filled("interpolate").values[0]
    np.testing.assert_allclose(filled[5], VALUES[4] + (VALUES[7] - VALUES[4]) / 3)
    assert torch.isfinite(source.dataset("train", num_frames=20)[0]).all()
    with pytest.raises(ValueError, match="4 values are missing, the first of sales at 2024-01-06"):
        Series.of(frame, resample="1D").describe()


def test_months_are_regular() -> None:
    months = pd.date_range("2010-01-31", periods=120, freq="ME", name="month")
    assert Series.of(WIDE.set_axis(months)).table.step.freqstr == "ME"


def changed(**columns: Any) -> pd.DataFrame:
    return ROWS.assign(**columns)


SWAPPED = ROWS.iloc[[0, 2, 1, *range(3, 120)]]
REFUSED = {
    "twice": (pd.concat([ROWS, ROWS.iloc[-1:]]), {}, "time stamp 2024-04-29 .* occurs 2 times; of"),
    "unsorted": (SWAPPED, {}, "not in order: 2024-01-02 .* comes after 2024-01-03"),
    "irregular": (
        ROWS.drop(index=5),
        {},
        "not regular: 1 days .* mostly, but 2 days .* after 2024-01-05.*: give resample",
    ),
    "empty": (changed(sales=np.nan), {}, "column 'sales' has no value at all: leave it out"),
    "constant": (changed(price=3.0), {}, r"column 'price' is constant \(3\)"),
    "one row": (ROWS.iloc[:1], {}, "has 1 row, and a series needs two at least"),
    "one of one row": (
        LONG.iloc[:61],
        {},
        "series b: has 1 row",
    ),
    "no rows": (ROWS.iloc[:0], {}, "has no rows"),
    "no column": (ROWS, {"features": ["x"]}, "no column 'x', but day, sales, price"),
    "covariate": (
        changed(known=np.r_[np.nan, np.ones(119)]),
        {"context": ["known"]},
        "covariate 'known' is missing at 2024-01-01",
    ),
    "text": (ROWS[["day"]].assign(sales="many"), {}, "column 'sales' holds text"),
    "infinite": (changed(sales=np.inf), {}, "column 'sales' has an infinite value"),
    "no time stamp": (ROWS.assign(day=ROWS["day"].where(ROWS.index != 3)), {}, "row 4 has no time"),
    "no dates": (changed(time="soon"), {"id": "day"}, "'time' holds no readable time stamps"),
    "resampled rows": (ROWS[NAMES], {"resample": "1h"}, "resample is for dates"),
    "no step": (ROWS, {"resample": "often"}, "resample 'often' is no step in time"),
    "steps": (
        pd.concat([ROWS.assign(id=1), ROWS.iloc[::2].assign(id=2)]),
        {},
        "series have different steps in time",
    ),
    "widths": ([VALUES, VALUES[:, :1]], {}, "arrays .time, feature. of one width, got"),
    "a dictionary": ({}, {}, "expected a DataFrame, an xarray object, or arrays, got dict"),
}


@pytest.mark.parametrize(("data", "settings", "text"), REFUSED.values(), ids=REFUSED)
def test_what_is_no_series_is_refused_in_one_line(data: Any, settings: Any, text: str) -> None:
    with pytest.raises((ValueError, TypeError), match=text) as error:
        Series.of(data, **settings).describe()
    assert "\n" not in str(error.value)


def test_the_only_column_of_text_tells_series_apart_without_dates_too() -> None:
    rows = LONG.reset_index(drop=True)
    assert Series.of(rows).table.ids == ("a", "b", "c")
