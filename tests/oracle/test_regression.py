"""Covariates in linear Gaussian models, whose likelihood is known exactly."""

from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from torch import Tensor, nn

from pyro_afslvm import SLVM, FlowModel, StreamingFilter, TemporalAffine
from pyro_afslvm.objectives import iwae
from pyro_afslvm.transforms import CausalConditioner
from tests.support.registry import perturb

pytestmark = pytest.mark.usefixtures("float64")

D, F, T = 2, 3, 6


class Linear(CausalConditioner):
    """Shift A x_{t-1} + B c_t, and a constant log-scale."""

    def __init__(self) -> None:
        super().__init__((D,), initial_shape=(D,), context_features=F, reach=1)
        self.of_last = nn.Linear(D, D)
        self.of_context = nn.Linear(F, D, bias=False)
        self.log_scale = nn.Parameter(torch.zeros(D))

    def start(self, batch: torch.Size) -> Tensor:
        return self.log_scale.new_zeros(*batch, 0)

    def run(self, previous: Tensor, context: Tensor | None, state: Tensor) -> tuple[Tensor, Any]:
        assert context is not None
        return self.of_last(previous) + self.of_context(context), state

    def emit(self, features: Tensor) -> Tensor:
        return torch.stack([features, self.log_scale.expand_as(features)], -1)

    def batch_of(self, state: Tensor) -> torch.Size:
        return state.shape[:-1]


def linear() -> Linear:
    torch.manual_seed(0)
    conditioner = Linear()
    perturb(conditioner)
    return conditioner


def joint(conditioner: Linear, context: Tensor) -> tuple[Tensor, Tensor]:
    """Mean (batch, T D) and covariance (T D, T D) of the process from zero, given covariates."""
    a, scale = conditioner.of_last.weight, conditioner.log_scale.exp()
    push = conditioner.of_context(context) + conditioner.of_last.bias  # (batch, T, D)
    shifts = torch.zeros(T * D, T * D)
    for t in range(1, T):
        shifts[t * D : (t + 1) * D, (t - 1) * D : t * D] = a
    spread = torch.linalg.inv(torch.eye(T * D) - shifts)
    covariance = spread @ torch.diag(scale.square().repeat(T)) @ spread.T
    return push.flatten(1) @ spread.T, covariance


def data() -> tuple[Tensor, Tensor]:
    torch.manual_seed(1)
    return torch.randn(4, T, D), torch.randn(4, T, F)


@torch.no_grad()
def test_an_autoregression_on_covariates() -> None:
    conditioner, (x, context) = linear(), data()
    model = FlowModel(TemporalAffine(conditioner), (D,), context_features=F)
    mean, covariance = joint(conditioner, context)
    expected = dist.MultivariateNormal(mean, covariance).log_prob(x.flatten(1))
    torch.testing.assert_close(model.log_prob(x, context=context).sum(1), expected)
    found = iwae(model, None, x, num_particles=1, context=context)
    torch.testing.assert_close(found.log_evidence, expected)
    stream = StreamingFilter(model)
    steps = [stream.update(x[:, t], context[:, t]).log_likelihood for t in range(T)]
    torch.testing.assert_close(torch.stack(steps, 1).sum(1), expected)


class Read(nn.Module):
    """A decoder of y = H z + 0.3 N(0, I)."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(D, D))

    def forward(self, z: Tensor) -> tuple[Tensor, Tensor]:
        location = z @ self.weight.T
        return location, torch.full_like(location, 0.3)


@torch.no_grad()
def test_latents_driven_by_covariates() -> None:
    """log p(x, z | c) - log p(z | x, c) is log p(x | c), wherever z is."""
    conditioner, (x, context) = linear(), data()
    torch.manual_seed(2)
    decoder = Read()
    model = SLVM((D,), D, prior=TemporalAffine(conditioner), decoder=decoder, context_features=F)
    mean, covariance = joint(conditioner, context)
    read = torch.block_diag(*[decoder.weight] * T)
    of_x = read @ covariance @ read.T + 0.09 * torch.eye(T * D)
    gain = covariance @ read.T @ of_x.inverse()
    posterior = dist.MultivariateNormal(
        (mean + (x.flatten(1) - mean @ read.T) @ gain.T),
        covariance - gain @ read @ covariance,
    )
    evidence = dist.MultivariateNormal(mean @ read.T, of_x).log_prob(x.flatten(1))
    for seed in range(2):
        torch.manual_seed(seed)
        z = torch.randn(4, T, D)
        trace = poutine.trace(poutine.condition(model, {"z": z})).get_trace(x, covariates=context)
        trace.compute_log_prob()
        total = trace.nodes["z"]["log_prob"] + trace.nodes["x"]["log_prob"]
        found = total - posterior.log_prob(z.flatten(1))
        torch.testing.assert_close(found, evidence, rtol=1e-9, atol=1e-9)

    def guide(x: Tensor, **_: Any) -> None:
        exact = dist.TransformedDistribution(
            posterior, [dist.transforms.ReshapeTransform((T * D,), (T, D))]
        )
        with pyro.plate("sequence", len(x), dim=-1):
            pyro.sample("z", exact)

    found = iwae(model, guide, x, num_particles=2, context=context).log_evidence
    torch.testing.assert_close(found, evidence, rtol=1e-9, atol=1e-9)  # the posterior has no gap
