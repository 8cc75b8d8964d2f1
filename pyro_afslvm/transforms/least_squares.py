"""The linear part of a flow of series in closed form: ridge regression towards the random walk."""

import math
from collections.abc import Iterator, Sequence
from itertools import product
from typing import NamedTuple

import torch
from pyro.distributions import MultivariateStudentT
from torch import Tensor

from pyro_afslvm.transforms.conditioners import LinearConditioner
from pyro_afslvm.transforms.mixing import TriangularMixing

Series = Sequence[tuple[Tensor, Tensor | None]]  # frames (T, D) and covariates (T, F) of each

STRENGTHS = tuple(10.0**k for k in range(-3, 4))  # of the penalty, in observations
DECAYS = (0.0, 2.0)  # the penalty of a lag k is its strength times k to this power
LEVELS = (1.0, 30.0, 1e9)  # times that of levels; with the last the changes are all there is
CROSS = (1.0, 10.0, 100.0)  # times that of other entries than the one that is predicted
SHRINKAGES = (0.0, 0.1, 0.3, 1.0)  # of correlations between the entries of a change
FOLDS = 4  # blocks of the training data, each held out once
TAILS = 8.0  # degrees of freedom by which errors are scored, so that few outliers do not decide
LARGEST_ROOT = 1.002  # of the linear part, beyond which trajectories explode
DEGREES = (3.0, 4.0, 5.0, 6.0, 8.0, 12.0, 20.0, 50.0)  # of freedom, of which the best is taken
ROUNDS = 6  # of reweighted least squares


class Regression(NamedTuple):
    """Regressors, already in their units, and changes in units of theirs, one row a frame."""

    inputs: Tensor  # (N, F)
    changes: Tensor  # (N, D)


class Linear(NamedTuple):
    """A vector autoregression of changes, in their units."""

    weight: Tensor  # (D, F)
    bias: Tensor  # (D,)
    factor: Tensor  # (D, D), lower triangular, of the errors' scatter

    def errors(self, rows: Regression) -> Tensor:
        """Changes that are not predicted, ``(N, D)``."""
        return rows.changes - rows.inputs @ self.weight.mT - self.bias


class Estimate(NamedTuple):
    """What was found, and the degrees of freedom of its errors; infinity for Gaussian ones."""

    linear: Linear
    df: float


@torch.no_grad()
def estimate_linear(
    conditioner: LinearConditioner,
    train: Series,
    validation: Series = (),
    *,
    mixing: TriangularMixing | None = None,
    tails: bool = False,
) -> Estimate:
    r"""Set a conditioner to the best ridge regression, by the likelihood of what was held out.

    .. math:: \min_{W, b} \sum_t \left\| \frac{x_t - x_{t-1}}{s} - W \phi_t - b \right\|^2
        + \sum_j \lambda_j \| W_j \|^2

    The units are standard deviations over the training data. The penalty pulls towards the random
    walk, which is one of the candidates; those that would explode are none. It is chosen by blocks
    of the training data, each held out once, together with the validation data.

    Args:
        conditioner: whose linear part and units are set.
        train: series to learn from.
        validation: series that only choose.
        mixing: set to the correlation of the entries within a frame, if given.
        tails: whether errors are of a multivariate t, whose degrees of
            freedom are then found too, for its scatter; else they are Gaussian.

    Raises:
        ValueError: where no series is long enough, or an entry never changes.
    """
    _set_units(conditioner, train)
    rows = _regression(conditioner, train)
    if rows is None:
        raise ValueError(
            f"expected series of more than {conditioner.window} frames, "
            f"got {max(len(x) for x, _ in train)} at most"
        )
    held = _regression(conditioner, validation) if validation else None
    penalty, shrinkage = _choose(conditioner, rows, held, mixing is not None)
    linear = _fit(rows, penalty, shrinkage)
    found = Estimate(linear, math.inf)
    if tails:
        scored = rows if held is None else held
        heavier = [Estimate(_fit_student(linear, rows, shrinkage, df), df) for df in DEGREES]
        found = max(
            heavier, key=lambda e: _log_prob(e.linear.errors(scored), e.linear.factor, e.df)
        )
    _put(conditioner, found.linear, mixing)
    return found


