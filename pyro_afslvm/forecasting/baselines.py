"""What people use today, as models to beat: naive forecasts, and VAR and ETS of statsmodels."""

import abc
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Values = NDArray[np.float64]


class Baseline(abc.ABC):
    """A forecast with a density, learned from series ``(T, D)``.

    Attributes:
        name: As tables have it.
    """

    name: str

    @abc.abstractmethod
    def samples(self, past: Values, horizon: int, size: int, rng: np.random.Generator) -> Values:
        """Sample what follows: ``(size, horizon, D)``."""

    @abc.abstractmethod
    def log_prob(self, x: Values) -> Values:
        """Log-density of each time given those before, ``(T,)``; NaN where there are too few."""


class SeasonalNaive(Baseline):
    r"""Random walk of season m: :math:`x_t = x_{t-m} + \varepsilon_t`, with Gaussian noise.

    Args:
        train: Series ``(T, D)``.
        season: Times in a season; 1 for the random walk.

    Raises:
        ValueError: All series are too short.
    """

    def __init__(self, train: Sequence[Values], *, season: int = 1) -> None:
        self.name = "random walk" if season == 1 else f"seasonal naive ({season})"
        self.season = season
        steps = [x[season:] - x[:-season] for x in train if len(x) > season]
        if sum(map(len, steps)) < 2:
            raise ValueError(f"series are too short for a season of {season}")
        self.covariance = _covariance(np.concatenate(steps))

    def samples(self, past: Values, horizon: int, size: int, rng: np.random.Generator) -> Values:
        noise = _noise(self.covariance, (size, horizon), rng)
        x = np.broadcast_to(past[-self.season :], (size, *past[-self.season :].shape))
        for t in range(horizon):
            x = np.concatenate([x, x[:, t : t + 1] + noise[:, t : t + 1]], 1)
        return x[:, self.season :]

    def log_prob(self, x: Values) -> Values:
        return _log_normal(x, x[: -self.season], self.covariance)


class VAR(Baseline):
    """Vector autoregression of statsmodels, of the order that AIC prefers, on the longest series.

    Args:
        train: Series ``(T, D)``.
        most: Largest order.

    Raises:
        ImportError: statsmodels is not there.
    """

    name = "VAR"

    def __init__(self, train: Sequence[Values], *, most: int = 8) -> None:
        api = _statsmodels("VAR", "statsmodels.tsa.vector_ar.var_model")
        longest = max(train, key=len)
        most = max(1, min(most, len(longest) // (4 * longest.shape[1])))
        found = api.VAR(longest).fit(maxlags=most, ic="aic")
        found = found if found.k_ar else api.VAR(longest).fit(1)
        self.order, self.covariance = int(found.k_ar), np.asarray(found.sigma_u)
        self._matrices, self._constant = np.asarray(found.coefs), np.asarray(found.intercept)

    def samples(self, past: Values, horizon: int, size: int, rng: np.random.Generator) -> Values:
        noise = _noise(self.covariance, (size, horizon), rng)
        x = np.broadcast_to(past[-self.order :], (size, *past[-self.order :].shape))
        for t in range(horizon):
            x = np.concatenate([x, (self._mean(x)[:, -1:] + noise[:, t : t + 1])], 1)
        return x[:, self.order :]

    def log_prob(self, x: Values) -> Values:
        return _log_normal(x, self._mean(x)[:-1], self.covariance)

    def _mean(self, x: Values) -> Values:  # (*batch, T, D) -> (*batch, T - order + 1, D)
        length = x.shape[-2] - self.order + 1
        lags = [
            x[..., self.order - 1 - k : self.order - 1 - k + length, :] @ matrix.T
            for k, matrix in enumerate(self._matrices)
        ]
        return np.asarray(self._constant + sum(lags))


class ETS(Baseline):
    """Exponential smoothing of statsmodels with a damped trend, of each feature by itself.

    Args:
        train: Series ``(T, D)``; of several the longest is learned from.
        season: Times in a season; 1 for none.

    Raises:
        ImportError: statsmodels is not there.
    """

    name = "ETS"

    def __init__(self, train: Sequence[Values], *, season: int = 1) -> None:
        self._api = _statsmodels("ETS", "statsmodels.tsa.exponential_smoothing.ets")
        self._options: dict[str, Any] = {"error": "add", "trend": "add", "damped_trend": True}
        if season > 1:
            self._options |= {"seasonal": "add", "seasonal_periods": season}
        self._parameters = [
            np.asarray(self._model(column).fit(disp=False).params)
            for column in max(train, key=len).T
        ]

    def _model(self, column: Values) -> Any:
        return self._api.ETSModel(np.ascontiguousarray(column), **self._options)

    def _smoothed(self, x: Values) -> list[Any]:
        pairs = zip(x.T, self._parameters, strict=True)
        return [self._model(column).smooth(parameters) for column, parameters in pairs]

    def samples(self, past: Values, horizon: int, size: int, rng: np.random.Generator) -> Values:
        parts = []
        for found in self._smoothed(past):
            errors = rng.standard_normal((horizon, size)) * np.sqrt(found.scale)
            drawn = found.simulate(horizon, anchor="end", repetitions=size, random_errors=errors)
            parts.append(np.asarray(drawn).reshape(horizon, size))
        return np.stack(parts, -1).swapaxes(0, 1)

    def log_prob(self, x: Values) -> Values:
        total = np.zeros(len(x))
        for found in self._smoothed(x):
            errors, variance = np.asarray(found.resid), float(found.scale)
            total += -0.5 * (errors**2 / variance + np.log(2 * np.pi * variance))
        return total


def _statsmodels(name: str, module: str) -> Any:
    from importlib import import_module

    try:
        return import_module(module)
    except ImportError:
        raise ImportError(f"{name} needs statsmodels: install the extra baselines") from None


def _covariance(steps: Values) -> Values:
    """Second moments, kept away from being singular."""
    found = steps.T @ steps / len(steps)
    return np.asarray(found + 1e-9 * np.diag(np.diag(found)))


def _noise(covariance: Values, shape: tuple[int, ...], rng: np.random.Generator) -> Values:
    normal = rng.standard_normal((*shape, len(covariance)))
    return np.asarray(normal @ np.linalg.cholesky(covariance).T)


def _log_normal(x: Values, mean: Values, covariance: Values) -> Values:
    """Log-density of the last times of x, of which there are means; NaN before."""
    factor = np.linalg.cholesky(covariance)
    whitened = np.linalg.solve(factor, (x[len(x) - len(mean) :] - mean).T)
    log_det = np.log(np.diag(factor)).sum() + 0.5 * len(covariance) * np.log(2 * np.pi)
    found = np.full(len(x), np.nan)
    found[len(x) - len(mean) :] = -0.5 * (whitened**2).sum(0) - log_det
    return found
