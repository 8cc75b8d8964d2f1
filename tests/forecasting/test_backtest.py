"""Rolling origins: the random walk as a model has the scores of the random walk as a baseline."""

import math
from importlib.util import find_spec

import numpy as np
import pandas as pd
import pytest
import torch

from pyro_afslvm import FlowModel, MLPConditioner, Pair, TemporalAffine
from pyro_afslvm.data import Series
from pyro_afslvm.forecasting.anomalies import anomalies
from pyro_afslvm.forecasting.backtest import backtest, summary
from pyro_afslvm.forecasting.baselines import ETS, VAR, SeasonalNaive
from pyro_afslvm.metrics import energy_score
from pyro_afslvm.plots import anomaly_lines, to_png
from pyro_afslvm.transforms import LastFrame

RNG = np.random.default_rng(0)
WALK = RNG.normal(size=(600, 2)).cumsum(0) * [1, 40] + [0, 5000]
DAYS = pd.date_range("2024-01-01", periods=600, name="day")
SOURCE = Series.of(pd.DataFrame(WALK, index=DAYS, columns=["sales", "price"]))
needs_statsmodels = pytest.mark.skipif(not find_spec("statsmodels"), reason="no statsmodels")


def walk() -> Pair:
    """A random walk whose steps have the scale of these data."""
    flow = TemporalAffine(LastFrame(1, learned_scale=True))
    kept = SOURCE.standardization
    assert kept is not None
    steps = np.diff(WALK[:400], axis=0) / kept.scale
    model = FlowModel(flow, (2,), context_length=1)
    with torch.no_grad():
        for parameter in flow.parameters():
            parameter.fill_(math.log(float(steps.std())))
    return Pair(model, None)


def test_a_random_walk_is_scored_as_the_random_walk_beside_it() -> None:
    scores = backtest(walk(), SOURCE, horizon=5, num_samples=200, season=7, baselines=NAIVE)
    rows = summary(scores)
    assert [*rows.index] == ["model", "random walk", "seasonal naive (7)"]
    for name in ("crps", "energy", "mase", "log_score"):
        model, same = rows.loc["model", name], rows.loc["random walk", name]
        assert abs(model - same) < 0.12 * abs(same)
    assert rows.loc["seasonal naive (7)", "crps"] > 1.1 * rows.loc["random walk", "crps"]
    assert abs(rows.loc["random walk", "cover90"] - 0.9) < 0.06
    assert abs(rows.loc["random walk", "cover50"] - 0.5) < 0.1
    assert scores.sizes["origin"] == 24  # 120 test rows, five apart
    assert scores.last_time.values[0] == DAYS[479]


NAIVE = ("random walk", "seasonal naive")


def test_the_density_of_a_random_walk() -> None:
    model = SeasonalNaive([WALK[:400]])
    steps = np.diff(WALK[:400], axis=0)
    covariance = torch.as_tensor(steps.T @ steps / len(steps))
    normal = torch.distributions.MultivariateNormal(torch.zeros(2).double(), covariance)
    np.testing.assert_allclose(
        model.log_prob(WALK)[1:], normal.log_prob(torch.as_tensor(np.diff(WALK, axis=0)))
    )
    assert np.isnan(model.log_prob(WALK)[0])


def test_the_energy_score_of_one_number_is_its_crps() -> None:
    samples, truth = torch.randn(9, 3, 1, 1), torch.randn(3, 1, 1)
    from pyro_afslvm.metrics import crps

    torch.testing.assert_close(energy_score(samples, truth), crps(samples, truth)[:, 0])


def test_covariates_are_seen_by_the_model() -> None:
    frame = pd.DataFrame(WALK, index=DAYS, columns=["a", "b"]).assign(known=0.5)
    conditioner = MLPConditioner(2, window=1, context_features=1)
    pair = Pair(FlowModel(TemporalAffine(conditioner), (2,), context_features=1), None)
    scores = backtest(
        pair, Series.of(frame, context=["known"]), horizon=40, num_samples=3, baselines=()
    )
    assert np.isfinite(scores["log_score"]).all()


def test_what_cannot_be_scored_is_refused() -> None:
    with pytest.raises(ValueError, match="no forecast of 500 times fits into the test split"):
        backtest(walk(), SOURCE, horizon=500)
    with pytest.raises(ValueError, match="no baseline 'ARIMA', but random walk, seasonal naive, V"):
        backtest(walk(), SOURCE, horizon=5, baselines=["ARIMA"])


@pytest.mark.skipif(bool(find_spec("statsmodels")), reason="statsmodels is there")
def test_without_statsmodels_it_says_what_is_left_out() -> None:
    scores = backtest(walk(), SOURCE, horizon=60, num_samples=2, baselines=["VAR", "ETS"])
    assert scores.attrs["left_out"] == "; ".join(
        f"{name}: {name} needs statsmodels: install the extra baselines" for name in ("VAR", "ETS")
    )


@needs_statsmodels
def test_a_vector_autoregression_finds_its_own() -> None:
    matrix = np.array([[0.6, 0.3], [-0.2, 0.7]])
    x = np.zeros((3000, 2))
    for t in range(1, len(x)):
        x[t] = matrix @ x[t - 1] + RNG.normal(size=2)
    model = VAR([x])
    entropy = 1 + math.log(2 * math.pi)  # of two standard normals
    assert abs(np.nanmean(model.log_prob(x)) + entropy) < 0.06
    drawn = model.samples(x[:100], 1, 5000, np.random.default_rng(0))
    np.testing.assert_allclose(drawn.mean(0)[0], matrix @ x[99], atol=0.15)
    assert model.samples(x[:100], 7, 3, RNG).shape == (3, 7, 2)


@needs_statsmodels
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_exponential_smoothing_samples_and_scores() -> None:
    model = ETS([WALK[:200]])
    drawn = model.samples(WALK[:200], 4, 300, np.random.default_rng(0))
    assert drawn.shape == (300, 4, 2)
    np.testing.assert_allclose(np.median(drawn[:, 0], 0), WALK[199], atol=40)
    density = model.log_prob(WALK[:300])
    walk_density = SeasonalNaive([WALK[:200]]).log_prob(WALK[:300])
    assert abs(density[200:].mean() - walk_density[200:].mean()) < 0.3


def test_an_outlier_passes_the_threshold_and_few_others_do() -> None:
    values = WALK.copy()
    values[560:] += [20, 0]
    source = Series.of(pd.DataFrame(values, index=DAYS, columns=["sales", "price"]))
    found = anomalies(walk(), source, rate=0.05)
    assert bool(found["anomaly"].sel(time=DAYS[560]))
    others = found["anomaly"].sel(time=slice(DAYS[480], None)).values.mean()
    assert others < 0.12
    assert np.nanargmax(found["score"].values) == 560
    figure = anomaly_lines(
        found["value"].values,
        found["time"].values,
        found["score"].values,
        threshold=found.attrs["threshold"],
        names=["sales", "price"],
    )
    assert len(to_png(figure)) > 10_000
    with pytest.raises(ValueError, match=r"a rate of 0\.001 needs at least 999 normal times"):
        anomalies(walk(), source, rate=0.001)
