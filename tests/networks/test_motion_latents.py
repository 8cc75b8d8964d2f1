"""Latents of motion: displacements that are found, moved and counted; parts that fit together."""

import pyro
import pytest
import torch
from pyro.infer import Trace_ELBO
from torch import Tensor
from torch.nn import functional

from pyro_afslvm import SLVM, FilteringGuide, FlowModel, TemporalAffine, TemporalAutoregressive
from pyro_afslvm.models.noise import MixtureNoise
from pyro_afslvm.networks.displacement import (
    displaced_costs,
    displaced_means,
    displacement_probabilities,
    likeliest_displacements,
)
from pyro_afslvm.networks.motion_grid import MotionGrid, MotionSummary
from pyro_afslvm.networks.motion_latents import MotionDecoder, MotionEncoder
from pyro_afslvm.networks.window_memory import WindowMemory
from pyro_afslvm.transforms.conditioners import (
    DisplacementConditioner,
    GivenParameters,
    StandardNormal,
)
from pyro_afslvm.transforms.univariate import FreeMixtureMap

GRID = MotionGrid((1, 16, 16), reach=2, hidden=4, latents=3)
SIZES = {"reach": 2, "block": 4}


def moved(frame: Tensor, down: int, right: int) -> Tensor:
    """x(p + d), with nothing beyond the borders."""
    padded = functional.pad(frame, (2,) * 4)
    height, width = frame.shape[-2:]
    return padded[..., 2 + down : 2 + down + height, 2 + right : 2 + right + width]


def test_a_displacement_is_found_moved_and_costs_nothing():
    torch.manual_seed(0)
    before = torch.rand(2, 1, 16, 16)
    now = moved(before, 1, -2)
    way = 5 * (1 + 2) + (-2 + 2)  # row by row
    costs = displaced_costs(now, before, **SIZES)
    torch.testing.assert_close(costs[:, way], torch.zeros(2, 4, 4))
    found = displacement_probabilities(now, before, **SIZES)
    assert (found[:, way] > 0.99).all()
    torch.testing.assert_close(found.sum(1), torch.ones(2, 4, 4))
    mean = displaced_means(before, found.unsqueeze(1), **SIZES)
    torch.testing.assert_close(mean.squeeze(1), now, atol=0.02, rtol=0)


