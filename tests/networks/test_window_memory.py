"""A memory of the last frames: two faces that agree, and an evidence that is known."""

import math

import pyro
import pytest
import torch
from pyro.infer import Trace_ELBO
from torch import Tensor, nn
from torch.distributions import MultivariateNormal

from pyro_afslvm import SLVM, FilteringGuide, TemporalAffine
from pyro_afslvm.networks.window_memory import WindowMemory
from pyro_afslvm.objectives import iwae, smc
from pyro_afslvm.transforms.conditioners import GivenParameters, StandardNormal
from tests.support.guides import LastFrames

D = 3


@pytest.mark.parametrize("batch", [(), (3,), (2, 3)])
def test_the_two_faces_agree(batch: tuple[int, ...]):
    torch.manual_seed(0)
    made = WindowMemory(LastFrames(2, 5), window=2, frame_dims=1).double()
    x = torch.randn(*batch, 9, D, dtype=torch.float64)
    history, frames = x[..., :3, :], x[..., 3:, :]
    whole = made(frames, history)
    assert whole.shape == (*batch, 6, 5)
    state = made.initial_state(torch.Size(batch), history=history)
    for t in range(6):
        torch.testing.assert_close(state.summary, whole[..., t, :], rtol=1e-12, atol=1e-12)
        expected = made.network(x[..., t + 1 : t + 3, :].flatten(-2))
        torch.testing.assert_close(whole[..., t, :], expected, rtol=1e-12, atol=1e-12)
        state = made.step(frames[..., t, :], state)
    absorbed, after = made.absorb(frames, history)
    torch.testing.assert_close(absorbed, whole, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(after.summary, state.summary, rtol=1e-12, atol=1e-12)


def test_it_needs_as_many_frames():
    made = WindowMemory(LastFrames(2, 5), window=2, frame_dims=1)
    with pytest.raises(ValueError, match="a memory of 2 frames needs as many, got 1"):
        made(torch.randn(4, D), torch.randn(1, D))
    with pytest.raises(ValueError, match="needs as many, got 0"):
        made.initial_state(torch.Size())
    with pytest.raises(ValueError, match="window of at least 1"):
        WindowMemory(LastFrames(2, 5), window=0)


class Same(nn.Identity):
    features = D


class LinearDecoder(nn.Module):
    r"""x_t = B z_t + A x_{t-1} + 0.5 N(0, I)."""

    def __init__(self) -> None:
        super().__init__()
        self.weights = nn.Parameter(torch.randn(D, 2) * 0.7)
        self.transition = nn.Parameter(torch.randn(D, D) * 0.3)

    def forward(self, given: Tensor) -> tuple[Tensor, Tensor]:
        z, past = given.tensor_split((2,), -1)
        location = z @ self.weights.T + past @ self.transition.T
        return location, torch.full_like(location, 0.5)


class ExactEncoder(nn.Module):
    """The means of p(z_t | x_t, x_{t-1}), and their scales with everything else known."""

    features, frame_dims = 4, 1

    def __init__(self, decoder: LinearDecoder) -> None:
        super().__init__()
        self._decoder = (decoder,)

    def forward(self, y: Tensor, past: Tensor) -> Tensor:
        weights, transition = self._decoder[0].weights, self._decoder[0].transition
        precision = torch.eye(2).to(y) + weights.T @ weights / 0.25
        mean = (y - past @ transition.T) @ weights / 0.25 @ torch.linalg.inv(precision)
        scale = (-0.5 * precision.diagonal().log()).expand_as(mean)
        return torch.cat([mean, scale], -1)


def test_the_evidence_is_that_of_the_linear_model():
    """With z integrated out, x_t given x_{t-1} is Gaussian: the given frame is seen."""
    torch.manual_seed(0)
    decoder = LinearDecoder().double().requires_grad_(False)
    with torch.no_grad():  # orthogonal columns: the posterior is diagonal, and the bound exact
        decoder.weights[:, 1] -= (
            decoder.weights[:, 0]
            * (decoder.weights[:, 0] @ decoder.weights[:, 1])
            / decoder.weights[:, 0].square().sum()
        )
    model = SLVM(
        (D,),
        2,
        prior=TemporalAffine(StandardNormal(2)),
        decoder=decoder,
        memory=WindowMemory(Same(), window=1, frame_dims=1),
        decode_memory=True,
        context_length=1,
    ).double()
    posterior = TemporalAffine(GivenParameters(2))
    guide = FilteringGuide(
        model, ExactEncoder(decoder), posterior=posterior, encode_memory=True
    ).double()
    x = torch.randn(4, 6, D, dtype=torch.float64)
    covariance = decoder.weights @ decoder.weights.T + 0.25 * torch.eye(D).double()
    of_x = MultivariateNormal(x[:, :-1] @ decoder.transition.T, covariance)
    evidence = of_x.log_prob(x[:, 1:]).sum(1)
    pyro.set_rng_seed(0)
    assert math.isclose(-Trace_ELBO().loss(model, guide, x), float(evidence.sum()), rel_tol=1e-9)
    found = iwae(model, guide, x, num_particles=3).log_evidence
    torch.testing.assert_close(found, evidence, rtol=1e-9, atol=0)
    torch.testing.assert_close(
        smc(model, guide, x, num_particles=3).log_evidence, evidence, rtol=1e-9, atol=0
    )
