"""Missing values: what is exact is so, and the rest agrees with a Kalman filter's answer."""

import math

import pytest
import torch
from torch import Tensor
from torch.distributions import MultivariateNormal, Normal

from models.small.vector_slvm_af1 import build
from pyro_afslvm import (
    FlowModel,
    MLPConditioner,
    StreamingFilter,
    TemporalAffine,
    TemporalChain,
)
from pyro_afslvm.forecasting.missing import MissingFilter, fill
from pyro_afslvm.objectives import smc
from pyro_afslvm.transforms import LastFrame
from pyro_afslvm.transforms.within import triangular_mixing

NAN = math.nan


def walk() -> FlowModel:
    """x_t = x_{t-1} + N(0, 1), from a given first frame."""
    return FlowModel(TemporalAffine(LastFrame(1)), (2,), context_length=1)


def brownian(x: Tensor) -> Tensor:
    """log p of what is observed of each sequence (T, 1 feature) given its first value."""
    steps = len(x) - 1
    times = torch.arange(1, steps + 1.0)
    joint = torch.minimum(times[:, None], times)
    seen = (~x[1:].isnan()).nonzero().flatten()
    values = x[1:][seen] - x[0]
    return MultivariateNormal(torch.zeros(len(seen)), joint[seen][:, seen]).log_prob(values)


@pytest.mark.usefixtures("float64")
def test_the_density_of_what_is_observed_is_that_of_the_marginal() -> None:
    x = torch.randn(3, 7, 2).cumsum(1)
    x[0, 2, 0] = x[0, 3, 0] = x[1, 4] = x[2, 6, 1] = NAN
    found = fill(walk(), x, num_samples=4000)
    expected = torch.stack([sum(brownian(x[i, :, j]) for j in range(2)) for i in range(3)])
    torch.testing.assert_close(found.log_likelihood.sum(1), expected, atol=0.06, rtol=0)
    exact = found.exact
    assert exact[0].tolist() == [True, True, False, False, True, True]  # of a window of one
    assert exact[2].all()  # nothing comes after the gap
    torch.testing.assert_close(found.log_likelihood[2].sum(), expected[2])


@pytest.mark.usefixtures("float64")
def test_missing_values_are_filled_from_both_sides() -> None:
    """A Brownian bridge: mean on the line between the neighbours, variance t (n - t) / n."""
    x = torch.tensor([[0.0], [1.0], [NAN], [NAN], [2.5], [3.0]])[None].expand(1, 6, 2)
    filled = fill(walk(), x, num_samples=20_000).samples[:, 0]
    mean, variance = filled[:, 2:4, 0].mean(0), filled[:, 2:4, 0].var(0)
    torch.testing.assert_close(mean, torch.tensor([1.5, 2.0]), atol=0.05, rtol=0)
    torch.testing.assert_close(variance, torch.full((2,), 2 / 3), atol=0.05, rtol=0)
    assert (filled[:, [0, 1, 4, 5]] == x[0, [0, 1, 4, 5]]).all()


def test_without_gaps_it_is_the_likelihood() -> None:
    model = FlowModel(TemporalAffine(MLPConditioner(2, window=2)), (2,))
    x = torch.randn(4, 6, 2)
    found = fill(model, x, num_samples=3)
    torch.testing.assert_close(found.log_likelihood, model.log_prob(x).double())
    assert found.exact.all()
    assert found.log_likelihood.shape == (4, 4)


@pytest.mark.usefixtures("float64")
def test_of_a_map_that_mixes_entries_it_is_an_estimate() -> None:
    mixing = triangular_mixing(2)
    with torch.no_grad():
        for weight in mixing.parameters():
            weight.fill_(0.8)
    model = FlowModel(TemporalChain([mixing, TemporalAffine(LastFrame(1))]), (2,), context_length=1)
    x = torch.tensor([[[0.0, 0.0], [0.3, NAN], [NAN, 1.2]]])[:, :2]
    found = fill(model, x, num_samples=20_000)
    assert not found.exact.any()
    matrix = mixing.transforms[0].matrix
    variance = (matrix @ matrix.T)[0, 0]
    expected = Normal(0.0, variance.sqrt()).log_prob(torch.tensor(0.3))
    torch.testing.assert_close(found.log_likelihood[0, 0], expected, atol=0.02, rtol=0)
    second = torch.tensor([[[0.0, 0.0], [NAN, 0.3]]])
    variance = (matrix @ matrix.T)[1, 1]
    expected = Normal(0.0, variance.sqrt()).log_prob(torch.tensor(0.3))
    estimate = fill(model, second, num_samples=20_000).log_likelihood[0, 0]
    torch.testing.assert_close(estimate, expected, atol=0.03, rtol=0)


def test_a_stream_goes_on_over_gaps() -> None:
    stream = MissingFilter(walk(), num_particles=50)
    with pytest.raises(ValueError, match="expected a first frame before one that is missing"):
        stream.update(None)
    assert stream.update(torch.zeros(3, 2)).log_likelihood.isnan().all()
    update = stream.update(None)
    assert (update.log_likelihood == 0).all()  # of nothing
    assert stream.update(torch.full((3, 2), NAN)).frames.std(0).min() > 0.8
    assert stream.update(torch.ones(3, 2)).log_likelihood.isfinite().all()
    with pytest.raises(ValueError, match="expected frames of 3 streams, got 2"):
        stream.update(torch.ones(2, 2))


def test_what_cannot_be_filled_is_refused_in_one_line() -> None:
    with pytest.raises(ValueError, match="the first 1 frames are given to the model, and none"):
        MissingFilter(walk()).update(torch.tensor([[0.0, NAN]]))
    with pytest.raises(ValueError, match="got Inf"):
        MissingFilter(walk()).update(torch.tensor([[0.0, math.inf]]))
    with pytest.raises(ValueError, match="at least 1 particle, got 0"):
        MissingFilter(walk(), num_particles=0)


def test_of_latents_it_is_an_estimate_that_agrees_with_the_particle_filter() -> None:
    pair = build((2,), latent_size=2)
    x = torch.randn(2, 6, 2)
    found = fill(pair.model, x, num_samples=4000)
    assert pair.guide is not None
    expected = smc(pair.model, pair.guide, x, num_particles=4000).log_evidence
    torch.testing.assert_close(found.log_likelihood.sum(1), expected, atol=0.05, rtol=0)
    assert not found.exact.any()
    x[0, 4] = NAN
    gap = fill(pair.model, x, num_samples=100)
    assert gap.samples.isfinite().all()
    assert gap.log_likelihood[0, 4 - pair.model.context_length].abs() < 1e-9  # of nothing


@pytest.mark.parametrize("frame", [None, torch.tensor([[0.0, NAN]])], ids=["none", "nan"])
def test_a_stream_without_particles_names_the_one_with(frame: Tensor | None) -> None:
    with pytest.raises(ValueError, match="without NaN or Inf: MissingFilter takes missing values"):
        StreamingFilter(walk()).update(frame)  # type: ignore[arg-type]
