"""What the programs sample."""

import pyro.distributions as dist
import pyro.poutine as poutine
import pytest
import torch
from pyro.infer import Predictive
from torch import Tensor

from tests.support.programs import LATENT, SIZE, vector_flow, vector_slvm, video_flow, video_slvm


@pytest.mark.parametrize("parallel", [False, True])
def test_predictive_from_the_posterior(parallel: bool) -> None:
    pair, x = video_slvm(), torch.rand(2, 6, 1, 16, 16)
    predictive = Predictive(pair.model, guide=pair.guide, num_samples=5, parallel=parallel)
    samples = predictive(x, horizon=4)
    assert samples["z_future"].shape == (5, 2, 4, LATENT)
    assert samples["x_future"].shape == (5, 2, 4, 1, 16, 16)
    assert samples["x_future"].isfinite().all()
    assert samples["x_future"].flatten(1).unique(dim=0).shape[0] == 5


@pytest.mark.parametrize("parallel", [False, True])
def test_predictive_of_a_flow(parallel: bool) -> None:
    model, x = video_flow().model, torch.rand(2, 6, 1, 16, 16)
    samples = Predictive(model, num_samples=5, parallel=parallel)(x, horizon=4)
    assert samples["x_future"].shape == (5, 2, 4, 1, 16, 16)


@pytest.mark.parametrize("parallel", [False, True])
def test_predictive_from_nothing(parallel: bool) -> None:
    samples = Predictive(vector_flow(), num_samples=5, parallel=parallel)(horizon=7)
    assert samples["x_future"].shape == (5, 1, 7, SIZE)
    samples = Predictive(vector_slvm().model, num_samples=5, parallel=parallel)(horizon=7)
    assert samples["z_future"].shape == (5, 1, 7, LATENT)
    assert samples["x_future"].shape == (5, 1, 7, SIZE)


def test_a_guide_has_no_say_about_what_is_sampled_from_nothing() -> None:
    pair = vector_slvm()
    predictive = Predictive(pair.model, guide=pair.guide, num_samples=5, parallel=True)
    assert predictive(horizon=3)["x_future"].shape == (5, 1, 3, SIZE)


def test_the_programs_return_the_future() -> None:
    pair, x = vector_slvm(), torch.randn(4, 6, SIZE)
    assert pair.model(x) is None
    assert pair.model(x, horizon=3).shape == (4, 3, SIZE)
    assert pair.guide(x).shape == (4, 6, LATENT)
    assert pair.guide(x, horizon=3).shape == (4, 6, LATENT)
    assert vector_flow()(x, horizon=3).shape == (4, 3, SIZE)


def agree(a: Tensor, b: Tensor, errors: float = 4.5) -> None:
    """Means and variances over the first axis agree within Monte-Carlo error."""
    for moment in (lambda s: s, lambda s: (s - s.mean(0)) ** 2):
        first, second = moment(a), moment(b)
        error = (first.var(0) / len(a) + second.var(0) / len(b)).sqrt()
        assert ((first.mean(0) - second.mean(0)).abs() <= errors * error).all()


@pytest.mark.parametrize("context", [0, 4])
def test_parallel_and_sequential_prediction_agree(context: int) -> None:
    pair = vector_slvm()
    x = (torch.randn(1, context, SIZE),) if context else ()
    samples = {
        parallel: Predictive(pair.model, guide=pair.guide, num_samples=n, parallel=parallel)(
            *x, horizon=3
        )
        for parallel, n in ((False, 700), (True, 20_000))
    }
    for site in ("z_future", "x_future"):
        agree(samples[False][site].flatten(1), samples[True][site].flatten(1))


@pytest.mark.parametrize("given", [2, 5])
def test_the_future_of_a_flow_is_its_conditional(given: int, float64: None) -> None:
    model, x = vector_flow(), torch.randn(3, given, SIZE)
    future = poutine.trace(model).get_trace(x, horizon=4).nodes["x_future"]
    expected = model.log_prob(torch.cat([x, future["value"]], 1))[:, -4:].sum(1)
    torch.testing.assert_close(
        future["fn"].log_prob(future["value"]), expected, rtol=1e-10, atol=1e-10
    )


@pytest.mark.parametrize("given", [2, 5])
def test_the_future_of_an_slvm_is_its_conditional(given: int, float64: None) -> None:
    model, x = vector_slvm().model, torch.randn(3, given, SIZE)
    short = poutine.trace(model).get_trace(x, horizon=4)
    z = torch.cat([short.nodes["z"]["value"], short.nodes["z_future"]["value"]], 1)
    whole = torch.cat([x, short.nodes["x_future"]["value"]], 1)
    long = poutine.trace(poutine.condition(model, {"z": z})).get_trace(whole)
    for site in ("z", "x"):
        both = sum(
            short.nodes[name]["fn"].log_prob(short.nodes[name]["value"])
            for name in (site, f"{site}_future")
        )
        expected = long.nodes[site]["fn"].log_prob(long.nodes[site]["value"])
        torch.testing.assert_close(both, expected, rtol=1e-10, atol=1e-10)


def test_sampling_from_nothing_is_the_density_of_every_frame(float64: None) -> None:
    model = vector_flow()
    future = poutine.trace(model).get_trace(horizon=6).nodes["x_future"]
    per_frame = model.log_prob(future["value"])
    assert per_frame.shape == (1, 6)
    log_prob = future["fn"].log_prob(future["value"])
    torch.testing.assert_close(log_prob.sum(), per_frame.sum(), rtol=1e-10, atol=1e-10)


def test_predictive_mean_of_a_flow_is_that_of_samples(float64: None) -> None:
    model, x, n = vector_flow(initial=None), torch.randn(1, 7, SIZE), 20_000
    mean = model.predictive_mean(x)
    assert model.context_length == 4
    assert mean.shape == (1, 3, SIZE)
    for i, t in enumerate(range(model.context_length, x.shape[1])):
        frame = model.flow.condition(history=x[:, :t])(torch.randn(n, 1, SIZE))[:, 0]
        error = frame.std(0) / n**0.5
        assert ((frame.mean(0) - mean[0, i]).abs() < 4 * error).all()
        exact = model.flow.condition(history=x[:, :t])(torch.zeros(1, 1, SIZE))
        torch.testing.assert_close(exact[:, 0], mean[:, i])


@pytest.mark.parametrize("flow", [False, True])
def test_predictive_mean_of_an_slvm_is_that_of_samples(flow: bool, float64: None) -> None:
    pair, x, n = vector_slvm(flow=flow), torch.randn(1, 5, SIZE), 20_000
    z = torch.randn(2, 1, 5, LATENT)
    mean = pair.model.predictive_mean(x, z)
    assert mean.shape == (2, 1, 5, SIZE)
    y = dist.Normal(*pair.model.decoder(z)).sample((n,))  # (n, 2, 1, 5, SIZE)
    for t in range(5):
        frame = y[..., t : t + 1, :]
        if flow:
            past = x[:, :t] if t else None
            frame = pair.model.flow.condition(history=past)(frame)
        error = frame.std(0) / n**0.5
        assert ((frame.mean(0) - mean[..., t : t + 1, :]).abs() < 4.5 * error).all()
