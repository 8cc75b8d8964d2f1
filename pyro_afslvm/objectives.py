"""Terms of the bound, step by step."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import pyro
import pyro.distributions as dist
import pyro.poutine as poutine
import torch
from torch import Tensor
from torch.distributions.utils import _sum_rightmost

from pyro_afslvm.transforms import ConditionedTemporalTransform


class BoundTerms(NamedTuple):
    """Terms of Eq. 20 for every scored frame, in nats, each ``(particles, batch, T)``."""

    log_likelihood: Tensor  # log p(y_t | ...) - log det
    kl: Tensor  # log q(z_t | ...) - log p(z_t | ...), at the sample

    @property
    def bound(self) -> Tensor:
        """The integrand of the bound."""
        return self.log_likelihood - self.kl


def log_prob_per_step(distribution: dist.TorchDistribution, value: Tensor) -> Tensor:
    """Log-probability of each entry along time of a distribution over sequences.

    Args:
        distribution: a Normal made independent over ``(T, *frame_shape)``, or its transform
            across time.
        value: ``(*batch, T, *frame_shape)``.

    Returns:
        ``(*batch, T)``; its sum over time is ``distribution.log_prob(value)``.

    Raises:
        TypeError: if the distribution is not such a one.
    """
    frame_dims = len(distribution.event_shape) - 1
    log_scale: Tensor | float = 0.0
    if isinstance(distribution, torch.distributions.TransformedDistribution):
        for transform in reversed(distribution.transforms):
            if not isinstance(transform, ConditionedTemporalTransform):
                raise TypeError(f"no log-probability per step through {transform}")
            log_scale = log_scale + transform.log_scale(value)
            value = transform.inv(value)
        distribution = distribution.base_dist
    while isinstance(distribution, torch.distributions.Independent):
        distribution = distribution.base_dist
    if distribution.event_shape:
        raise TypeError(f"no log-probability per step of {distribution}")
    terms: Tensor = distribution.log_prob(value) - log_scale
    return _sum_rightmost(terms, frame_dims)


def bound_terms(
    model: Callable[..., Any],
    guide: Callable[..., Any] | None,
    x: Tensor,
    *,
    num_particles: int = 1,
    lengths: Tensor | None = None,
) -> BoundTerms:
    """Evaluate the terms of the bound with samples from the guide.

    Args:
        model: a Pyro program with sites ``x`` and, where it has latents, ``z``.
        guide: a Pyro program with site ``z``; ``None`` for a model without latents, whose
            terms are exact.
        x: ``(batch, T, *frame_shape)``.
        num_particles: samples from the guide.
        lengths: ``(batch,)``.

    Source: Marino et al., Eq. 20.
    """
    samples = [_terms(model, guide, x, lengths) for _ in range(num_particles if guide else 1)]
    return BoundTerms(*(torch.stack(term) for term in zip(*samples, strict=True)))


class Evidence(NamedTuple):
    """An estimate of log p(x) of each sequence, in nats, each ``(batch,)`` in float64."""

    log_evidence: Tensor
    error: Tensor  # standard error over particles, by the delta method


@torch.no_grad()
def iwae(
    model: Callable[..., Any],
    guide: Callable[..., Any],
    x: Tensor,
    *,
    num_particles: int = 64,
    chunk: int = 1,
    lengths: Tensor | None = None,
) -> Evidence:
    r"""Importance-weighted bound on the evidence of every sequence.

    .. math:: \log p(x) \ge E \log \frac{1}{K} \sum_k \frac{p(x, z_k)}{q(z_k \mid x)}, \qquad
        z_k \sim q

    Particles are averaged within a sequence, never across sequences.

    Args:
        model: a Pyro program with the plate ``sequence``.
        guide: a Pyro program for the same latents.
        x: ``(batch, T, *frame_shape)``.
        num_particles: K; the bound rises with it.
        chunk: particles at a time; memory grows with it, not with K.
        lengths: ``(batch,)``.

    Raises:
        ValueError: for no particles, or chunks of none.

    Source: Burda, Grosse, Salakhutdinov, *Importance Weighted Autoencoders*, arXiv:1509.00519.
    """
    if num_particles < 1 or chunk < 1:
        raise ValueError(f"expected at least 1 particle, got {num_particles} in chunks of {chunk}")
    sizes = [min(chunk, num_particles - done) for done in range(0, num_particles, chunk)]
    log_weights = torch.cat([_log_weights(model, guide, x, size, lengths) for size in sizes])
    log_evidence = log_weights.logsumexp(0) - math.log(num_particles)
    relative = (log_weights - log_evidence).exp()  # weights over their mean
    spread = relative.std(0) if num_particles > 1 else torch.full_like(log_evidence, math.nan)
    return Evidence(log_evidence, spread / math.sqrt(num_particles))


def _log_weights(
    model: Callable[..., Any],
    guide: Callable[..., Any],
    x: Tensor,
    size: int,
    lengths: Tensor | None,
) -> Tensor:  # (size, batch)
    def particles(program: Callable[..., Any]) -> Callable[..., Any]:
        def many(*arguments: Any, **options: Any) -> Any:
            with pyro.plate("particles", size, dim=-2):
                return program(*arguments, **options)

        return many

    q = poutine.trace(particles(guide)).get_trace(x, lengths=lengths)
    p = poutine.trace(poutine.replay(particles(model), trace=q)).get_trace(x, lengths=lengths)
    return _log_prob(p) - _log_prob(q)


def _log_prob(trace: poutine.Trace) -> Tensor:
    """Log-density of all sites of each particle and sequence."""
    trace.compute_log_prob()
    sites: list[Any] = [trace.nodes[name] for name in trace.stochastic_nodes]
    sites += [trace.nodes[name] for name in trace.observation_nodes]
    total: Tensor = sum(site["log_prob"].double() for site in sites)
    return total


def _terms(
    model: Callable[..., Any],
    guide: Callable[..., Any] | None,
    x: Tensor,
    lengths: Tensor | None,
) -> BoundTerms:
    if guide is None:
        observed: Any = poutine.trace(model).get_trace(x, lengths=lengths).nodes["x"]
        log_likelihood = log_prob_per_step(observed["fn"], observed["value"])
        return BoundTerms(log_likelihood, torch.zeros_like(log_likelihood))
    posterior = poutine.trace(guide).get_trace(x, lengths=lengths)
    joint = poutine.trace(poutine.replay(model, trace=posterior)).get_trace(x, lengths=lengths)
    q: Any = posterior.nodes["z"]
    p: Any = joint.nodes["z"]
    observed = joint.nodes["x"]
    kl = log_prob_per_step(q["fn"], q["value"]) - log_prob_per_step(p["fn"], q["value"])
    return BoundTerms(log_prob_per_step(observed["fn"], observed["value"]), kl)
