"""The linear part of a flow of series in closed form: ridge regression towards the random walk."""

from collections.abc import Iterator, Sequence
from itertools import product
from typing import NamedTuple

import torch
from torch import Tensor

from pyro_afslvm.transforms.conditioners import LinearConditioner
from pyro_afslvm.transforms.mixing import TriangularMixing

Series = Sequence[tuple[Tensor, Tensor | None]]  # frames (T, D) and covariates (T, F) of each

STRENGTHS = tuple(10.0**k for k in range(-4, 5))  # of the penalty, in observations
DECAYS = (0.0, 1.0, 2.0)  # the penalty of a lag k is its strength times k to this power
LEVELS = (1.0, 1e9)  # with the level among the regressors, or the changes alone
SHRINKAGES = (0.0, 0.1, 0.3, 1.0)  # of correlations between the entries of a change
LARGEST_ROOT = 1.002  # of the linear part, beyond which trajectories explode


class Regression(NamedTuple):
    """Regressors, already in their units, and changes in units of theirs, one row a frame."""

    inputs: Tensor  # (N, F)
    changes: Tensor  # (N, D)


class Linear(NamedTuple):
    """A vector autoregression of changes and how good it is on the validation data."""

    weight: Tensor  # (D, F)
    bias: Tensor  # (D,)
    factor: Tensor  # (D, D), Cholesky factor of the covariance, in units of the changes
    log_prob: float  # nats per frame of validation data; of training data where there are none


@torch.no_grad()
def estimate_linear(
    conditioner: LinearConditioner,
    train: Series,
    validation: Series = (),
    *,
    mixing: TriangularMixing | None = None,
) -> Linear:
    r"""Set a conditioner to the best ridge regression, by the likelihood of the validation data.

    .. math:: \min_{W, b} \sum_t \left\| \frac{x_t - x_{t-1}}{s} - W \phi_t - b \right\|^2
        + \sum_j \lambda_j \| W_j \|^2

    The units are standard deviations over the training data. The penalty pulls towards the random
    walk, which is one of the candidates; those that would explode are none.

    Args:
        conditioner: whose linear part and units are set.
        train: series to learn from.
        validation: series to choose the penalty by; without them the strongest of the random
            walk's scale stays.
        mixing: set to the correlation of the entries within a frame, if given.

    Raises:
        ValueError: where no series is long enough, or an entry never changes.
    """
    _set_units(conditioner, train)
    rows = _regression(conditioner, train)
    held = _regression(conditioner, validation) if validation else None
    if rows is None:
        raise ValueError(
            f"expected series of more than {conditioner.window} frames, "
            f"got {max(len(x) for x, _ in train)} at most"
        )
    best = max(_candidates(conditioner, rows, held, mixing), key=lambda found: found.log_prob)
    conditioner.weight.copy_(best.weight)
    conditioner.bias.copy_(best.bias)
    scales = best.factor.diagonal()
    conditioner.log_scale.copy_((scales * conditioner.unit.double()).log())
    if mixing is not None:
        # of D L with L unit lower triangular, in units of the data
        mixing.below.copy_(best.factor / scales.unsqueeze(-1))
    return best


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
    if given:
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


def _candidates(
    conditioner: LinearConditioner,
    rows: Regression,
    held: Regression | None,
    mixing: TriangularMixing | None,
) -> Iterator[Linear]:
    """The random walk, and regressions of every penalty that do not explode."""
    size, shrinkages = conditioner.initial_shape[0], SHRINKAGES if mixing is not None else (1.0,)
    walk = torch.zeros_like(conditioner.weight, dtype=torch.float64)
    yield from _with_covariance(walk, rows.changes.mean(0) * 0, rows, held, shrinkages)
    yield from _with_covariance(walk, rows.changes.mean(0), rows, held, shrinkages)
    mean, target = rows.inputs.mean(0), rows.changes.mean(0)
    centred = rows.inputs - mean
    gram, cross = centred.mT @ centred, centred.mT @ (rows.changes - target)
    for strength, decay, level in product(STRENGTHS, DECAYS, LEVELS):
        if held is None and strength < 1.0:
            continue
        lags = torch.arange(1.0, conditioner.lags, dtype=torch.float64) ** decay
        penalty = torch.cat(
            [
                torch.full((size,), level),
                lags.repeat_interleave(size),
                torch.ones(conditioner.context_features),
            ]
        )
        weight = torch.linalg.solve(gram + torch.diag(strength * penalty), cross).mT
        if _largest_root(conditioner, weight) <= LARGEST_ROOT:
            yield from _with_covariance(weight, target - weight @ mean, rows, held, shrinkages)


def _with_covariance(
    weight: Tensor,
    bias: Tensor,
    rows: Regression,
    held: Regression | None,
    shrinkages: Sequence[float],
) -> Iterator[Linear]:
    left = rows.changes - rows.inputs @ weight.mT - bias
    covariance = left.mT @ left / len(left)
    diagonal = torch.diag(covariance.diagonal())
    scored = rows if held is None else held
    errors = scored.changes - scored.inputs @ weight.mT - bias
    for shrinkage in shrinkages:
        mixed = (1 - shrinkage) * covariance + shrinkage * diagonal
        factor, failed = torch.linalg.cholesky_ex(mixed)
        if not bool(failed):
            normal = torch.distributions.MultivariateNormal(
                torch.zeros_like(bias), scale_tril=factor
            )
            yield Linear(weight, bias, factor, float(normal.log_prob(errors).mean()))


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
