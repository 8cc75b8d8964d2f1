"""Every kind of model whose bound is Eq. 20, small, and its loss."""

from typing import Any

import pyro
import pyro.poutine as poutine
import torch
from pyro.infer import Trace_ELBO
from torch import Tensor, nn

from pyro_afslvm import (
    SLVM,
    ConvConditioner,
    FilteringGuide,
    FlowModel,
    LSTMConditioner,
    MLPConditioner,
    Pair,
    TemporalAffine,
    TemporalChain,
)
from pyro_afslvm.models.programs import no_guide
from pyro_afslvm.networks import ConvDecoder, ConvEncoder, MLPDecoder, MLPEncoder, mlp
from pyro_afslvm.transforms import TemporalTransform

FRAME, LATENT, BATCH, SCORED = (1, 16, 16), 3, 2, 4
CASES = ["1-AF", "2-AF", "SLVM", "SLVM w/ 1-AF", "SLVM w/ 2-AF", "vectors", "vectors w/ 2-AF"]
WITH_FLOW = [case for case in CASES if "AF" in case]
WITH_LATENTS = CASES[2:]
DEEPEST = ["2-AF", "SLVM w/ 2-AF", "vectors w/ 2-AF"]


def build(case: str, norm: str | None = "group") -> Pair:
    """Every case of Eq. 20, with small networks and weights that are not small."""
    pyro.set_rng_seed(3)
    depth = int(case[-4]) if "AF" in case else 0
    vectors = "vectors" in case
    frame_shape = (2,) if vectors else FRAME
    flow = stack([_flow(vectors, norm, level) for level in range(depth)])
    if "SLVM" not in case and not vectors:
        pair = Pair(FlowModel(flow, frame_shape), None)
    else:
        prior = LSTMConditioner(LATENT, hidden=8, pre_network=mlp(LATENT, 5))
        decoder = (
            MLPDecoder(LATENT, 2, hidden=(8,))
            if vectors
            else ConvDecoder(LATENT, frame_shape, width=4, norm=norm)
        )
        encoder = (
            MLPEncoder(2, features=6, hidden=(8,))
            if vectors
            else ConvEncoder(frame_shape, features=6, width=4, norm=norm)
        )
        model = SLVM(frame_shape, LATENT, prior=TemporalAffine(prior), decoder=decoder, flow=flow)
        pair = Pair(model, FilteringGuide(model, encoder, hidden=8, layers=2))
    for module in filter(None, pair):
        for parameter in module.parameters():
            parameter.data += 0.1 * torch.randn_like(parameter)
    return pair


def _flow(vectors: bool, norm: str | None, level: int) -> TemporalAffine:
    residual = level == 1
    if vectors:
        conditioner = MLPConditioner(2, hidden=(8,), window=2, residual=residual)
        return TemporalAffine(conditioner, initial="learned")
    return TemporalAffine(ConvConditioner(1, hidden=4, depth=2, norm=norm, residual=residual))


def stack(flows: list[TemporalAffine]) -> TemporalTransform | None:
    if len(flows) < 2:
        return flows[0] if flows else None
    return TemporalChain(flows)


def levels(model: nn.Module) -> list[TemporalAffine]:
    """The flows, the one nearest to the frames first."""
    if isinstance(model.flow, TemporalChain):
        return list(reversed(model.flow.parts))
    return [model.flow] if model.flow is not None else []


def frames(model: nn.Module, batch: int = BATCH, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    shape = (batch, model.context_length + SCORED, *model.frame_shape)
    return torch.rand(shape, generator=generator)


def loss(pair: Pair, x: Tensor, *, seed: int = 7, **arguments: Any) -> Tensor:
    pyro.set_rng_seed(seed)
    elbo = Trace_ELBO()
    return elbo.differentiable_loss(pair.model, pair.guide or no_guide, x, **arguments)


def gradients(pair: Pair) -> dict[str, Tensor]:
    owners = {"model": pair.model, "guide": pair.guide}
    return {
        f"{owner}.{name}": torch.zeros_like(p) if p.grad is None else p.grad.clone()
        for owner, module in owners.items()
        if module is not None
        for name, p in module.named_parameters()
    }


def sample(pair: Pair, x: Tensor, **arguments: Any) -> poutine.Trace:
    return poutine.trace(pair.guide).get_trace(x, **arguments)