def _put(conditioner: LinearConditioner, found: Linear, mixing: TriangularMixing | None) -> None:
    conditioner.weight.copy_(found.weight)
    conditioner.bias.copy_(found.bias)
    scales = found.factor.diagonal()
    conditioner.log_scale.copy_((scales * conditioner.unit.double()).log())
    if mixing is not None:  # the factor is D L, with L unit lower triangular
        mixing.below.copy_(found.factor / scales.unsqueeze(-1))


def _set_units(conditioner: LinearConditioner, train: Series) -> None:
    frames = torch.cat([x for x, _ in train]).double()
    changes = torch.cat([x.double().diff(dim=0) for x, _ in train])
    unit = changes.std(0)
    if not bool((unit > 0).all()):
        constant = int((unit <= 0).nonzero()[0])
        raise ValueError(f"entry {constant} of the series never changes: leave it out")
    conditioner.unit.copy_(unit)
    conditioner.level_mean.copy_(frames.mean(0))
    conditioner.level_scale.copy_(frames.std(0))
    given = [c.double() for _, c in train if c is not None]
    if given and conditioner.context_features:
        known = torch.cat(given)
        conditioner.context_mean.copy_(known.mean(0))
        scale = known.std(0)
        conditioner.context_scale.copy_(torch.where(scale > 0, scale, torch.ones_like(scale)))


def _regression(conditioner: LinearConditioner, series: Series) -> Regression | None:
    lags, inputs, changes = conditioner.lags, [], []
    for x, context in series:
        if len(x) > lags:
            x = x.double()
            if context is None and conditioner.context_features:  # of no effect then
                context = x.new_zeros(len(x), conditioner.context_features)
            inputs.append(conditioner.regressors(x, context, len(x) - lags).double())
            changes.append(x.diff(dim=0)[lags - 1 :] / conditioner.unit.double())
    return Regression(torch.cat(inputs), torch.cat(changes)) if inputs else None


def _choose(
    conditioner: LinearConditioner, rows: Regression, held: Regression | None, mixed: bool
) -> tuple[Tensor, float]:
    """Penalty and shrinkage of the best score on held-out data."""
    trials = [*_folds(rows), *([(rows, held)] if held is not None else [])]
    moments = [_Moments(part) for part, _ in trials]
    whole, frames = _Moments(rows), sum(len(part.changes) for _, part in trials)
    best, chosen = -math.inf, (next(_penalties(conditioner)), 1.0)
    for penalty in _penalties(conditioner):
        if _largest_root(conditioner, whole.solve(penalty)[0]) > LARGEST_ROOT:
            continue
        totals = dict.fromkeys(SHRINKAGES if mixed else (1.0,), 0.0)
        for (_, out), found in zip(trials, moments, strict=True):
            weight, bias = found.solve(penalty)
            errors, scatter = out.changes - out.inputs @ weight.mT - bias, found.scatter(weight)
            for shrinkage in totals:
                factor = _shrunken(scatter, shrinkage) * ((TAILS - 2) / TAILS) ** 0.5
                totals[shrinkage] += len(errors) * _log_prob(errors, factor, TAILS)
        for shrinkage, total in totals.items():
            if total / frames > best:
                best, chosen = total / frames, (penalty, shrinkage)
    return chosen


class _Moments:
    """Sums of rows that a ridge regression of any penalty needs."""

    def __init__(self, rows: Regression, weights: Tensor | None = None) -> None:
        weights = torch.ones(len(rows.changes), 1).to(rows.changes) if weights is None else weights
        total = weights.sum()
        self.mean = (weights * rows.inputs).sum(0) / total
        self.target = (weights * rows.changes).sum(0) / total
        centred = weights * (rows.inputs - self.mean)
        self.gram = centred.mT @ (rows.inputs - self.mean)
        self.cross = centred.mT @ (rows.changes - self.target)
        self.spread = (rows.changes - self.target).mT @ (weights * (rows.changes - self.target))
        self.count = len(rows.changes)

    def solve(self, penalty: Tensor) -> tuple[Tensor, Tensor]:
        """Weight and bias; zero weights for an infinite penalty."""
        if bool(penalty.isinf().all()):
            weight = torch.zeros_like(self.cross.mT)
        else:  # an equation for each entry
            weight = torch.linalg.solve(self.gram + torch.diag_embed(penalty), self.cross.mT)
        return weight, self.target - weight @ self.mean

    def scatter(self, weight: Tensor) -> Tensor:
        """Scatter of the errors, ``(D, D)``."""
        explained = weight @ self.cross
        left = self.spread - explained - explained.mT + weight @ self.gram @ weight.mT
        return left / self.count


