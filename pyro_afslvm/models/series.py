"""Flows of series, in units of changes and with entries that depend on each other."""

import math
from collections.abc import Iterable, Sequence
from typing import Any

from torch import Tensor, nn

from pyro_afslvm.models.flow import FlowModel
from pyro_afslvm.models.noise import JointStudentT
from pyro_afslvm.transforms import (
    Conditioner,
    LinearConditioner,
    TemporalAffine,
    TemporalChain,
    triangular_mixing,
)
from pyro_afslvm.transforms.least_squares import Series, estimate_linear
from pyro_afslvm.transforms.mixing import TriangularMixing


def series_flow(
    features: int,
    *,
    lags: int = 2,
    network: Conditioner | None = None,
    context_features: int = 0,
) -> TemporalChain:
    r"""Flow of vectors that starts as a vector autoregression or random walk.

    .. math:: x_t = \mu(x_{<t}) + \sigma(x_{<t}) \odot L y_t

    with :math:`\mu` and :math:`\sigma` of a :class:`LinearConditioner` and L unit lower
    triangular. :func:`estimate_series` sets what has a closed form.

    Args:
        features: size of a vector.
        lags: frames that the linear part looks at.
        network: sees levels and changes, vectors of size ``2 * features``.
        context_features: size of covariates of each frame.

    >>> series_flow(3, lags=4).context_length
    4
    """
    conditioner = LinearConditioner(
        features, lags=lags, network=network, context_features=context_features
    )
    # what is bounded is what the network adds to the scale of the changes
    flow = TemporalAffine(conditioner, min_log_scale=-math.inf, max_log_scale=math.inf)
    return TemporalChain([triangular_mixing(features), flow])


def series_model(
    frame_shape: tuple[int, ...],
    *,
    lags: int = 2,
    network: Conditioner | None = None,
    base: Any = None,
    context_features: int = 0,
) -> FlowModel:
    """Model of vectors by a :func:`series_flow`; the arguments are its and ``FlowModel``'s.

    Raises:
        ValueError: for frames that are no vectors.
    """
    features = vector_size(frame_shape)
    flow = series_flow(features, lags=lags, network=network, context_features=context_features)
    return FlowModel(flow, frame_shape, base=base, context_features=context_features)


def vector_size(frame_shape: tuple[int, ...]) -> int:
    """Size of a frame that is a vector.

    Raises:
        ValueError: for frames that are no vectors.
    """
    if len(frame_shape) != 1:
        raise ValueError(f"expected vectors, got frames of shape {tuple(frame_shape)}")
    return frame_shape[0]


def estimate_series(model: nn.Module, train: Series, validation: Series = ()) -> bool:
    """Set the linear part of a model's flow in closed form; tell whether it has one.

    Args:
        model: whose :class:`LinearConditioner` and mixing are set, if there are any.
        train: frames ``(T, D)`` and covariates of each series to learn from.
        validation: of each series to choose the penalty by.
    """
    found = [part for part in model.modules() if isinstance(part, LinearConditioner)]
    mixings = [part for part in model.modules() if isinstance(part, TriangularMixing)]
    bases = [part for part in model.modules() if isinstance(part, JointStudentT)]
    if not found:
        return False
    mixing = mixings[0] if mixings else None
    estimate = estimate_linear(found[0], train, validation, mixing=mixing, tails=bool(bases))
    for base in bases:
        base.set_df(estimate.df)
    return True


def estimate_from(model: nn.Module, batches: Iterable[Tensor]) -> None:
    """Set the linear part from batches ``(batch, T, D)`` of training sequences.

    A quarter of the batches chooses the penalty, where there are as many.
    """
    found = [*batches]
    held = found[: len(found) // 4]
    estimate_series(model, _apart(found[len(held) :]), _apart(held))


def _apart(batches: Sequence[Tensor]) -> list[tuple[Tensor, Tensor | None]]:
    return [(x, None) for batch in batches for x in batch]
