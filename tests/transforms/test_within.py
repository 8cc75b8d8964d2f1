"""Mixing within a step: what it can model, its moments, and what it refuses."""

import pytest
import torch
from pyro.distributions.transforms import Householder, Spline
from torch.distributions import MultivariateNormal, Normal

from pyro_afslvm import FlowModel, MLPConditioner, StreamingFilter, TemporalAffine, rollout
from pyro_afslvm.transforms import TemporalChain, WithinFrame, channel_mixing, triangular_mixing
from pyro_afslvm.transforms.moments import moments
from tests.support.transforms import close, log_prob


def chain() -> TemporalChain:
    """A walk with correlated innovations, in float64."""
    walk = TemporalAffine(MLPConditioner(3, window=1, hidden=(4,)))
    transform = TemporalChain([walk, triangular_mixing(3)]).double()
    with torch.no_grad():
        for parameter in transform.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return transform


def test_the_density_is_that_of_a_correlated_normal() -> None:
    transform = chain()
    history, x = torch.randn(7, 1, 3).double(), torch.randn(7, 1, 3).double()
    given = transform.given_past(x, history=history)
    origin = given(torch.zeros_like(x))
    columns = [given(torch.eye(3).double()[i].expand_as(x)) - origin for i in range(3)]
    factor = torch.stack(columns, -1)
    expected = MultivariateNormal(origin, factor @ factor.mT).log_prob(x)[:, 0]
    assert close(log_prob(transform, x, history=history), expected, 1e-10)
    noise = Normal(torch.zeros_like(x), 1.0)
    mean, scale = moments(given, noise)
    assert close(mean, origin, 1e-10)
    assert close(scale, (factor @ factor.mT).diagonal(dim1=-2, dim2=-1).sqrt(), 1e-10)


def test_models_stream_and_roll_out_with_it() -> None:
    model = FlowModel(chain(), (3,)).double()
    x = torch.randn(2, 9, 3).double()
    stream = StreamingFilter(model)
    updates = [stream.update(frame) for frame in x.unbind(1)]
    with torch.no_grad():
        expected = model.log_prob(x)
        mean = model.predictive_mean(x)
    found = torch.stack([update.log_likelihood for update in updates[1:]], 1)
    assert close(found, expected, 1e-9)
    forecast = torch.stack([update.forecast.mean for update in updates[:-1]], 1)
    assert close(forecast, mean, 1e-9)
    samples = rollout(model.float(), None, x.float(), horizon=4, num_samples=5)
    assert samples["x_future"].shape[-2:] == (4, 3)


def test_memory_of_pyros_transforms_does_not_outlive_their_parameters() -> None:
    transform = WithinFrame([Householder(3), Spline(3)], frame_dims=1)
    x = torch.randn(4, 5, 3)
    before = transform.inv(x)
    with torch.no_grad():
        for parameter in transform.parameters():
            parameter.add_(0.5)
    after = transform.inv(x)
    assert not torch.allclose(before, after)
    fresh = WithinFrame([Householder(3), Spline(3)], frame_dims=1)
    fresh.load_state_dict(transform.state_dict())
    assert torch.allclose(fresh.inv(x), after)


def test_what_it_refuses() -> None:
    with pytest.raises(ValueError, match="transforms of frames of 1 dimensions"):
        WithinFrame([], frame_dims=1)
    with pytest.raises(ValueError, match="transforms of frames of 1 dimensions"):
        WithinFrame(channel_mixing(1).transforms, frame_dims=1)
