"""The importance-weighted bound."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import pyro
import pyro.poutine as poutine
import torch
from torch import Tensor

from pyro_afslvm.models.programs import evaluating, no_guide, one_line_errors


class Evidence(NamedTuple):
    """An estimate of log p(x) of each sequence, in nats, each ``(batch,)`` in float64."""

    log_evidence: Tensor
    error: Tensor  # standard error over particles, by the delta method


@torch.no_grad()
def iwae(
    model: Callable[..., Any],
    guide: Callable[..., Any] | None,
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
        guide: a Pyro program for the same latents; ``None`` for a model without any. Both are
            run in evaluation mode.
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
    guide = guide or no_guide
    sizes = in_chunks(num_particles, chunk)
    with evaluating(model, guide), one_line_errors():
        log_weights = torch.cat([_log_weights(model, guide, x, size, lengths) for size in sizes])
    return estimate(log_weights)


def estimate(log_weights: Tensor) -> Evidence:
    """Log of the mean weight of each sequence, from ``(particles, batch)``."""
    num_particles = len(log_weights)
    log_evidence = log_weights.logsumexp(0) - math.log(num_particles)
    relative = (log_weights - log_evidence).exp()  # weights over their mean
    spread = relative.std(0) if num_particles > 1 else torch.full_like(log_evidence, math.nan)
    return Evidence(log_evidence, spread / math.sqrt(num_particles))


def in_chunks(total: int, chunk: int) -> list[int]:
    """Sizes of chunks that add up to a total.

    >>> in_chunks(10, 4)
    [4, 4, 2]
    """
    return [min(chunk, total - done) for done in range(0, total, chunk)]


class Traces(NamedTuple):
    """Particles of a guide, and the model that is given them."""

    guide: poutine.Trace
    model: poutine.Trace


def particle_traces(
    model: Callable[..., Any],
    guide: Callable[..., Any],
    x: Tensor,
    *,
    size: int,
    lengths: Tensor | None = None,
) -> Traces:
    """Run guide and model once, with ``size`` particles in a plate at dimension -2."""

    def particles(program: Callable[..., Any]) -> Callable[..., Any]:
        def many(*arguments: Any, **options: Any) -> Any:
            with pyro.plate("particles", size, dim=-2):
                return program(*arguments, **options)

        return many

    q = poutine.trace(particles(guide)).get_trace(x, lengths=lengths)
    p = poutine.trace(poutine.replay(particles(model), trace=q)).get_trace(x, lengths=lengths)
    return Traces(q, p)


def log_density(trace: poutine.Trace, like: Tensor) -> Tensor:
    """Log-density of all sites of each particle and sequence, ``(particles, batch)``, float64.

    Args:
        trace: from :func:`particle_traces`.
        like: gives the device of what has no sites.
    """
    trace.compute_log_prob()
    sites: list[Any] = [trace.nodes[name] for name in trace.stochastic_nodes]
    sites += [trace.nodes[name] for name in trace.observation_nodes]
    nothing = like.new_zeros(1, 1, dtype=torch.float64)
    total: Tensor = sum((site["log_prob"].double() for site in sites), nothing)
    return total


def _log_weights(
    model: Callable[..., Any],
    guide: Callable[..., Any],
    x: Tensor,
    size: int,
    lengths: Tensor | None,
) -> Tensor:  # (size, batch)
    traces = particle_traces(model, guide, x, size=size, lengths=lengths)
    difference = log_density(traces.model, x) - log_density(traces.guide, x)
    return difference.expand(size, len(x))