def _folds(rows: Regression) -> Iterator[tuple[Regression, Regression]]:
    """Rows without a block, and the block."""
    if len(rows.changes) < 4 * FOLDS:
        return
    numbers = torch.arange(len(rows.changes))
    for block in numbers.tensor_split(FOLDS):
        rest = (numbers < block[0]) | (numbers > block[-1])
        yield (
            Regression(rows.inputs[rest], rows.changes[rest]),
            Regression(rows.inputs[block], rows.changes[block]),
        )


def _penalties(conditioner: LinearConditioner) -> Iterator[Tensor]:
    """Penalties of each regressor in each equation, ``(D, F)``; first that of the random walk."""
    size, known = conditioner.initial_shape[0], conditioner.context_features
    lags = torch.arange(1.0, conditioner.lags, dtype=torch.float64).repeat_interleave(size)
    one = torch.ones((), dtype=torch.float64)
    own = torch.eye(size, dtype=torch.float64).repeat(1, conditioner.lags)
    own = torch.cat([own, one.expand(size, known)], 1)
    yield torch.full_like(own, math.inf)
    for strength, decay, level, cross in product(STRENGTHS, DECAYS, LEVELS, CROSS):
        if cross > 1 and size == 1:
            continue
        by_input = torch.cat([level * one.expand(size), lags**decay, one.expand(known)])
        yield strength * by_input * torch.where(own > 0, one, cross * one)


def _fit(
    rows: Regression, penalty: Tensor, shrinkage: float, weights: Tensor | None = None
) -> Linear:
    weight, bias = _Moments(rows, weights).solve(penalty)
    found = Linear(weight, bias, torch.eye(len(bias)).to(bias))
    errors = found.errors(rows)
    return found._replace(factor=_factor(errors, shrinkage, weights))


def _fit_student(found: Linear, rows: Regression, shrinkage: float, df: float) -> Linear:
    """Scatter of t errors by maximum likelihood: large ones count less. Means stay as they are."""
    errors, size = found.errors(rows), rows.changes.shape[1]
    for _ in range(ROUNDS):
        whitened = torch.linalg.solve_triangular(found.factor, errors.mT, upper=False)
        weights = (df + size) / (df + whitened.square().sum(0))
        found = found._replace(factor=_factor(errors, shrinkage, weights.unsqueeze(-1)))
    return found


def _factor(errors: Tensor, shrinkage: float, weights: Tensor | None = None) -> Tensor:
    """Cholesky factor of the errors' scatter, with its correlations shrunken."""
    scatter = errors.mT @ (errors if weights is None else weights * errors) / len(errors)
    return _shrunken(scatter, shrinkage)


def _shrunken(scatter: Tensor, shrinkage: float) -> Tensor:
    diagonal = torch.diag(scatter.diagonal())
    mixed = (1 - shrinkage) * scatter + shrinkage * diagonal + 1e-9 * diagonal
    factor: Tensor = torch.linalg.cholesky(mixed)
    return factor


def _log_prob(errors: Tensor, factor: Tensor, df: float) -> float:
    zeros = factor.new_zeros(len(factor))
    student = MultivariateStudentT(factor.new_tensor(df), zeros, factor, validate_args=False)
    return float(student.log_prob(errors).mean())


def _largest_root(conditioner: LinearConditioner, weight: Tensor) -> float:
    """Largest modulus of the eigenvalues of the companion matrix of the levels."""
    size, lags = conditioner.initial_shape[0], conditioner.lags
    unit, spread = conditioner.unit.double(), conditioner.level_scale.double()
    level, *changes = weight[:, : lags * size].split(size, 1)
    by_lag = [torch.zeros(size, size).to(weight) for _ in range(lags)]
    by_lag[0] += torch.eye(size).to(weight) + unit.unsqueeze(-1) * level / spread
    for k, matrix in enumerate(changes):
        effect = unit.unsqueeze(-1) * matrix / unit
        by_lag[k] += effect
        by_lag[k + 1] -= effect
    companion = torch.diag(torch.ones(size * (lags - 1)), -size).to(weight)
    companion[:size] = torch.cat(by_lag, 1)
    return float(torch.linalg.eigvals(companion).abs().max())
