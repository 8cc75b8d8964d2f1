"""Mean and standard deviation of frames whose noise is distributed in a known way."""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor
from torch.distributions import ComposeTransform, Distribution, Transform

from pyro_afslvm.transforms.mixing import Fresh, TriangularMixing
from pyro_afslvm.transforms.univariate import Affine

NODES = 64  # of the quadrature of each entry, or draws where a map mixes entries


class Moments(NamedTuple):
    """Mean and standard deviation of every entry of frames, of their shape."""

    mean: Tensor
    scale: Tensor


def moments(transform: Transform, noise: Distribution, weights: Tensor | None = None) -> Moments:
    r"""Mean and standard deviation of :math:`x = f(y)`.

    In closed form for no map and an affine one, for affine maps and linear mixings of vectors,
    and for one that has its own method ``moments`` of this noise. Otherwise by the midpoint rule
    over the quantiles of each entry's noise, and by draws for maps that mix entries and noise
    whose quantiles are not known; both of 64 terms.

    Args:
        transform: from noise to frames ``(*batch, *frame)``.
        noise: of each entry, ``([particles,] *batch, *frame)``.
        weights: of the particles, ``(particles, *batch)``; the moments are of their mixture.
    """
    if isinstance(transform, Affine):
        mean, variance = _mixed(noise.mean, noise.variance, weights)
        spread = transform.log_scale.exp()
        return Moments(transform.shift + spread * mean, spread * variance.sqrt())
    if isinstance(transform, ComposeTransform) and not transform.parts:
        mean, variance = _mixed(noise.mean, noise.variance, weights)
        return Moments(mean, variance.sqrt())
    if (found := _linear(transform, noise)) is not None and weights is None:
        return found
    known = getattr(transform, "moments", None)
    if known is not None and weights is None and (found := known(noise)) is not None:
        return Moments(*found)
    total = square = torch.zeros(())
    first = None
    for y in _nodes(transform, noise):
        x = transform(y)
        first = x if first is None else first
        total, square = total + (x - first), square + (x - first).square()
    assert first is not None
    mean = total / NODES
    variance = (square / NODES - mean.square()).clamp(min=0.0)
    mean, variance = _mixed(first + mean, variance, weights)
    return Moments(mean, variance.sqrt())


def _linear(transform: Transform, noise: Distribution) -> Moments | None:
    """Moments of a composition of linear maps of independent entries; ``None`` for another."""
    parts = [
        part.transform if isinstance(part, Fresh) else part
        for part in (_flat(transform) if isinstance(transform, ComposeTransform) else [transform])
    ]
    if not all(isinstance(part, Affine | TriangularMixing) for part in parts):
        return None
    mean, factor = noise.mean, torch.diag_embed(noise.stddev)
    for part in parts:
        mean = part(mean)
        if isinstance(part, Affine):
            factor = part.log_scale.exp().unsqueeze(-1) * factor
        elif isinstance(part, TriangularMixing):
            factor = part.matrix.to(factor) @ factor
    return Moments(mean, factor.square().sum(-1).sqrt())


def _flat(transform: ComposeTransform) -> list[Transform]:
    parts: list[Transform] = []
    for part in transform.parts:
        parts += _flat(part) if isinstance(part, ComposeTransform) else [part]
    return parts


def _mixed(mean: Tensor, variance: Tensor, weights: Tensor | None) -> tuple[Tensor, Tensor]:
    """Mean and variance of a mixture over the first dimension."""
    if weights is None:
        return mean, variance
    weights = weights.to(mean).reshape(*weights.shape, *[1] * (mean.ndim - weights.ndim))
    centre = (weights * mean).sum(0)
    return centre, (weights * (variance + (mean - centre).square())).sum(0)


def _nodes(transform: Transform, noise: Distribution) -> Iterator[Tensor]:
    """Representative values of the noise, of equal weight."""
    places = (torch.arange(NODES) + 0.5) / NODES
    for place in places:
        if transform.domain.event_dim:
            yield noise.sample()
            continue
        try:
            yield noise.icdf(place.to(noise.mean))
        except NotImplementedError:
            yield noise.sample()
