"""Above a flow: the latents' own prediction at weight one, the flow's at weight zero."""

import pyro
import torch
from pyro.infer import Trace_ELBO

from pyro_afslvm import SLVM, FilteringGuide, FlowModel, TemporalAffine
from pyro_afslvm.networks.above_flow import MotionDecoderAboveFlow, MotionEncoderAboveFlow
from pyro_afslvm.networks.motion_grid import MotionGrid, MotionSummary
from pyro_afslvm.networks.motion_latents import MotionDecoder, MotionEncoder
from pyro_afslvm.networks.window_memory import WindowMemory
from pyro_afslvm.transforms.conditioners import (
    DisplacementConditioner,
    GivenParameters,
    StandardNormal,
)

GRID = MotionGrid((1, 16, 16), reach=2, hidden=4, latents=3)
POSTERIOR = TemporalAffine(GivenParameters(GRID.latent_size))


def slvm(decoder: MotionDecoder, memory: WindowMemory, flow: TemporalAffine | None = None) -> SLVM:
    return SLVM(
        GRID.frame_shape,
        GRID.latent_size,
        prior=TemporalAffine(StandardNormal(GRID.latent_size)),
        decoder=decoder,
        flow=flow,
        memory=memory,
        decode_memory=True,
        context_length=GRID.window,
    ).double()


def systems() -> tuple[SLVM, SLVM, FlowModel]:
    """A model on a flow, the same without, and the flow."""
    torch.manual_seed(0)
    conditioner = DisplacementConditioner(GRID._replace(latents=0)).double()
    above = MotionDecoderAboveFlow(GRID, conditioner.fuse).double()
    plain = MotionDecoder(GRID).double()
    plain.load_state_dict(above.state_dict(), strict=False)
    memory, flow = (
        WindowMemory(MotionSummary(GRID), window=GRID.window),
        TemporalAffine(conditioner),
    )
    return slvm(above, memory, flow), slvm(plain, memory), FlowModel(flow, GRID.frame_shape)


def weigh(model: SLVM, logit: float) -> None:
    with torch.no_grad():
        model.decoder.weigh.weight.zero_()
        model.decoder.weigh.bias.fill_(logit)


def test_at_weight_one_it_is_the_model_without_a_flow_and_at_zero_the_flow() -> None:
    model, plain, flow = systems()
    x = torch.rand(2, 6, 1, 16, 16, dtype=torch.float64)
    z = torch.randn(2, 3, GRID.latent_size, dtype=torch.float64)
    weigh(model, 60.0)
    torch.testing.assert_close(model.log_prob(x, z), plain.log_prob(x, z))
    weigh(model, -60.0)
    torch.testing.assert_close(model.log_prob(x, z), flow.log_prob(x))


def test_the_encoder_sees_the_frames_behind_the_noise() -> None:
    model, plain, _ = systems()
    above = MotionEncoderAboveFlow(GRID, model.flow.conditioner.fuse).double()
    encoder = MotionEncoder(GRID).double()
    encoder.load_state_dict(above.state_dict(), strict=False)
    x = torch.rand(2, 6, 1, 16, 16, dtype=torch.float64)
    guides = [
        FilteringGuide(m, e, posterior=POSTERIOR, encode_memory=True)
        for m, e in ((model, above), (plain, encoder))
    ]
    first, second = (guide.context(guide.model.batch(x)) for guide in guides)
    torch.testing.assert_close(first, second)


def test_every_parameter_learns() -> None:
    pyro.set_rng_seed(0)
    model = systems()[0]
    encoder = MotionEncoderAboveFlow(GRID, model.flow.conditioner.fuse).double()
    guide = FilteringGuide(model, encoder, posterior=POSTERIOR, encode_memory=True)
    x = torch.rand(2, 6, 1, 16, 16, dtype=torch.float64)
    Trace_ELBO().differentiable_loss(model, guide, x).backward()
    parts = (model, guide)
    assert not [name for part in parts for name, p in part.named_parameters() if p.grad is None]
