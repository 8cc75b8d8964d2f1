"""Small flows and latent variable models of vectors and of video, as programs."""

import torch
from torch import nn

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
from pyro_afslvm.networks import ConvDecoder, ConvEncoder, MLPDecoder, MLPEncoder

SIZE, LATENT = 2, 3


def random_weights(module: nn.Module) -> None:
    for p in module.parameters():
        p.data = 0.4 * torch.randn_like(p)


def vector_flow(*, depth: int = 2, initial: str | None = "learned") -> FlowModel:
    parts = []
    for _ in range(depth):
        conditioner = MLPConditioner(SIZE, hidden=(6,), window=2)
        parts.append(TemporalAffine(conditioner, initial=initial))
    model = FlowModel(TemporalChain(parts), (SIZE,))
    random_weights(model)
    return model


def vector_slvm(
    *, flow: bool = True, initial: str | None = "learned", latent_size: int = LATENT
) -> Pair:
    model = SLVM(
        (SIZE,),
        latent_size,
        prior=TemporalAffine(LSTMConditioner(latent_size, hidden=4)),
        decoder=MLPDecoder(latent_size, SIZE, hidden=(6,)),
        flow=vector_flow(depth=1, initial=initial).flow if flow else None,
    )
    guide = FilteringGuide(model, MLPEncoder(SIZE, features=4, hidden=(6,)), hidden=4)
    random_weights(model)
    random_weights(guide)
    return Pair(model, guide)


def video_slvm(*, latent_size: int = LATENT, flow: bool = True) -> Pair:
    frame = (1, 16, 16)
    model = SLVM(
        frame,
        latent_size,
        prior=TemporalAffine(LSTMConditioner(latent_size, hidden=4)),
        decoder=ConvDecoder(latent_size, frame, width=4),
        flow=TemporalAffine(ConvConditioner(1, hidden=4, depth=1)) if flow else None,
    )
    return Pair(model, FilteringGuide(model, ConvEncoder(frame, features=4, width=4), hidden=4))


def video_flow() -> Pair:
    flow = TemporalAffine(ConvConditioner(1, hidden=4, depth=1))
    return Pair(FlowModel(flow, (1, 16, 16)), None)
