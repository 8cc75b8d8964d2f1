"""The sequential Monte Carlo bound, and the particle filter behind it."""

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor

from pyro_afslvm.guides import ForwardGuide
from pyro_afslvm.guides.base import check_guide
from pyro_afslvm.models.base import SequenceBatch
from pyro_afslvm.models.inputs import as_frames, as_lengths
from pyro_afslvm.models.param_store import restore
from pyro_afslvm.models.slvm import SLVM
from pyro_afslvm.networks.layers import single_steps
from pyro_afslvm.transforms import ConditionedTemporalTransform
from pyro_afslvm.utils.precision import widened, widest
from pyro_afslvm.utils.trees import map_tensors


class ParticleEvidence(NamedTuple):
    """The estimates of a particle filter for each sequence, in nats and float64."""

    log_evidence: Tensor  # (batch,)
    log_likelihood: Tensor  # log p(x_t | x_<t) of each scored frame, (batch, T)
    effective_sizes: Tensor  # of the particles, 1..K; the last again after the end, (batch, T)


class Particles(NamedTuple):
    """Weighted latents, as the states that model and guide keep of the past."""

    log_weights: Tensor  # normalized over particles, (K, batch)
    prior: Any
    posterior: Any


class Filtered(NamedTuple):
    """One step of a filter."""

    z: Tensor  # (K, batch, latent_size), before any resampling
    log_weights: Tensor  # of these, normalized, (K, batch)
    log_likelihood: Tensor  # log p(y_t | y_<t) estimated, (batch,)
    effective_size: Tensor  # (batch,)


def smc(
    model: SLVM,
    guide: ForwardGuide,
    x: Tensor,
    *,
    num_particles: int = 64,
    resample_below: float = 0.5,
    lengths: Tensor | None = None,
    context: Tensor | None = None,
    generator: torch.Generator | None = None,
) -> ParticleEvidence:
    r"""Particle filter with the guide as proposal: its evidence is unbiased, its log a bound.

    .. math:: \log p(x) \ge E \sum_t \log \sum_k W_{t-1}^k w_t^k, \qquad w_t^k =
        \frac{p(x_t \mid x_{<t}, z_{\le t}^k) \, p(z_t^k \mid x_{<t}, z_{<t}^k)}
        {q(z_t^k \mid x, z_{<t}^k)}

    Particles are resampled (systematically, each sequence for itself) where their effective
    number has fallen. A filtering guide makes it a filter; with a smoothing guide the proposal
    looks ahead, and the bound holds all the same. It can be maximised: the gradient leaves out
    that of the choice of ancestors, as is usual. To evaluate, set both to evaluation mode.

    Args:
        model: the model.
        guide: a guide that samples forward in time.
        x: ``(batch, T, *frame_shape)``.
        num_particles: K; memory grows with it.
        resample_below: effective particles over K below which they are resampled; 0 never
            does, which is importance sampling, 1 always does.
        lengths: ``(batch,)``.
        context: covariates, ``(batch, T, context_features)``.
        generator: of the proposals' N(0, I) draws and of resampling, on the device of ``x``; an
            iterative guide draws for its updates from torch's own.

    Raises:
        TypeError: for a model without latents, or a guide without steps.
        ValueError: for no particles, or a threshold outside of 0..1.

    Source: Maddison et al., *Filtering Variational Objectives*, arXiv:1705.09279; Doucet and
    Johansen, *A Tutorial on Particle Filtering and Smoothing*.
    """
    check_filter(model, guide, num_particles, resample_below)
    x, lengths = as_frames(x, model, guide, lengths=lengths), as_lengths(lengths)
    restore(guide)
    batch = model.batch(x, lengths, context)
    y, features = model.to_noise(batch), guide.context(batch)
    past = model.past(batch)
    log_det = _log_det(model, batch)
    particles = start(model, guide, num_particles, batch.size, like=y)
    found = []
    for t in range(y.shape[1]):
        alive = None if batch.mask is None else batch.mask[:, t]
        eps = draw(model, num_particles, y[:, t], generator)
        filtered, particles = advance(
            model, guide, particles, y[:, t], features[:, t], _at(past, t), eps, alive=alive
        )
        particles = resample(particles, filtered, resample_below, generator, alive=alive)
        found.append((filtered.log_likelihood - log_det[:, t], filtered.effective_size))
    log_likelihood, sizes = (torch.stack(each, 1) for each in zip(*found, strict=True))
    return ParticleEvidence(log_likelihood.sum(1), log_likelihood, sizes)


def start(model: SLVM, guide: ForwardGuide, size: int, batch: int, *, like: Tensor) -> Particles:
    """Weigh particles equally before the first frame."""
    shape = torch.Size((size, batch))
    weights = torch.full(shape, -math.log(size), dtype=widest(like.device), device=like.device)
    prior = model.prior.initial_state(shape)
    return Particles(weights, prior, guide.initial_state(shape))


