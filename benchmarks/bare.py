"""The library's own networks and mathematics in plain torch: what is left without Pyro."""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from pyro_afslvm import SLVM, ConvConditioner, LSTMConditioner, Pair, TemporalAffine, TemporalChain
from pyro_afslvm.guides import FilteringGuide

MIN_LOG_SCALE, MAX_LOG_SCALE = -10.0, math.log(10.0)


class Networks(NamedTuple):
    """The networks of one of the paper's models."""

    flows: Sequence[ConvConditioner]  # from x down to the noise
    prior: LSTMConditioner | None
    decoder: nn.Module | None
    encoder: nn.Module | None
    posterior: LSTMConditioner | None


def networks_of(pair: Pair) -> Networks:
    """Take a pair of the paper's recipes apart."""
    flow: Any = pair.model.flow
    chain = list(flow.parts)[::-1] if isinstance(flow, TemporalChain) else [flow]
    flows = [part.conditioner for part in chain if part is not None]
    if not isinstance(pair.model, SLVM):
        return Networks(flows, None, None, None, None)
    guide = pair.guide
    if not isinstance(guide, FilteringGuide):
        raise TypeError(f"expected a filtering guide, got {type(guide).__name__}")
    return Networks(
        flows,
        _conditioner(pair.model.prior),
        pair.model.decoder,
        guide.encoder,
        _conditioner(guide.posterior),
    )


def _conditioner(transform: nn.Module) -> Any:
    if not isinstance(transform, TemporalAffine):
        raise TypeError(f"expected an affine transform across time, got {type(transform).__name__}")
    return transform.conditioner


def standard_log_prob(value: Tensor, log_scale: Tensor | float = 0.0) -> Tensor:
    """log N(value; 0, 1) - log_scale, summed over everything."""
    entries = -0.5 * value.square() - 0.5 * math.log(2 * math.pi) - log_scale
    return entries.sum()


def clamped(log_scale: Tensor) -> Tensor:
    """Clamp a log-scale as a transform across time does."""
    return log_scale.clamp(MIN_LOG_SCALE, MAX_LOG_SCALE)


def bare_loss(networks: Networks, x: Tensor, eps: Tensor | None = None) -> Tensor:
    """Negative bound in nats of ``(batch, T, *frame_shape)``, with one network pass over time.

    Args:
        networks: of the model.
        x: the sequences.
        eps: of the posterior, ``(batch, scored frames, latent_size)``; drawn if not given.
    """
    total: Tensor | float = 0.0
    for network in networks.flows:
        history, x = x[:, : network.window], x[:, network.window :]
        shift, log_scale = network(x, history=history).to(x).unbind(-1)
        log_scale = clamped(log_scale)
        x = (x - shift) * torch.exp(-log_scale)
        of_rest = total if isinstance(total, float) else total[:, network.window :]
        total = of_rest + log_scale
    if networks.decoder is None:
        return -standard_log_prob(x, total)
    z, kl = _bare_latents(networks, x, eps)
    location, scale = networks.decoder(z)
    return kl - standard_log_prob((x - location) / scale, scale.log() + total)


def _bare_latents(networks: Networks, y: Tensor, eps: Tensor | None) -> tuple[Tensor, Tensor]:
    posterior, prior = networks.posterior, networks.prior
    if posterior is None or prior is None or networks.encoder is None:
        raise TypeError("expected the networks of a model with latent variables")
    features = networks.encoder(y)
    if eps is None:
        eps = torch.randn(*y.shape[:2], posterior.features, dtype=y.dtype, device=y.device)
    state, previous, draws = posterior.initial_state(y.shape[:1]), None, []
    log_q = torch.zeros((), dtype=y.dtype, device=y.device)
    for t in range(y.shape[1]):
        parameters, state = posterior.step(previous, state, context=features[:, t])
        shift, log_scale = parameters.unbind(-1)
        log_scale = clamped(log_scale)
        previous = shift + log_scale.exp() * eps[:, t]
        draws.append(previous)
        log_q = log_q + standard_log_prob(eps[:, t], log_scale)
    z = torch.stack(draws, 1)
    shift, log_scale = prior(z).unbind(-1)
    log_scale = clamped(log_scale)
    return z, log_q - standard_log_prob((z - shift) * torch.exp(-log_scale), log_scale)
