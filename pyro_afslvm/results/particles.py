"""Draws of the latents, and their densities and importance weights."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from pyro.poutine.util import site_is_subsample
from torch import Tensor

from pyro_afslvm.models.programs import no_guide
from pyro_afslvm.moved import old_names
from pyro_afslvm.objectives import log_prob_per_step
from pyro_afslvm.objectives.importance import estimate, in_chunks, log_density, particle_traces

Program = Callable[..., Any]


class Draws(NamedTuple):
    """Draws from the guide, their log-densities in nats, in float64."""

    latents: dict[str, Tensor]  # site: (draws, batch, T, size)
    step: Tensor  # log p(x_t | x_<t, z), (draws, batch, T)
    log_joint: Tensor  # log p(x, z), (draws, batch)
    log_q: Tensor  # log q(z | x), (draws, batch)


class Evidence(NamedTuple):
    """Estimates of log p(x) of each sequence from all particles of all draws."""

    log_evidence: Tensor  # (batch,)
    error: Tensor  # standard error by the delta method, (batch,)
    others: Tensor  # from the particles of the other draws, (draws, batch)


def draw(
    model: Program,
    guide: Program | None,
    x: Tensor,
    *,
    num_draws: int,
    chunk: int,
    lengths: Tensor | None,
) -> Draws:
    """Draw latents and weigh them, ``chunk`` at a time, kept on the CPU.

    Without a guide there is nothing to draw: the exact terms are repeated.
    """
    if guide is None:
        exact = _draw(model, no_guide, x, 1, lengths)
        terms = (term.expand(num_draws, *term.shape[1:]) for term in exact[1:])
        return Draws({}, *terms)
    parts = [_draw(model, guide, x, size, lengths) for size in in_chunks(num_draws, chunk)]
    latents = {site: torch.cat([part.latents[site] for part in parts]) for site in parts[0].latents}
    return Draws(latents, *(torch.cat(terms) for terms in list(zip(*parts, strict=True))[1:]))


def log_weights(
    model: Program,
    guide: Program,
    x: Tensor,
    *,
    num_draws: int,
    chunk: int,
    lengths: Tensor | None,
) -> Tensor:
    """log p(x, z) - log q(z | x) of further draws: ``(draws, batch)``."""
    parts = (_draw(model, guide, x, size, lengths) for size in in_chunks(num_draws, chunk))
    return torch.cat([part.log_joint - part.log_q for part in parts])


def evidence(*rounds: Tensor) -> Evidence:
    """Estimates from log-weights ``(draws, batch)``, one round for each particle of a draw."""
    log_weights = torch.stack(rounds)
    particles, draws = log_weights.shape[:2]
    own = log_weights.logsumexp(0)
    others = own if draws == 1 else _sum_of_others(own)
    count = particles * max(1, draws - 1)
    return Evidence(*estimate(log_weights.flatten(0, 1)), others - math.log(count))


def _sum_of_others(logs: Tensor) -> Tensor:
    """Log of the sum over all entries but each, along the first dimension, without cancelling."""
    nothing = torch.full_like(logs[:1], -math.inf)
    before = torch.cat([nothing, logs.logcumsumexp(0)[:-1]])
    after = torch.cat([logs.flip(0).logcumsumexp(0).flip(0)[1:], nothing])
    return torch.logaddexp(before, after)


def _draw(model: Program, guide: Program, x: Tensor, size: int, lengths: Tensor | None) -> Draws:
    q, p = particle_traces(model, guide, x, size=size, lengths=lengths)
    sites: dict[str, Any] = {
        name: q.nodes[name] for name in q.stochastic_nodes if not site_is_subsample(q.nodes[name])
    }
    observed: Any = p.nodes["x"]
    step = log_prob_per_step(observed["fn"], observed["value"])
    return Draws(
        {name: site["value"].cpu() for name, site in sites.items()},
        step.expand(size, *step.shape[-2:]).double().cpu(),
        log_density(p, x).expand(size, len(x)).cpu(),
        log_density(q, x).expand(size, len(x)).cpu(),
    )


__getattr__ = old_names(__name__)
