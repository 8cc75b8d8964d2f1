"""Forecasts from rolling origins, scored beside what people use today."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from pyro_afslvm.data.arrays.source import Arrays
from pyro_afslvm.data.series.table import Table
from pyro_afslvm.data.splits import Split
from pyro_afslvm.forecasting.baselines import ETS, VAR, Baseline, SeasonalNaive
from pyro_afslvm.forecasting.rollout import rollout
from pyro_afslvm.forecasting.series import table_of
from pyro_afslvm.forecasting.streaming import StreamingFilter
from pyro_afslvm.metrics import coverage, crps, energy_score
from pyro_afslvm.models.pair import Pair
from pyro_afslvm.utils.checks import check_minimum

if TYPE_CHECKING:
    import xarray as xr

Values = NDArray[np.float64]


class Origin(NamedTuple):
    """Where a forecast starts: so many times of a series are known."""

    series: int
    time: int


class PairForecast(Baseline):
    """A model and its guide, in the units of the data, beside baselines.

    Args:
        pair: The model.
        source: The data, standardized as the model learned from them.
    """

    def __init__(self, pair: Pair, source: Arrays, *, name: str = "model") -> None:
        self.pair, self.kept, self.name = pair, source.standardization, name
        self.known: Values | None = None  # covariates of the series, (T, K)

    def samples(self, past: Values, horizon: int, size: int, rng: np.random.Generator) -> Values:
        x = torch.as_tensor(self._units(past), dtype=torch.float32)[None]
        context = None
        if self.known is not None:
            context = torch.tensor(self.known[: len(past) + horizon], dtype=torch.float32)
        drawn = rollout(
            self.pair.model,  # type: ignore[arg-type]
            self.pair.guide,
            x,
            horizon=horizon,
            num_samples=size,
            chunk=size,
            context=context,
            seed=int(rng.integers(2**31)),
        )
        samples = np.asarray(drawn["x_future"].values[:, 0], np.float64)
        return np.asarray(samples if self.kept is None else self.kept.restored(samples))

    def log_prob(self, x: Values) -> Values:
        stream = StreamingFilter(self.pair.model, self.pair.guide)  # type: ignore[arg-type]
        frames = torch.as_tensor(self._units(x), dtype=torch.float32)
        known = None if self.known is None else torch.tensor(self.known, dtype=torch.float32)
        terms = [
            float(stream.update(frame[None], None if known is None else known[t][None])[0])
            for t, frame in enumerate(frames)
        ]
        log_scale = 0.0 if self.kept is None else self.kept.log_scale * x.shape[1]
        return np.array(terms) - log_scale

    def _units(self, x: Values) -> Values:
        return x if self.kept is None else self.kept(x)


def backtest(
    pair: Pair,
    source: Arrays,
    *,
    horizon: int,
    stride: int | None = None,
    history: int | None = None,
    season: int = 1,
    split: Split = "test",
    num_samples: int = 100,
    baselines: Sequence[str] = ("random walk", "seasonal naive", "VAR", "ETS"),
    seed: int = 0,
) -> "xr.Dataset":
    r"""Forecast a split from rolling origins, and score the forecasts beside baselines'.

    At each origin all that came before is known; baselines are fitted to the training split.

    Args:
        pair: Model and guide.
        source: The series.
        horizon: Times of each forecast.
        stride: Times between origins; by default the horizon.
        history: Times that are known at least; by default what the model must be given, and a
            season.
        season: Times in a season, for seasonal naive, ETS and the scale of MASE.
        split: Which one.
        num_samples: Futures of each origin.
        baselines: Names of those wanted; VAR and ETS are left out, and named in the attribute
            ``left_out``, where statsmodels is not there.
        seed: Of all samples.

    Returns:
        For each ``model``: ``crps``, ``cover50``, ``cover90`` ``(model, origin, step, feature)``
        in the units of the data; ``mase``, the error of the median over the mean absolute
        seasonal difference of the training split, ``(model, origin)``; ``energy``, the energy
        score of whole trajectories, features divided by the same scale; ``log_score``, the joint
        log-density of the future in nats per entry, in the units of the data (of a model with
        latents an estimate by its particle filter). :func:`summary` has the means.

    Raises:
        ValueError: No origin fits into the split, or the data are no series of vectors.
    """
    check_minimum(horizon=(horizon, 1), num_samples=(num_samples, 2), season=(season, 1))
    table = table_of(source).filled("refuse")
    least = history or max(season, getattr(pair.model, "context_length", 0) + 1)
    origins = _origins(source, split, horizon, stride or horizon, least)
    if not origins:
        raise ValueError(f"no forecast of {horizon} times fits into the {split} split")
    train = [
        table.values[part.sequence][part.first : part.first + part.length]
        for part in source.parts("train")
    ]
    models, left_out = _models(train, season, baselines)
    steps = np.concatenate([np.abs(x[season:] - x[:-season]) for x in train if len(x) > season])
    scale = steps.mean(0)
    rows = [
        _scored(model, table, origins, horizon, num_samples, scale, seed)
        for model in (PairForecast(pair, source), *models)
    ]
    return _labelled(rows, table, origins, scale, left_out)


def summary(scores: "xr.Dataset") -> Any:
    """Give means over origins as a DataFrame, a row for each model; CRPS in units of the scale.

    Lower is better but for ``log_score``; ``cover50`` should be 0.5, ``cover90`` 0.9.
    """
    import pandas as pd

    relative = scores.assign(crps=scores["crps"] / scores["scale"])
    means = {
        name: relative[name].mean([d for d in relative[name].dims if d != "model"]).values
        for name in ("crps", "energy", "mase", "log_score", "cover50", "cover90")
    }
    return pd.DataFrame(means, index=pd.Index(scores["model"].values, name="model"))


def _origins(source: Arrays, split: Split, horizon: int, stride: int, least: int) -> list[Origin]:
    check_minimum(stride=(stride, 1))
    return [
        Origin(part.sequence, time)
        for part in source.parts(split)
        for time in range(max(part.first, least), part.first + part.length - horizon + 1, stride)
    ]


def _models(
    train: list[Values], season: int, names: Sequence[str]
) -> tuple[list[Baseline], list[str]]:
    makers: dict[str, Any] = {
        "random walk": lambda: SeasonalNaive(train),
        "seasonal naive": lambda: SeasonalNaive(train, season=season),
        "VAR": lambda: VAR(train),
        "ETS": lambda: ETS(train, season=season),
    }
    if unknown := [name for name in names if name not in makers]:
        raise ValueError(f"no baseline {unknown[0]!r}, but {', '.join(makers)}")
    found, left_out = [], []
    for name in names:
        if name == "seasonal naive" and season == 1:
            continue  # which is the random walk
        try:
            found.append(makers[name]())
        except ImportError as error:
            left_out.append(f"{name}: {error}")
    return found, left_out


def _scored(
    model: Baseline,
    table: Table,
    origins: list[Origin],
    horizon: int,
    size: int,
    scale: Values,
    seed: int,
) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    drawn, truth, log_score = [], [], []
    density: dict[int, Values] = {}
    for series, time in origins:
        x = table.values[series]
        if isinstance(model, PairForecast) and table.known:
            model.known = table.covariates[series]
        if series not in density:
            density[series] = model.log_prob(x)
        drawn.append(model.samples(x[:time], horizon, size, rng))
        truth.append(x[time : time + horizon])
        log_score.append(density[series][time : time + horizon].mean() / x.shape[1])
    samples, true = np.stack(drawn, 1), np.stack(truth)  # (S, N, H, D), (N, H, D)
    errors = np.abs(np.median(samples, 0) - true) / scale
    entries = np.moveaxis(samples, 3, 2).reshape(size, -1, horizon)  # each feature by itself
    true_entries = np.moveaxis(true, 2, 1).reshape(-1, horizon)
    inside = coverage(entries[..., None], true_entries[..., None], level=[0.5, 0.9]).numpy()
    shape = (len(origins), true.shape[2], horizon)
    return {
        "name": model.name,
        "crps": np.moveaxis(
            crps(entries[..., None], true_entries[..., None]).numpy().reshape(shape), 1, 2
        ),
        "cover50": np.moveaxis(inside[0].reshape(shape), 1, 2),
        "cover90": np.moveaxis(inside[1].reshape(shape), 1, 2),
        "mase": errors.mean((1, 2)),
        "energy": energy_score(samples / scale, true / scale).numpy(),
        "log_score": np.array(log_score),
    }


def _labelled(
    rows: list[dict[str, Any]],
    table: Table,
    origins: list[Origin],
    scale: Values,
    left_out: list[str],
) -> "xr.Dataset":
    import xarray as xr

    whole, entries = ("model", "origin"), ("model", "origin", "step", "feature")
    dims: dict[str, tuple[str, ...]] = dict.fromkeys(("crps", "cover50", "cover90"), entries)
    dims |= dict.fromkeys(("mase", "energy", "log_score"), whole)
    variables = {name: (d, np.stack([row[name] for row in rows])) for name, d in dims.items()}
    ends = np.array([table.times[series][time - 1] for series, time in origins])
    return xr.Dataset(
        {**variables, "scale": (("feature",), scale)},
        {
            "model": [row["name"] for row in rows],
            "step": np.arange(1, rows[0]["crps"].shape[1] + 1),
            "feature": [*table.names],
            "last_time": ("origin", ends),
            "series": ("origin", [table.ids[series] for series, _ in origins]),
        },
        {"left_out": "; ".join(left_out)},
    )
