"""Distributions of whole sequences, their log-probabilities and divergences step by step."""

from collections.abc import Callable
from typing import Any, NamedTuple, NoReturn

import pyro.distributions as dist
import torch
from torch import Tensor
from torch.distributions import Distribution, Independent, TransformedDistribution, register_kl
from torch.distributions.utils import _sum_rightmost

from pyro_afslvm.transforms import ConditionedTemporalTransform, check_affine


class SequenceDistribution(dist.TransformedDistribution):  # type: ignore[misc]
    """Noise sent through transforms across time; it knows the last sequence drawn from it.

    Where the noise is Gaussian and the transform affine, the divergence of two of them is known
    in closed form at every step of that sequence, see :func:`kl_per_step`.
    """

    drawn: Tensor | None = None

    def rsample(self, sample_shape: torch.Size | tuple[()] = ()) -> Tensor:
        """Draw sequences ``(*sample, *batch, T, *frame_shape)``."""
        self.drawn = super().rsample(torch.Size(sample_shape))
        return self.drawn


def standard_normal(shape: tuple[int, ...], like: Tensor) -> dist.TorchDistribution:
    """Make N(0, I) over events of this shape, in the precision and on the device of ``like``."""
    zeros = like.new_zeros(()).expand(shape)
    normal: dist.TorchDistribution = dist.Normal(zeros, torch.ones_like(zeros))
    event: dist.TorchDistribution = normal.to_event(len(shape))
    return event


def across_time(
    base: dist.TorchDistribution,
    transform: ConditionedTemporalTransform,
    *more: torch.distributions.Transform,
) -> SequenceDistribution:
    """Make the distribution of sequences whose noise is ``base``; padded frames count zero.

    Args:
        base: the noise, over ``(T, *frame_shape)``.
        transform: the transform across time.
        more: transforms of single frames that follow.
    """
    return SequenceDistribution(masked(base, transform.mask), [transform, *more])


def masked(base: dist.TorchDistribution, mask: Tensor | None) -> dist.TorchDistribution:
    """Mask a distribution of independent entries over ``(T, *frame_shape)``.

    Args:
        base: the distribution.
        mask: ``(*batch, T)``, true where a frame counts; ``None`` where all do.
    """
    if mask is None:
        return base
    event = len(base.event_shape)
    entries = base.base_dist if isinstance(base, dist.Independent) else base
    rest = event - len(entries.event_shape)  # entries of a frame may be one event
    counted = entries.mask(mask.reshape(*mask.shape, *[1] * (rest - 1)))
    sequences: dist.TorchDistribution = counted.to_event(rest)
    return sequences


def log_prob_per_step(distribution: dist.TorchDistribution, value: Tensor) -> Tensor:
    """Log-probability of each entry along time of a distribution over sequences.

    Args:
        distribution: a distribution of entries or frames made independent over
            ``(T, *frame_shape)``, or its transform across time, followed by transforms of
            single frames or by none.
        value: ``(*batch, T, *frame_shape)``.

    Returns:
        ``(*batch, T)``; its sum over time is ``distribution.log_prob(value)``.

    Raises:
        TypeError: if the distribution is not such a one.
    """
    frame_dims = len(distribution.event_shape) - 1
    found = _pulled_back(distribution, value, lambda t, x: _log_det_per_step(t, x, frame_dims))
    rest = frame_dims - len(found.entries.event_shape)
    if rest < 0:
        raise TypeError(f"no log-probability per step of {found.entries}")
    terms: Tensor = _sum_rightmost(found.entries.log_prob(found.noise), rest)
    return terms - found.log_det


def log_prob_per_entry(distribution: dist.TorchDistribution, value: Tensor) -> Tensor:
    """Log-probability of each entry of an event, given those that its transforms see before it.

    Args:
        distribution: independent entries, or their transform by what knows the scale of each
            entry, such as an inverse autoregressive flow.
        value: ``(*batch, *event)``.

    Returns:
        of the same shape; its sum over the event is ``distribution.log_prob(value)``.

    Raises:
        TypeError: if the distribution is not such a one.
    """
    found = _pulled_back(distribution, value, _log_scale)
    if found.entries.event_shape:
        raise TypeError(f"no log-probability per entry of {found.entries}")
    terms: Tensor = found.entries.log_prob(found.noise) - found.log_det
    return terms


class _PulledBack(NamedTuple):
    """The noise behind a value of a distribution, and the distribution of that noise."""

    entries: Any  # the distribution of the noise, entry by entry
    noise: Tensor
    log_det: Tensor | float  # of all transforms together


