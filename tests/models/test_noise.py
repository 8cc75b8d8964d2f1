"""Noise other than Gaussian: densities, draws, and models with it."""

import math
from typing import Any

import pyro.distributions as dist
import pytest
import scipy.stats
import torch
from torch import nn

from pyro_afslvm import (
    SLVM,
    FilteringGuide,
    FlowModel,
    LSTMConditioner,
    MLPConditioner,
    StreamingFilter,
    TemporalAffine,
    rollout,
)
from pyro_afslvm.models.noise import GaussianNoise, LaplaceNoise, Noise, StudentTNoise
from pyro_afslvm.networks import MLPDecoder, MLPEncoder

NOISES = {
    "gaussian": (GaussianNoise(), scipy.stats.norm()),
    "laplace": (LaplaceNoise(), scipy.stats.laplace()),
    "student": (StudentTNoise(df=4.5), scipy.stats.t(4.5)),
}
each = pytest.mark.parametrize(("noise", "known"), NOISES.values(), ids=NOISES)


class Correlated(nn.Module):
    """A base of whole frames with a parameter of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.loc = nn.Parameter(torch.zeros(2))

    def forward(self) -> Any:
        factor = torch.tensor([[1.0, 0.0], [0.8, 0.6]])
        return dist.MultivariateNormal(self.loc, scale_tril=factor)


def flow(base: Any) -> FlowModel:
    conditioner = MLPConditioner(2, window=1, hidden=(8,))
    return FlowModel(TemporalAffine(conditioner), (2,), base=base)


@each
def test_draws_are_of_the_density(noise: Noise, known: Any) -> None:
    y = noise.from_normal(torch.randn(noise.eps_per_entry, 20_000)).detach()
    assert scipy.stats.kstest(y.numpy(), known.cdf).pvalue > 0.01
    x = torch.linspace(-9.0, 9.0, 50)
    found = noise(torch.full((), 0.5), torch.full((), 2.0)).log_prob(x).detach()
    expected = known.logpdf((x.numpy() - 0.5) / 2.0) - math.log(2.0)
    torch.testing.assert_close(found, torch.tensor(expected).float(), rtol=1e-5, atol=1e-5)


@each
def test_the_middle_is_the_middle(noise: Noise, known: Any) -> None:
    middle = noise.from_normal(torch.zeros(noise.eps_per_entry, 3)).detach()
    torch.testing.assert_close(middle, torch.zeros(3), rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    "base", [LaplaceNoise(), StudentTNoise((2,)), Correlated(), Correlated()()], ids=repr
)
def test_a_flow_over_it(base: Any) -> None:
    model = flow(base)
    x = torch.randn(3, 7, 2)
    y = model.flow.condition(history=x[:, :1]).inv(x[:, 1:])
    log_det = model.flow.condition(history=x[:, :1]).log_scale(x[:, 1:]).sum(-1)
    plain = model.noise_of(y).log_prob(y)
    expected = (plain.sum(-1) if plain.ndim == 3 else plain) - log_det
    torch.testing.assert_close(model.log_prob(x), expected)
    assert model.predictive_mean(x).shape == (3, 6, 2)
    stream = StreamingFilter(model)
    found = torch.stack([stream.update(frame).log_likelihood for frame in x.unbind(1)], 1)
    torch.testing.assert_close(found[:, 1:].float(), expected.detach(), rtol=1e-4, atol=1e-4)
    futures = rollout(model, None, x, horizon=3, num_samples=2)
    assert futures["x_future"].notnull().all()
    model(x, lengths=torch.tensor([4, 7, 5]))
    lengths = model.log_prob(x, lengths=torch.tensor([4, 7, 5]))
    torch.testing.assert_close(lengths[0, :3], expected[0, :3])
    assert (lengths[0, 3:] == 0).all()


def test_degrees_of_freedom_are_learnt() -> None:
    noise = StudentTNoise(df=30.0)
    x = dist.StudentT(3.0, 0.0, 1.0).sample((4000,))
    adam = torch.optim.Adam(noise.parameters(), 0.1)
    for _ in range(150):
        adam.zero_grad()
        (-noise(torch.zeros(()), torch.ones(())).log_prob(x).mean()).backward()
        adam.step()
    df, _, _ = scipy.stats.t.fit(x.numpy(), floc=0, fscale=1)
    assert abs(noise.df.item() / df - 1) < 0.03


def test_a_latent_variable_model_with_it() -> None:
    model = SLVM(
        (2,),
        3,
        prior=TemporalAffine(LSTMConditioner(3, hidden=8)),
        decoder=MLPDecoder(3, 2),
        flow=TemporalAffine(MLPConditioner(2, window=1)),
        noise=StudentTNoise((2,)),
    )
    guide = FilteringGuide(model, MLPEncoder(2), hidden=8)
    x = torch.randn(4, 6, 2)
    z = guide(x)
    location, scale = model.decode(z)
    y = model.to_noise(model.batch(x))
    log_det = model.flow.condition(history=x[:, :1]).log_scale(x[:, 1:]).sum(-1)
    expected = dist.StudentT(8.0, location, scale).log_prob(y).sum(-1) - log_det
    torch.testing.assert_close(model.log_prob(x, z), expected)
    futures = rollout(model, guide, x, horizon=3, num_samples=2)
    assert futures["x_future"].notnull().all()
    assert model.predictive_mean(x, z).shape == (4, 5, 2)


def test_what_is_no_base() -> None:
    with pytest.raises(ValueError, match=r"expected a base whose event is a frame \(2,\)"):
        flow(dist.Normal(torch.zeros(2), 1.0))
    with pytest.raises(ValueError, match="more than 2 degrees of freedom, got 2"):
        StudentTNoise(df=2.0)
