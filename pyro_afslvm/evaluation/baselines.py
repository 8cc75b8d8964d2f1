"""Classical models of series in closed form, to hold others against: random walks and VAR."""

import math
from typing import NamedTuple

import torch
from pyro.distributions import MultivariateStudentT
from torch import Tensor
from torch.distributions import MultivariateNormal

from pyro_afslvm.transforms.least_squares import Series

MOST_LAGS = 60
DEGREES = (2.5, 3.0, 4.0, 5.0, 8.0, 12.0, 20.0, 50.0)
ROUNDS = 20  # of reweighted least squares


class Rows(NamedTuple):
    """Regressors, with a constant at the end, and targets."""

    inputs: Tensor  # (N, F)
    targets: Tensor  # (N, D)


class Scores(NamedTuple):
    """Nats per dimension of validation frames, one step ahead, by name of the baseline."""

    by_name: dict[str, float]

    @property
    def best(self) -> str:
        """Name of the best."""
        return max(self.by_name, key=lambda name: self.by_name[name])


@torch.no_grad()
def baselines(train: Series, validation: Series, *, skip: int) -> Scores:
    r"""Score random walks and vector autoregressions on validation data.

    .. math:: x_t = c + \sum_{k=1}^p A_k x_{t-k} + B c_t + \epsilon_t

    by least squares, with p by AIC, and Gaussian errors or, by reweighting, those of a
    multivariate t whose degrees of freedom are the best of a few. All are fitted to the training
    data alone; covariates are regressors of the VAR.

    Args:
        train: frames ``(T, D)`` and covariates of each series.
        validation: likewise.
        skip: frames at the start of a validation series that are not scored.
    """
    size = train[0][0].shape[-1]
    changes = torch.cat([x.double().diff(dim=0) for x, _ in train])
    held = torch.cat([x.double().diff(dim=0)[skip - 1 :] for x, _ in validation if len(x) > skip])
    covariance = changes.mT @ changes / len(changes)
    walk = {
        "random walk, diagonal": _gaussian(held, torch.diag(covariance.diagonal())),
        "random walk, full": _gaussian(held, covariance),
    }
    lags = _lags(train, skip)
    rows, scored = _rows(train, lags), _rows(validation, lags, skip=skip)
    weight, errors = _regression(rows, torch.ones(len(rows.targets), dtype=torch.float64))
    left = scored.targets - scored.inputs @ weight
    found = walk | {f"VAR({lags})": _gaussian(left, errors.mT @ errors / len(errors))}
    found[f"VAR({lags}), multivariate t"] = max(
        (_student(rows, scored, df) for df in DEGREES), key=lambda pair: pair[0]
    )[1]
    return Scores({name: value / size for name, value in found.items()})


def _rows(series: Series, lags: int, *, skip: int | None = None) -> Rows:
    inputs, targets = [], []
    first = lags if skip is None else skip
    for x, context in series:
        if len(x) <= first:
            continue
        x = x.double()
        parts = [x[first - k : len(x) - k] for k in range(1, lags + 1)]
        if context is not None:
            parts.append(context.double()[first:])
        inputs.append(torch.cat([*parts, x.new_ones(len(x) - first, 1)], -1))
        targets.append(x[first:])
    return Rows(torch.cat(inputs), torch.cat(targets))


def _regression(rows: Rows, weights: Tensor) -> tuple[Tensor, Tensor]:
    """Weighted least squares: coefficients ``(F, D)``, and errors of each row."""
    root = weights.sqrt().unsqueeze(-1)
    inputs = root * rows.inputs
    weight: Tensor = torch.linalg.lstsq(
        inputs.mT @ inputs, inputs.mT @ (root * rows.targets), driver="gelsd"
    ).solution
    return weight, rows.targets - rows.inputs @ weight


def _lags(train: Series, most: int) -> int:
    """Number of lags by Akaike's criterion, on the frames that all of them can predict."""
    longest = max(len(x) for x, _ in train)
    size = train[0][0].shape[-1]
    total = sum(len(x) for x, _ in train)
    most = max(1, min(most, MOST_LAGS, longest - 1, total // (3 * size)))
    rows, criteria = _rows(train, most, skip=most), {}
    every = rows.inputs.shape[1]
    gram, cross = rows.inputs.mT @ rows.inputs, rows.inputs.mT @ rows.targets
    total = len(rows.targets)
    for lags in range(1, most + 1):
        used = torch.tensor([*range(lags * size), *range(most * size, every)])
        if total <= len(used) + size:
            break
        found = torch.linalg.lstsq(gram[used][:, used], cross[used], driver="gelsd").solution
        left = rows.targets - rows.inputs[:, used] @ found
        log_det = float(torch.logdet(left.mT @ left / total))
        criteria[lags] = total * log_det + 2 * len(used) * size
    return min(criteria, key=lambda k: criteria[k]) if criteria else 1


def _gaussian(errors: Tensor, covariance: Tensor) -> float:
    zeros = covariance.new_zeros(len(covariance))
    return float(MultivariateNormal(zeros, covariance).log_prob(errors).mean())


def _student(rows: Rows, scored: Rows, df: float) -> tuple[float, float]:
    """Mean log-likelihood of training and of scored rows, by reweighted least squares."""
    weights = torch.ones(len(rows.targets), dtype=torch.float64)
    size = rows.targets.shape[1]
    for _ in range(ROUNDS):
        weight, errors = _regression(rows, weights)
        scatter = (weights.unsqueeze(-1) * errors).mT @ errors / len(errors)
        distances = (errors @ torch.linalg.inv(scatter) * errors).sum(-1)
        weights = (df + size) / (df + distances)
    student = MultivariateStudentT(
        torch.tensor(df, dtype=torch.float64),
        scatter.new_zeros(size),
        torch.linalg.cholesky(scatter),
    )
    left = scored.targets - scored.inputs @ weight
    likelihoods = [float(student.log_prob(part).mean()) for part in (errors, left)]
    return (likelihoods[0], likelihoods[1]) if math.isfinite(likelihoods[0]) else (-math.inf,) * 2
