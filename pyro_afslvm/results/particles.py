"""Draws of the latents, and their densities and importance weights."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import pyro.poutine as poutine
import torch
from torch import Tensor

from pyro_afslvm.models.programs import no_guide
from pyro_afslvm.moved import old_names
from pyro_afslvm.objectives import log_prob_per_step
from pyro_afslvm.objectives.importance import (
    estimate,
    in_chunks,
    log_density,
    particle_traces,
    random_sites,
    sum_of_others,
)
from pyro_afslvm.utils.precision import widened

Program = Callable[..., Any]


class Draws(NamedTuple):
    """Draws from the guide, their log-densities in nats, in float64."""

    latents: dict[str, Tensor]  # site: (draws, batch, T, *event), or (draws, batch, *event)
    in_time: frozenset[str]  # sites with a value for every scored frame
    step: Tensor  # log p(x_t | x_<t, z), (draws, batch, T)
    log_joint: Tensor  # log p(x, z), (draws, batch)
    log_q: Tensor  # log q(z | x), (draws, batch)


class Evidence(NamedTuple):
    """Estimates of log p(x) of each sequence from all particles of all draws."""

    log_evidence: Tensor  # (batch,)
    error: Tensor  # over repetitions, by the jackknife, (batch,)
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
        terms = (term.expand(num_draws, *term.shape[1:]) for term in exact[2:])
        return Draws({}, frozenset(), *terms)
    parts = [_draw(model, guide, x, size, lengths) for size in in_chunks(num_draws, chunk)]
    latents = {site: torch.cat([part.latents[site] for part in parts]) for site in parts[0].latents}
    scored = parts[0].step.shape[-1]
    in_time = _in_time(guide, x, {s: z.shape[2:] for s, z in latents.items()}, scored, lengths)
    terms = (torch.cat(term) for term in list(zip(*parts, strict=True))[2:])
    return Draws(latents, in_time, *terms)


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
    others = own if draws == 1 else sum_of_others(own)
    count = particles * max(1, draws - 1)
    return Evidence(*estimate(log_weights.flatten(0, 1)), others - math.log(count))


def _draw(model: Program, guide: Program, x: Tensor, size: int, lengths: Tensor | None) -> Draws:
    q, p = particle_traces(model, guide, x, size=size, lengths=lengths)
    observed: Any = p.nodes["x"]
    step = log_prob_per_step(observed["fn"], observed["value"])
    return Draws(
        {name: _expanded(site, size, len(x)).cpu() for name, site in latent_sites(q).items()},
        frozenset(),
        widened(step.expand(size, *step.shape[-2:]).cpu()),
        widened(log_density(p, x).expand(size, len(x)).cpu()),
        widened(log_density(q, x).expand(size, len(x)).cpu()),
    )


def latent_sites(q: poutine.Trace) -> dict[str, Any]:
    """Sites of a guide's latents, without the auxiliary ones that only serve to make them."""
    sites = random_sites(q)
    return {n: site for n, site in sites.items() if not site["infer"].get("is_auxiliary")}


def _expanded(site: Any, size: int, batch: int) -> Tensor:
    """Values ``(draws, batch, *event)``, also where one stands for all of them."""
    value: Tensor = site["value"]
    event = value.shape[value.ndim - site["fn"].event_dim :]
    return value.expand(size, batch, *event)


def _in_time(
    guide: Program,
    x: Tensor,
    events: dict[str, torch.Size],
    scored: int,
    lengths: Tensor | None,
) -> frozenset[str]:
    """Tell the latents of every frame from those of a sequence that only have as many entries.

    The former are fewer where there are fewer frames.
    """
    alike = {site for site, event in events.items() if event and event[0] == scored}
    doubtful = {site for site in alike if site != "z"}
    if not doubtful or scored < 2:
        return frozenset(alike)
    shorter = None if lengths is None else lengths.clamp(max=x.shape[1] - 1)
    with torch.random.fork_rng():
        try:
            q = poutine.trace(guide).get_trace(x[:, :-1], lengths=shorter)
        except (RuntimeError, ValueError):  # a guide of parameters for every frame
            return frozenset(alike)
    sites = latent_sites(q)
    fixed = {s for s in doubtful & sites.keys() if sites[s]["fn"].event_shape[0] == scored}
    return frozenset(alike - fixed)


__getattr__ = old_names(__name__)