def _pulled_back(
    distribution: Any, value: Tensor, log_det: Callable[[Any, Tensor], Tensor]
) -> _PulledBack:
    """Send a value back through the transforms; ``log_det`` is called with each of them."""
    total: Tensor | float = 0.0
    if isinstance(distribution, TransformedDistribution):
        for transform in reversed(distribution.transforms):
            total = total + log_det(transform, value)
            value = transform.inv(value)
        distribution = distribution.base_dist
    return _PulledBack(_entries(distribution), value, total)


def _log_scale(transform: Any, value: Tensor) -> Tensor:
    if not hasattr(transform, "log_scale"):
        raise TypeError(f"no log-probability per entry through {transform}")
    log_scale: Tensor = transform.log_scale(value)
    return log_scale


def _log_det_per_step(transform: Any, value: Tensor, frame_dims: int) -> Tensor:
    if isinstance(transform, ConditionedTemporalTransform):
        log_scale: Tensor = _sum_rightmost(transform.log_scale(value), frame_dims)
        return log_scale
    event = transform.codomain.event_dim
    if event > frame_dims:
        raise TypeError(f"no log-probability per step through {transform}")
    log_det = transform.log_abs_det_jacobian(transform.inv(value), value)
    per_step: Tensor = _sum_rightmost(log_det, frame_dims - event)
    return per_step


def _entries(distribution: Any) -> Any:
    while isinstance(distribution, Independent):
        distribution = distribution.base_dist
    return distribution


class _Gaussian(NamedTuple):
    """A sequence as Gaussian steps: x = shift + scale * noise."""

    noise: Tensor
    log_scale: Tensor


def kl_per_step(q: SequenceDistribution, p: SequenceDistribution) -> Tensor:
    r"""Divergence of two Gaussian autoregressive models at each step of a sequence of q.

    .. math:: E_q \log \frac{q(z)}{p(z)} = E_q \sum_t
        D_\mathrm{KL}\left( q(z_t \mid z_{<t}) \,\|\, p(z_t \mid z_{<t}) \right)

    Each term is known in closed form given :math:`z_{<t}`, for which the last sequence drawn
    from q stands; so the sum is unbiased, and free of the noise of the last step.

    Args:
        q: sequences of latents, the last of which has been drawn.
        p: sequences of the same shape.

    Returns:
        ``(*batch, T)``; zero where a sequence has ended.

    Raises:
        TypeError: if one of them is not Gaussian given the past, for its noise is not or its
            transform is not affine, or if q has not been sampled.
    """
    z = q.drawn
    if z is None:
        raise TypeError("no sequence has been drawn from q yet")
    of_q, of_p = _gaussian(q, z), _gaussian(p, z)
    log_ratio = of_q.log_scale - of_p.log_scale
    error = of_p.noise - log_ratio.exp() * of_q.noise  # (shift of q - shift of p) / scale of p
    terms = 0.5 * ((2 * log_ratio).exp() + error.square() - 1) - log_ratio
    per_step: Tensor = _sum_rightmost(terms, len(q.event_shape) - 1)
    mask = q.transforms[0].mask
    return per_step if mask is None else per_step.masked_fill(~mask, 0.0)


def _gaussian(distribution: SequenceDistribution, z: Tensor) -> _Gaussian:
    transforms, base = distribution.transforms, _entries(distribution.base_dist)
    while isinstance(base, dist.MaskedDistribution):
        base = _entries(base.base_dist)
    forward = len(transforms) == 1 and isinstance(transforms[0], ConditionedTemporalTransform)
    if not forward or not isinstance(base, torch.distributions.Normal):
        raise TypeError(
            "no analytic KL: the guide must sample z forward in time, each step Gaussian given "
            "those before; use Trace_ELBO for a guide with IAF or of another kind"
        )
    (transform,) = transforms
    check_affine(transform, "analytic KL")
    noise = (transform.inv(z) - base.loc) / base.scale
    return _Gaussian(noise, transform.log_scale(z) + base.scale.log())


@register_kl(SequenceDistribution, SequenceDistribution)  # type: ignore[untyped-decorator]
def _kl_sequences(q: SequenceDistribution, p: SequenceDistribution) -> Tensor:
    return kl_per_step(q, p).sum(-1)


@register_kl(Distribution, SequenceDistribution)  # type: ignore[untyped-decorator]
@register_kl(TransformedDistribution, SequenceDistribution)  # type: ignore[untyped-decorator]
def _refuse(q: Distribution, p: SequenceDistribution) -> NoReturn:
    raise TypeError(
        f"no analytic KL of {type(q).__name__} to a prior across time: only guides that sample "
        "z forward in time have one; use Trace_ELBO"
    )


@register_kl(dist.Delta, SequenceDistribution)  # type: ignore[untyped-decorator]
def _kl_point(q: dist.Delta, p: SequenceDistribution) -> Tensor:
    log_prob: Tensor = p.log_prob(q.v)
    return -log_prob