def draw(model: SLVM, size: int, y: Tensor, generator: torch.Generator | None) -> Tensor:
    """Draw from N(0, I) for one step's proposals: ``(K, batch, latent_size)``."""
    shape = (size, len(y), model.latent_size)
    return torch.randn(shape, generator=generator, dtype=y.dtype, device=y.device)


def advance(
    model: SLVM,
    guide: ForwardGuide,
    particles: Particles,
    y: Tensor,
    context: Tensor,
    past: Tensor | None,
    eps: Tensor,
    *,
    alive: Tensor | None = None,
) -> tuple[Filtered, Particles]:
    """Propose the latents of one frame and weigh them.

    Args:
        model: the model.
        guide: the proposal.
        particles: before this frame.
        y: the noise behind the frame, ``(batch, *frame_shape)``.
        context: of the guide, ``(batch, features)``.
        past: the model's summary of the frames before, where it has a memory.
        eps: from :func:`draw`.
        alive: ``(batch,)``, false where the sequence has ended.
    """
    with single_steps():
        z, log_q, posterior = guide.step(eps, particles.posterior, context=context)
        log_p, prior = model.log_prob_step(y, z, particles.prior, past)
    log_ratio = widened(log_p.y + log_p.z - log_q)
    if alive is not None:
        log_ratio = log_ratio.masked_fill(~alive, 0.0)
    unnormalized = particles.log_weights + log_ratio
    log_likelihood = unnormalized.logsumexp(0)
    if alive is not None:  # exactly: padding adds nothing
        log_likelihood = log_likelihood.masked_fill(~alive, 0.0)
    log_weights = unnormalized - log_likelihood
    effective = (-(2 * log_weights).logsumexp(0)).exp()
    filtered = Filtered(z, log_weights, log_likelihood, effective)
    return filtered, Particles(log_weights, prior, posterior)


def resample(
    particles: Particles,
    filtered: Filtered,
    below: float,
    generator: torch.Generator | None,
    *,
    alive: Tensor | None = None,
) -> Particles:
    """Resample, systematically, the sequences whose particles have become few."""
    size = particles.log_weights.shape[0]
    few = (
        filtered.effective_size < below * size if below < 1 else filtered.effective_size < math.inf
    )
    if alive is not None:
        few = few & alive
    if size == 1 or not below:
        return particles
    ancestors = systematic(particles.log_weights, generator)
    itself = torch.arange(size, device=ancestors.device)[:, None]
    chosen = torch.where(few, ancestors, itself)
    sequence = torch.arange(chosen.shape[1], device=chosen.device)

    def inherit(leaf: Tensor) -> Tensor:
        return leaf[chosen, sequence]

    equal = torch.full_like(particles.log_weights, -math.log(size))
    return Particles(
        torch.where(few, equal, particles.log_weights),
        map_tensors(inherit, particles.prior),
        map_tensors(inherit, particles.posterior),
    )


def systematic(log_weights: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """Draw ancestors ``(K, batch)``: each particle has K times its weight of them, up to one.

    Source: Carpenter, Clifford, Fearnhead, *Improved particle filter for nonlinear problems*.

    >>> systematic(torch.tensor([[0.5], [0.25], [0.25], [0.0]]).log()).flatten().tolist()
    [0, 0, 1, 2]
    """
    size, batch = log_weights.shape
    shift = torch.rand(
        batch, 1, generator=generator, dtype=widest(log_weights.device), device=log_weights.device
    )
    places = (torch.arange(size, device=shift.device) + shift) / size  # (batch, K)
    edges = widened(log_weights.detach()).exp().cumsum(0).T.contiguous()
    edges = edges / edges[:, -1:]
    return torch.searchsorted(edges, places, right=True).clamp(max=size - 1).T


def check_filter(model: Any, guide: Any, num_particles: int, resample_below: float) -> None:
    """Refuse a model or a guide without steps, and numbers out of range."""
    if not isinstance(model, SLVM) or not isinstance(guide, ForwardGuide):
        raise TypeError(
            "expected an SLVM and a guide that samples forward in time for a particle filter, got "
            f"{type(model).__name__} and {type(guide).__name__}"
        )
    check_guide(model, guide)
    if num_particles < 1:
        raise ValueError(f"expected at least 1 particle, got {num_particles}")
    if not 0 <= resample_below <= 1:
        raise ValueError(f"expected resample_below in 0..1, got {resample_below:g}")


def _log_det(model: SLVM, batch: SequenceBatch) -> Tensor:  # (batch, T)
    x = batch.targets
    if model.flow is None:
        return x.new_zeros(x.shape[:2], dtype=widest(x.device))
    transform: ConditionedTemporalTransform = model.flow.condition(
        history=batch.history, context=model.of_flow(batch.context), mask=batch.mask
    )
    return widened(transform.log_scale(x).flatten(2).sum(-1))


def _at(past: Tensor | None, t: int) -> Tensor | None:
    return None if past is None else past[:, t]
