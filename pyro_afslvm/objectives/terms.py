"""Terms of the bound, step by step."""

from collections.abc import Callable
from typing import Any, NamedTuple

import pyro.poutine as poutine
import torch
from pyro.poutine.util import site_is_subsample
from torch import Tensor

from pyro_afslvm.distributions import log_prob_per_step
from pyro_afslvm.models.inputs import as_frames, as_lengths
from pyro_afslvm.models.programs import given_context, one_line_errors
from pyro_afslvm.objectives.importance import check_guided


class BoundTerms(NamedTuple):
    """Terms of Eq. 20 for every scored frame, in nats, each ``(particles, batch, T)``."""

    log_likelihood: Tensor  # log p(y_t | ...) - log det
    kl: Tensor  # log q(z_t | ...) - log p(z_t | ...), at the sample

    @property
    def bound(self) -> Tensor:
        """The integrand of the bound."""
        return self.log_likelihood - self.kl


def bound_terms(
    model: Callable[..., Any],
    guide: Callable[..., Any] | None,
    x: Tensor,
    *,
    num_particles: int = 1,
    lengths: Tensor | None = None,
    context: Tensor | None = None,
) -> BoundTerms:
    """Evaluate the terms of the bound with samples from the guide.

    Args:
        model: a Pyro program with a site ``x`` and the guide's sites.
        guide: a Pyro program with latents, such as ``z``, each over all scored frames; ``None``
            for a model without latents, whose terms are exact.
        x: ``(batch, T, *frame_shape)``.
        num_particles: samples from the guide.
        lengths: ``(batch,)``.
        context: covariates, ``(batch, T, context_features)``.

    Source: Marino et al., Eq. 20.
    """
    if num_particles < 1:
        raise ValueError(f"expected at least 1 particle, got {num_particles}")
    x, lengths = as_frames(x, model, guide, lengths=lengths), as_lengths(lengths)
    model, guide = given_context(model, context), given_context(guide, context)
    with one_line_errors():
        samples = [_terms(model, guide, x, lengths) for _ in range(num_particles if guide else 1)]
    return BoundTerms(*(torch.stack(term) for term in zip(*samples, strict=True)))


def _terms(
    model: Callable[..., Any],
    guide: Callable[..., Any] | None,
    x: Tensor,
    lengths: Tensor | None,
) -> BoundTerms:
    if guide is None:
        trace = poutine.trace(model).get_trace(x, lengths=lengths)
        check_guided(poutine.Trace(), trace)
        observed: Any = trace.nodes["x"]
        log_likelihood = log_prob_per_step(observed["fn"], observed["value"])
        return BoundTerms(log_likelihood, torch.zeros_like(log_likelihood))
    posterior = poutine.trace(guide).get_trace(x, lengths=lengths)
    joint = poutine.trace(poutine.replay(model, trace=posterior)).get_trace(x, lengths=lengths)
    check_guided(posterior, joint)
    observed = joint.nodes["x"]
    log_likelihood = log_prob_per_step(observed["fn"], observed["value"])
    kl = torch.zeros_like(log_likelihood)
    _check_steps(posterior, joint)
    for site in posterior.stochastic_nodes:
        q: Any = posterior.nodes[site]
        p: Any = joint.nodes[site]
        if site_is_subsample(q):  # a plate
            continue
        kl = kl + _ratio_per_step(site, q, p, kl.shape)
    return BoundTerms(log_likelihood, kl)


def _ratio_per_step(site: str, q: Any, p: Any, shape: torch.Size) -> Tensor:
    """log q - log p of a latent at each step.

    Raises:
        TypeError: for a latent of a whole sequence, which has no share at each step.
    """
    event = q["fn"].event_shape
    if not event or event[0] != shape[-1]:
        raise _no_steps(f"the latent '{site}' has {tuple(event)} entries and no steps in time")
    try:
        return log_prob_per_step(q["fn"], q["value"]) - log_prob_per_step(p["fn"], q["value"])
    except TypeError:
        kind = type(q["fn"]).__name__
        raise _no_steps(f"the guide's {kind} of '{site}' is none over steps in time") from None


def _no_steps(reason: str) -> TypeError:
    return TypeError(
        f"no terms step by step: {reason}; "
        "the bound of whole sequences is -Trace_ELBO().loss(model, guide, x)"
    )


def _check_steps(posterior: Any, joint: Any) -> None:
    """Refuse a guide that makes a latent from others, whose density has no share at each step.

    Raises:
        TypeError: for such a guide.
    """
    for site in posterior.stochastic_nodes:
        node = posterior.nodes[site]
        if not site_is_subsample(node) and site not in joint.nodes:
            raise _no_steps(f"the guide's site '{site}' is none of the model's")