def test_the_likeliest_displacements_are_those_of_each_block():
    torch.manual_seed(0)
    frame, logits = torch.rand(2, 3, 16, 16), torch.randn(2, 25, 4, 4)
    frames, logs = likeliest_displacements(frame, logits.log_softmax(1), count=3, **SIZES)
    assert frames.shape == (2, 3, 16, 16, 3)
    torch.testing.assert_close(logs.exp().sum(-1), torch.ones(2, 16, 16))
    every = torch.stack([moved(frame, d // 5 - 2, d % 5 - 2) for d in range(25)], -1)
    for row, column in ((0, 0), (7, 9), (15, 15)):
        best = logits[0, :, row // 4, column // 4].topk(3).indices
        expected = every[0, :, row, column, best]
        torch.testing.assert_close(frames[0, :, row, column], expected, rtol=0, atol=0)


@pytest.mark.parametrize("displacements", [0, 5])
def test_the_decoder_moves_on_as_before(displacements: int):
    """Fresh networks expect the displacement of before, or one a pixel off."""
    torch.manual_seed(0)
    first = torch.zeros(1, 1, 16, 16)
    first[..., 6:11, 6:11] = torch.rand(5, 5)
    second, third = moved(first, 0, -1), moved(first, 0, -2)
    past = MotionSummary(GRID)(torch.cat([first, second, third], 1))
    decoder = MotionDecoder(GRID, displacements=displacements)
    given = torch.cat([torch.zeros(1, GRID.latent_size), past], 1)
    parameters = decoder(given)
    if displacements:
        distribution = MixtureNoise()(*parameters)
        going_on, back = moved(third, 0, -1), moved(third, 0, 1)
        of_frame = [float(distribution.log_prob(x).sum().detach()) for x in (going_on, back)]
        assert of_frame[0] > of_frame[1]
        torch.testing.assert_close(parameters[0].exp().sum(-1), torch.ones(1, 1, 16, 16))
    else:
        going_on, still = moved(third, 0, -1), third
        location = parameters[0].detach()
        off = [float((location - x).square().sum()) for x in (going_on, still)]
        assert off[0] < off[1]
        assert (parameters[1] >= 1 / 270).all()


def pair(displacements: int = 5) -> tuple[SLVM, FilteringGuide]:
    model = SLVM(
        GRID.frame_shape,
        GRID.latent_size,
        prior=TemporalAffine(StandardNormal(GRID.latent_size)),
        decoder=MotionDecoder(GRID, displacements=displacements),
        noise=MixtureNoise() if displacements else None,
        memory=WindowMemory(MotionSummary(GRID), window=GRID.window),
        decode_memory=True,
        context_length=GRID.window,
    )
    posterior = TemporalAffine(GivenParameters(GRID.latent_size))
    encoder = MotionEncoder(GRID)
    return model, FilteringGuide(model, encoder, posterior=posterior, encode_memory=True)


@pytest.mark.parametrize("displacements", [0, 5])
def test_every_parameter_learns(displacements: int):
    pyro.set_rng_seed(0)
    parts, x = pair(displacements), torch.rand(2, 6, 1, 16, 16)
    Trace_ELBO().differentiable_loss(*parts, x).backward()
    still = [name for part in parts for name, p in part.named_parameters() if p.grad is None]
    assert not still
    before = parts[0].past(parts[0].batch(x))
    assert before is not None
    assert before.shape == (2, 3, parts[0].memory.features)


def test_the_summary_is_computed_once_for_guide_and_model(monkeypatch: pytest.MonkeyPatch):
    parts, x = pair(), torch.rand(2, 6, 1, 16, 16)
    calls = []
    forward = MotionSummary.forward
    monkeypatch.setattr(
        MotionSummary, "forward", lambda self, x: calls.append(len(x)) or forward(self, x)
    )
    Trace_ELBO().differentiable_loss(*parts, x)
    assert calls == [2 * 4]  # three frames are scored, and one more could follow
    with torch.no_grad():
        parts[0].memory.network.correct.bias.add_(1.0)
    Trace_ELBO().differentiable_loss(*parts, x)
    assert len(calls) == 2


@pytest.mark.parametrize("displacements", [0, 5])
def test_without_latents_it_is_a_flow(displacements: int):
    """A sample's noise is found again, and frames see those before only."""
    torch.manual_seed(0)
    grid = MotionGrid((1, 16, 16), reach=2, hidden=4, latents=0)
    conditioner = DisplacementConditioner(grid, displacements=displacements)
    flow = TemporalAutoregressive(conditioner, FreeMixtureMap(8)) if displacements else None
    model = FlowModel(flow or TemporalAffine(conditioner), (1, 16, 16)).double()
    history = torch.rand(2, 3, 1, 16, 16, dtype=torch.float64)
    noise = torch.randn(2, 4, 1, 16, 16, dtype=torch.float64)
    with torch.no_grad():
        step = model.flow.condition(history=history)
        x = step(noise)
        torch.testing.assert_close(step.inv(x), noise, rtol=1e-6, atol=1e-6)
        whole = torch.cat([history, x], 1)
        before = model.log_prob(whole)
        whole[:, 5] += 0.1
        assert torch.equal(model.log_prob(whole)[:, :2], before[:, :2])
    model.log_prob(whole).sum().backward()
    assert not [name for name, p in model.named_parameters() if p.grad is None]
    with pytest.raises(ValueError, match="latents=0, got 3"):
        DisplacementConditioner(GRID)


@pytest.mark.parametrize(
    ("grid", "message"),
    [
        (MotionGrid((1, 20, 16)), "multiple of 8 pixels, got 20×16"),
        (MotionGrid((1, 16, 16), window=2), "window of 3 frames, got 2"),
        (MotionGrid((1, 16, 16), latents=-1), "sizes of at least 1"),
    ],
)
def test_sizes_that_do_not_go_together(grid: MotionGrid, message: str):
    with pytest.raises(ValueError, match=message):
        MotionSummary(grid)
