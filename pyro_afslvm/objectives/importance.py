"""The importance-weighted bound."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import pyro
import pyro.distributions as dist
import pyro.poutine as poutine
import torch
from pyro.poutine.util import site_is_subsample
from torch import Tensor

from pyro_afslvm.models.inputs import as_frames, as_lengths
from pyro_afslvm.models.programs import (
    evaluating,
    given_context,
    no_guide,
    one_line_errors,
)
from pyro_afslvm.utils.precision import widened, widest


class Evidence(NamedTuple):
    """An estimate of log p(x) of each sequence, in nats, each ``(batch,)`` in float64."""

    log_evidence: Tensor
    error: Tensor  # over repetitions, by the jackknife; NaN of one particle


@torch.no_grad()
def iwae(
    model: Callable[..., Any],
    guide: Callable[..., Any] | None,
    x: Tensor,
    *,
    num_particles: int = 64,
    chunk: int = 1,
    lengths: Tensor | None = None,
    context: Tensor | None = None,
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
        context: covariates, ``(batch, T, context_features)``.

    Raises:
        ValueError: for no particles, or chunks of none; for a guide or model with a latent that
            several sequences share, so that none has an evidence of its own, and for a guide
            of single points.

    Source: Burda, Grosse, Salakhutdinov, *Importance Weighted Autoencoders*, arXiv:1509.00519.
    """
    if num_particles < 1 or chunk < 1:
        raise ValueError(f"expected at least 1 particle, got {num_particles} in chunks of {chunk}")
    x, lengths = as_frames(x, model, guide, lengths=lengths), as_lengths(lengths)
    guide = guide or no_guide
    sizes = in_chunks(num_particles, chunk)
    with evaluating(model, guide), one_line_errors():
        model, guide = given_context(model, context), given_context(guide, context)
        log_weights = torch.cat([_log_weights(model, guide, x, size, lengths) for size in sizes])
    return estimate(log_weights)


def estimate(log_weights: Tensor) -> Evidence:
    r"""Log of the mean weight of each sequence, from ``(particles, batch)``, and its error.

    .. math:: e^2 = (K - 1) \left[ \frac{1}{K} \sum_k (l_{-k} - \bar l)^2
        + (K - 1) (\bar l - l)^2 \right]

    with the estimate :math:`l`, those without each particle :math:`l_{-k}` and the mean of the
    latter: the jackknife's variance and squared bias. For many particles of similar weights it
    is the relative standard error of their mean. That can never be above one, however far
    repetitions lie apart; this grows with the distance of the largest weight from the others.
    It cannot see what no particle has found: with a poor guide the estimate is too low by more.

    Source: Efron, Tibshirani, *An Introduction to the Bootstrap*, ch. 10, 11.
    """
    count = len(log_weights)
    log_evidence = log_weights.logsumexp(0) - math.log(count)
    if count == 1:
        return Evidence(log_evidence, torch.full_like(log_evidence, math.nan))
    others = sum_of_others(log_weights) - math.log(count - 1)
    center = others.mean(0)
    variance = (count - 1) * (others - center).square().mean(0)
    bias = (count - 1) * (center - log_evidence)
    return Evidence(log_evidence, (variance + bias.square()).sqrt())


def sum_of_others(logs: Tensor) -> Tensor:
    """Log of the sum over all entries but each, along the first dimension, without cancelling.

    >>> sum_of_others(torch.tensor([1.0, 2.0, 4.0]).log()).exp()
    tensor([6., 5., 3.])
    """
    nothing = torch.full_like(logs[:1], -math.inf)
    before = torch.cat([nothing, logs.logcumsumexp(0)[:-1]])
    after = torch.cat([logs.flip(0).logcumsumexp(0).flip(0)[1:], nothing])
    return torch.logaddexp(before, after)


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
    for name in q.observation_nodes:  # some of Pyro's guides run the model, with its data
        q.remove_node(name)
    p = poutine.trace(poutine.replay(particles(model), trace=q)).get_trace(x, lengths=lengths)
    check_guided(q, p)
    _check_points(q)
    for trace in (q, p):
        _check_sequences(trace, len(x))
    return Traces(q, p)


def random_sites(trace: poutine.Trace) -> dict[str, Any]:
    """Sites that are sampled, by name, without the indices of plates."""
    nodes = {name: trace.nodes[name] for name in trace.stochastic_nodes}
    return {name: node for name, node in nodes.items() if not site_is_subsample(node)}


def check_guided(q: poutine.Trace, p: poutine.Trace) -> None:
    """Refuse a guide that leaves out latents of the model: nothing weighs their draws.

    Raises:
        ValueError: if there are such latents.
    """
    if left_out := [name for name in random_sites(p) if name not in q.nodes]:
        raise ValueError(
            f"expected a guide with the model's latents {', '.join(left_out)}, got one without"
        )


def _check_points(q: poutine.Trace) -> None:
    """Refuse a guide of single points, which no weight can be taken of."""
    sites = random_sites(q)
    if sites and all(_is_point(_entries(site["fn"])) for site in sites.values()):
        raise ValueError(
            f"no evidence by a guide of single points: {', '.join(sites)} has no density of its own"
        )


def _check_sequences(trace: poutine.Trace, count: int) -> None:
    """Refuse sites that belong to all sequences together: no single one has a share of them."""
    sites = random_sites(trace) | {name: trace.nodes[name] for name in trace.observation_nodes}
    for name, site in sites.items():
        plates = site["cond_indep_stack"]
        if count > 1 and not any(plate.dim == -1 and plate.size == count for plate in plates):
            raise ValueError(
                f"no evidence of single sequences: site '{name}' is one for all {count} of them; "
                "it takes latents of each sequence in a plate, or one sequence at a time; the "
                "bound of all together is -Trace_ELBO().loss(model, guide, x)"
            )


def _is_point(distribution: Any) -> bool:
    return isinstance(distribution, dist.Delta) and not bool(distribution.log_density.any())


def _entries(distribution: Any) -> Any:
    while isinstance(
        distribution, dist.Independent | dist.ExpandedDistribution | dist.MaskedDistribution
    ):
        distribution = distribution.base_dist
    return distribution


def log_density(trace: poutine.Trace, like: Tensor) -> Tensor:
    """Log-density of all sites of each particle and sequence, ``(particles, batch)``, float64.

    Args:
        trace: from :func:`particle_traces`.
        like: gives the device of what has no sites.
    """
    trace.compute_log_prob()
    sites: list[Any] = list(random_sites(trace).values())
    sites += [trace.nodes[name] for name in trace.observation_nodes]
    nothing = like.new_zeros(1, 1, dtype=widest(like.device))
    total: Tensor = sum((widened(site["log_prob"]) for site in sites), nothing)
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
