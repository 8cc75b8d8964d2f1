"""Forecasts past the last observation: names, dates, units, quantiles."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import xarray as xr

from pyro_afslvm import FlowModel, MLPConditioner, Pair, TemporalAffine
from pyro_afslvm.cli.main import main
from pyro_afslvm.data import Arrays, MovingDigits, Series
from pyro_afslvm.forecasting.series import as_rows, forecast
from pyro_afslvm.transforms import LastFrame

MODELS = Path(__file__).parents[2] / "models" / "small"
DAYS = pd.date_range("2024-01-01", periods=120, name="day")
VALUES = np.random.default_rng(0).normal(size=(120, 2)).cumsum(0) * [1, 40] + [0, 5000]
WIDE = pd.DataFrame(VALUES, index=DAYS, columns=["sales", "price"])


def walk() -> Pair:
    """Frames are the last one, and standard normal steps in standardized units."""
    return Pair(FlowModel(TemporalAffine(LastFrame(1)), (2,)), None)


def test_a_forecast_has_names_dates_and_units() -> None:
    source = Series.of(WIDE)
    found = forecast(walk(), source, horizon=6, num_samples=4000, seed=0)
    assert dict(found.sizes) == {
        "sample": 4000, "series": 1, "time": 6, "feature": 2, "quantile": 5,
    }  # fmt: skip
    assert list(found.time.values) == list(pd.date_range("2024-04-30", periods=6).to_numpy())
    assert found.feature.values.tolist() == ["sales", "price"]
    kept = source.standardization
    assert kept is not None
    spread = found["samples"].std("sample").squeeze("series").values
    expected = np.sqrt(np.arange(1, 7))[:, None] * kept.scale  # of a random walk
    np.testing.assert_allclose(spread, expected, rtol=0.06)
    middle = found["quantiles"].sel(quantile=0.5).squeeze("series").values
    np.testing.assert_allclose(middle, np.tile(VALUES[-1], (6, 1)), atol=0.15 * kept.scale.max())
    rows = as_rows(found)
    assert [*rows] == ["series", "time", "feature", "mean", "q5", "q25", "q50", "q75", "q95"]
    assert len(rows) == 12
    assert len(found["mean"].to_dataframe()) == 12


def test_series_that_end_at_different_times_have_their_own() -> None:
    long = pd.concat([WIDE.iloc[: 60 + 20 * i].assign(shop=name) for i, name in enumerate("ab")])
    found = forecast(walk(), Series.of(long), horizon=3, num_samples=2)
    assert found.time.dims == ("series", "step")
    assert found.time.sel(series="b").values[0] == DAYS[80]
    assert [*as_rows(found)][:4] == ["series", "step", "time", "feature"]


def test_arrays_are_forecast_too() -> None:
    found = forecast(walk(), Arrays.from_array(VALUES, standardize=True), horizon=2)
    assert found.time.values.tolist() == [120, 121]
    assert abs(float(found["mean"][0, 0, 1]) - VALUES[-1, 1]) < 200


def test_pictures_are_refused() -> None:
    with pytest.raises(ValueError, match="MovingDigits holds pictures: afslvm sample draws"):
        forecast(walk(), MovingDigits(), horizon=2)  # type: ignore[arg-type]


def with_covariate(ahead: int) -> tuple[Pair, Series]:
    torch.manual_seed(0)
    frame = WIDE.reset_index().assign(holiday=(DAYS.day_of_week > 4).astype(float))
    frame.loc[frame.index[len(frame) - ahead :], ["sales", "price"]] = np.nan
    conditioner = MLPConditioner(2, window=1, context_features=1)
    model = FlowModel(TemporalAffine(conditioner), (2,), context_features=1)
    return Pair(model, None), Series.of(frame, context=["holiday"])


def test_covariates_of_times_to_come_are_taken_from_the_data_or_given() -> None:
    pair, source = with_covariate(7)
    options: dict[str, Any] = {"horizon": 7, "num_samples": 3, "seed": 1}
    own = forecast(pair, source, **options)
    known = (DAYS[-7:].day_of_week > 4).astype(float)[:, None]
    xr.testing.assert_identical(own, forecast(pair, source, covariates=known, **options))
    other = forecast(pair, source, covariates=1 - known, **options)
    assert not np.allclose(own["samples"], other["samples"])


def test_covariates_that_do_not_fit_are_refused_in_one_line() -> None:
    pair, source = with_covariate(3)
    with pytest.raises(ValueError, match=r"\(holiday\) of all of them, .* have those of 3 after"):
        forecast(pair, source, horizon=4)
    with pytest.raises(ValueError, match=r"expected covariates \(4, 1\) .* got \(1, 5, 1\)"):
        forecast(pair, source, horizon=4, covariates=np.zeros((5, 1)))


def test_the_command_writes_a_table_netcdf_and_a_picture(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    WIDE.to_csv("x.csv")
    data = ("--data", "Series", "--data.path", "x.csv")
    fast = ("--steps", "3", "--validate_every", "2", "--scored_frames", "4", "--batch_size", "4")
    assert main(["train", str(MODELS / "vector_af1.py"), *data, *fast, "--out", "run"]) == 0
    assert main(["forecast", "run", "--horizon", "5", "--num_samples", "10"]) == 0
    assert "wrote run/forecast.csv, run/forecast.nc and run/forecast.png" in capsys.readouterr().out
    rows = pd.read_csv("run/forecast.csv")
    assert rows["time"].unique().tolist() == [str(day.date()) for day in DAYS + DAYS.freq * 120][:5]
    assert (rows[rows["feature"] == "price"]["mean"] > 1000).all()
    with xr.open_dataset("run/forecast.nc", engine="h5netcdf") as kept:
        assert dict(kept.sizes)["sample"] == 10
    assert Path("run/forecast.png").stat().st_size > 10_000
    assert main(["forecast", "run", "--horizon", "0"]) == 2
    assert "horizon must be an integer of at least 1" in capsys.readouterr().err
