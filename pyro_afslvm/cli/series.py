"""Forecasts of a run's series, into files: a table, netCDF and a picture with bands."""

from pathlib import Path
from typing import Any

import numpy as np

from pyro_afslvm.cli.workflow import load_run, told_where
from pyro_afslvm.data import SequenceSource
from pyro_afslvm.forecasting.series import as_rows, forecast, table_of
from pyro_afslvm.plots import forecast_bands, to_png
from pyro_afslvm.runs.run import Run
from pyro_afslvm.utils.checks import check_minimum
from pyro_afslvm.utils.files import write_atomically

_SHOWN = 3  # horizons of the past that a picture shows


def forecast_run(
    run: Run,
    *,
    source: SequenceSource | None = None,
    horizon: int = 20,
    num_samples: int = 100,
    out: str | None = None,
    seed: int = 0,
    recipe: str | None = None,
    trust: bool = False,
) -> list[Path]:
    """Forecast past the last observation; write ``forecast.csv``, ``.nc`` and ``.png``.

    Of several series each of the first six has a picture, ``forecast_1.png`` and so on.
    """
    check_minimum(horizon=(horizon, 1), num_samples=(num_samples, 2), seed=(seed, 0))
    with told_where(run, source):
        source = source or run.load_source(recipe=recipe, trust=trust)
        table = table_of(source)
        pair, _, _ = load_run(run, source=source, recipe=recipe, trust=trust)
    found = forecast(
        pair,
        source,  # type: ignore[arg-type]
        horizon=horizon,
        num_samples=num_samples,
        seed=seed,
    )
    folder = run.path if out is None else Path(out)
    folder.mkdir(parents=True, exist_ok=True)
    csv, netcdf = folder / "forecast.csv", folder / "forecast.nc"
    write_atomically(csv, as_rows(found).to_csv(index=False).encode())
    found.to_netcdf(netcdf, engine="h5netcdf")
    return [csv, netcdf, *_drawn(found, table, folder, horizon)]


def _drawn(found: Any, table: Any, folder: Path, horizon: int) -> list[Path]:
    pictures = []
    for i in range(min(len(table.ids), 6)):
        one = found.isel(series=i)
        shown = max(_SHOWN * horizon, 40)
        figure = forecast_bands(
            table.values[i][-shown:],
            np.asarray(table.times[i][-shown:]),
            one["quantiles"].values,
            one["time"].values,
            levels=one["quantile"].values,
            names=table.names,
        )
        if len(table.ids) > 1:
            figure.suptitle(f"series {table.ids[i]}")
        name = "forecast.png" if len(table.ids) == 1 else f"forecast_{i + 1}.png"
        write_atomically(folder / name, to_png(figure))
        pictures.append(folder / name)
    return pictures
