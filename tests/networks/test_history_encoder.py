"""What a model keeps of the frames before: two faces that agree, and the VRNN's conditionals."""

import pyro
import pyro.poutine as poutine
import pytest
import torch
from torch import Tensor

from pyro_afslvm import SLVM, HistoryEncoder, LSTMConditioner, TemporalAffine
from pyro_afslvm.networks import ConvEncoder, MLPDecoder, MLPEncoder
from tests.support.guides import LATENT, SIZE, prior, sequences, system
from tests.support.registry import perturb


def memory(hidden: int) -> HistoryEncoder:
    torch.manual_seed(0)
    made = HistoryEncoder(MLPEncoder(SIZE, features=7), hidden=hidden).double()
    perturb(made)
    return made


@pytest.mark.parametrize("hidden", [0, 5])
@pytest.mark.parametrize("batch", [(), (3,), (2, 3)])
def test_the_two_faces_agree(hidden: int, batch: tuple[int, ...]):
    made = memory(hidden)
    y = torch.randn(*batch, 6, SIZE, dtype=torch.float64)
    whole = made(y)
    assert whole.shape == (*batch, 6, made.features)
    state = made.initial_state(torch.Size(batch))
    for t in range(6):
        torch.testing.assert_close(state.summary, whole[..., t, :], rtol=1e-12, atol=1e-12)
        state = made.step(y[..., t, :], state)
    absorbed, after = made.absorb(y)
    torch.testing.assert_close(absorbed, whole, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(after.summary, state.summary, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("hidden", [0, 5])
def test_the_present_is_never_visible(hidden: int):
    made = memory(hidden)
    y = torch.randn(5, SIZE, dtype=torch.float64)
    seen = torch.autograd.functional.jacobian(made, y).abs().sum((1, 3)) > 0
    past = torch.ones(5, 5).tril(-1).bool()
    assert torch.equal(seen, past if hidden else torch.diag(torch.ones(4), -1).bool())


def test_video():
    made = HistoryEncoder(ConvEncoder((1, 8, 8), features=4, width=4), hidden=3)
    assert made(torch.rand(2, 5, 1, 8, 8)).shape == (2, 5, 3)


def test_the_conditionals_are_those_of_the_formula():
    """log p(z_t | y_<t, z_<t) and log p(y_t | y_<t, z_t), written out step by step."""
    pair, x = system("vrnn-no-flow-no-lstm", "filtering"), sequences()
    model = pair.model
    z = torch.randn(3, 8, LATENT, dtype=torch.float64)
    trace = poutine.trace(poutine.condition(model, {"z": z})).get_trace(x)
    trace.compute_log_prob()
    network = model.prior.conditioner
    hidden = network.initial_hidden.expand(3, 1, -1).transpose(0, 1).contiguous()
    cell = network.initial_cell.expand(3, 1, -1).transpose(0, 1).contiguous()
    log_z = log_x = 0.0
    for t in range(8):
        code = model.memory.encoder(x[:, t - 1]) if t else model.memory.start.expand(3, -1)
        before = z[:, t - 1] if t else torch.zeros(3, LATENT).double()
        inputs = torch.cat([before, code], -1)
        output, (hidden, cell) = network.lstm(inputs[:, None], (hidden, cell))
        shift, log_scale = network.heads(output[:, 0]).chunk(2, -1)
        p = torch.distributions.Normal(shift, log_scale.exp())
        log_z = log_z + p.log_prob(z[:, t]).sum(-1)
        location, scale = model.decoder(torch.cat([z[:, t], code], -1))
        log_x = log_x + torch.distributions.Normal(location, scale).log_prob(x[:, t]).sum(-1)
    torch.testing.assert_close(trace.nodes["z"]["log_prob"], log_z, rtol=1e-10, atol=0)
    torch.testing.assert_close(trace.nodes["x"]["log_prob"], log_x, rtol=1e-10, atol=0)


def test_the_joint_density_integrates_to_one():
    """Importance sampling of p(x) from a wide Gaussian, for two frames of one number."""
    torch.manual_seed(1)
    keeps = HistoryEncoder(MLPEncoder(1, features=3))
    model = SLVM(
        (1,),
        1,
        prior=TemporalAffine(LSTMConditioner(1, hidden=3, context_features=3)),
        decoder=MLPDecoder(4, 1),
        memory=keeps,
        decode_memory=True,
    ).double()
    n = 40_000
    wide = torch.distributions.Normal(torch.zeros(2, 1).double(), 2.5)
    x, z = wide.sample((n,)), wide.sample((n,))
    with torch.no_grad():
        trace = poutine.trace(poutine.condition(model, {"z": z})).get_trace(x)
    trace.compute_log_prob()
    log_p = trace.nodes["z"]["log_prob"] + trace.nodes["x"]["log_prob"]
    log_q = wide.log_prob(x).sum((1, 2)) + wide.log_prob(z).sum((1, 2))
    ratio = (log_p - log_q).exp()
    assert abs(ratio.mean() - 1) < 4 * ratio.std() / n**0.5
    assert ratio.std() / n**0.5 < 0.05


def test_a_decoder_with_nothing_to_see():
    with pytest.raises(ValueError, match="expected a memory for the decoder"):
        SLVM((SIZE,), LATENT, prior=prior(), decoder=MLPDecoder(LATENT, SIZE), decode_memory=True)


def test_a_prior_without_room_for_the_memory():
    keeps = HistoryEncoder(MLPEncoder(SIZE, features=7))
    model = SLVM((SIZE,), LATENT, prior=prior(), decoder=MLPDecoder(LATENT, SIZE), memory=keeps)
    with pytest.raises(ValueError, match="expected 0 context features, got 7"):
        model(torch.randn(2, 5, SIZE))


def test_future_sites_are_one_simulation():
    pair, x = system("vrnn", "filtering"), sequences()
    replayed = poutine.replay(pair.model, trace=posterior(pair, x))
    with pyro.plate("particles", 4, dim=-2):
        trace = poutine.trace(replayed).get_trace(x, horizon=3)
    noise: Tensor = trace.nodes["noise_future"]["value"]
    assert noise.shape == (4, 3, 3, LATENT + SIZE)
    assert trace.nodes["x_future"]["value"].shape == (4, 3, 3, SIZE)
    assert trace.nodes["z_future"]["value"].shape == (4, 3, 3, LATENT)


def posterior(pair, x: Tensor) -> poutine.Trace:
    with pyro.plate("particles", 4, dim=-2):
        return poutine.trace(pair.guide).get_trace(x)
