"""The Pyro programs: what they sample, what they refuse."""

import math
import re
from collections.abc import Callable
from typing import Any

import pyro
import pyro.distributions as dist
import pyro.poutine as poutine
import pytest
import torch
from pyro.infer import Predictive, Trace_ELBO
from torch import Tensor, nn

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


# ---- what they sample ----


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


# ---- what they refuse ----


def refused(call: Callable[[], Any], *expected: str) -> None:
    """A ValueError of one line that says what was wrong and what was expected."""
    with pytest.raises(ValueError, match=re.escape(expected[0])) as error:
        call()
    message = str(error.value)
    assert "\n" not in message
    assert all(part in message for part in expected)


def programs(pair: Pair) -> list[nn.Module]:
    return [program for program in pair if program is not None]


VIDEOS = {
    "flow": video_flow,
    "slvm": video_slvm,
    "slvm without flow": lambda: video_slvm(flow=False),
}
SHAPE = "expected x of shape (batch, time, 1, 16, 16), got "


@pytest.fixture(params=VIDEOS)
def video(request: pytest.FixtureRequest) -> Pair:
    return VIDEOS[request.param]()


@pytest.mark.parametrize(
    "shape",
    [
        (6, 1, 16, 16),
        (2, 2, 6, 1, 16, 16),
        (2, 6, 3, 16, 16),
        (2, 6, 1, 32, 32),
        (2, 6, 16, 16),
        (),
    ],
)
def test_frames_of_another_shape_are_refused(video: Pair, shape: tuple[int, ...]) -> None:
    for program in programs(video):
        refused(lambda program=program: program(torch.rand(shape)), SHAPE, str(shape))


def test_vectors_of_another_size_are_refused() -> None:
    for program in (vector_flow(), *vector_slvm()):
        refused(
            lambda program=program: program(torch.randn(2, 6, 5)), "(batch, time, 2), got (2, 6, 5)"
        )


@pytest.mark.parametrize("length", [0, 1, 3])
def test_no_more_frames_than_the_context_are_refused(length: int) -> None:
    for program in (*programs(video_flow()), *video_slvm()):
        refused(
            lambda program=program: program(torch.rand(2, length, 1, 16, 16)),
            "expected more than 3 frames",
            f"got {length}",
        )


def test_no_frames_are_refused_without_a_context() -> None:
    for program in (vector_flow(), *vector_slvm()):
        refused(
            lambda program=program: program(torch.rand(2, 0, SIZE)), "expected more than 0 frames"
        )


def test_an_empty_batch_is_refused(video: Pair) -> None:
    for program in programs(video):
        refused(lambda program=program: program(torch.rand(0, 6, 1, 16, 16)), "at least 1 sequence")


@pytest.mark.parametrize(("bad", "frame"), [(math.nan, 0), (math.inf, 5), (-math.inf, 0)])
def test_values_that_are_not_finite_are_refused(video: Pair, bad: float, frame: int) -> None:
    x = torch.rand(2, 6, 1, 16, 16)
    x[1, frame, 0, 3, 4] = bad
    for program in programs(video):
        refused(lambda program=program: program(x), "x holds NaN or Inf; expected finite values")


def test_vectors_that_are_not_finite_are_refused() -> None:
    x = torch.randn(2, 6, SIZE)
    x[0, 0, 0] = float("nan")
    for program in (vector_flow(), *vector_slvm()):
        refused(lambda program=program: program(x), "x holds NaN or Inf")


def test_raw_pixels_are_refused(video: Pair) -> None:
    raw = torch.randint(0, 256, (2, 6, 1, 16, 16), dtype=torch.uint8)
    for program in programs(video):
        refused(lambda program=program: program(raw), "floating point", "torch.uint8", "dequantize")
        refused(lambda program=program: program(raw.float()), "expected pixels near [0, 1]")
        refused(lambda program=program: program(raw.long()), "floating point", "torch.int64")
        program(raw / 255.0)


LENGTHS = {
    "too short": (torch.tensor([6, 3]), "lengths must lie in 4..6, got 3..6"),
    "too long": (torch.tensor([6, 7]), "lengths must lie in 4..6, got 6..7"),
    "negative": (torch.tensor([-1, 6]), "lengths must lie in 4..6, got -1..6"),
    "another batch": (torch.tensor([6, 6, 6]), "expected 2 whole lengths, got (3,) of"),
    "a number": (torch.tensor(6), "expected 2 whole lengths, got ()"),
    "a matrix": (torch.ones(2, 6, dtype=torch.long), "expected 2 whole lengths, got (2, 6)"),
    "fractions": (torch.tensor([6.0, 5.5]), "expected 2 whole lengths, got (2,) of torch.float32"),
    "a mask": (torch.tensor([True, True]), "expected 2 whole lengths, got (2,) of torch.bool"),
}


@pytest.mark.parametrize("lengths", LENGTHS)
def test_lengths_out_of_range_or_of_another_shape_are_refused(lengths: str) -> None:
    wrong, message = LENGTHS[lengths]
    x = torch.rand(2, 6, 1, 16, 16)
    for program in (*programs(video_flow()), *video_slvm()):
        refused(lambda program=program: program(x, lengths=wrong), message)


def test_a_horizon_after_padding_is_refused() -> None:
    x, lengths = torch.rand(2, 6, 1, 16, 16), torch.tensor([6, 5])
    for program in (*programs(video_flow()), *video_slvm()):
        refused(
            lambda program=program: program(x, horizon=2, lengths=lengths),
            "expected no lengths with a horizon",
        )


@pytest.mark.parametrize("horizon", [0, -1])
def test_nothing_to_do_is_refused(video: Pair, horizon: int) -> None:
    for program in programs(video):
        refused(lambda program=program: program(horizon=horizon), "expected horizon >= 1 without x")


def test_a_negative_horizon_is_refused(video: Pair) -> None:
    for program in programs(video):
        refused(lambda program=program: program(torch.rand(2, 6, 1, 16, 16), horizon=-1), "got -1")


def test_sampling_from_nothing_needs_a_learned_start() -> None:
    for model in (vector_flow(initial=None), vector_slvm(initial=None).model):
        refused(
            lambda model=model: model(horizon=3),
            "frames of history are needed",
            "initial='learned'",
        )


@pytest.mark.parametrize("latent_size", [1, LATENT + 2])
@pytest.mark.parametrize("make", [vector_slvm, video_slvm])
def test_a_guide_of_another_latent_size_is_refused(
    make: Callable[..., Pair], latent_size: int
) -> None:
    model, guide = make().model, make(latent_size=latent_size).guide
    x = torch.rand(2, 6, *model.frame_shape)
    steps = 6 - model.context_length
    with pytest.raises(ValueError, match=r"expected z of shape") as error:
        Trace_ELBO().loss(model, guide, x)
    first_line = str(error.value).splitlines()[0]  # the rest are shapes, by Pyro
    assert f"expected z of shape (..., {steps}, {LATENT})" in first_line
    assert f"got (2, {steps}, {latent_size})" in first_line


def test_a_guide_of_another_context_is_refused() -> None:
    model, guide = video_slvm().model, video_slvm(flow=False).guide
    with pytest.raises(ValueError, match=r"expected z of shape \(..., 3, 3\), got \(2, 6, 3\)"):
        Trace_ELBO().loss(model, guide, torch.rand(2, 6, 1, 16, 16))


def test_parts_that_do_not_fit_are_refused() -> None:
    flow = TemporalAffine(MLPConditioner(2))
    refused(lambda: FlowModel(flow, (1, 16, 16)), "frames with 1 dimensions", "(1, 16, 16)")
    decoder = MLPDecoder(2, 2)
    refused(lambda: SLVM((2,), 2, prior=flow, decoder=decoder), "starts from nothing")
    prior = TemporalAffine(ConvConditioner(1, hidden=4), initial="learned")
    refused(lambda: SLVM((2,), 2, prior=prior, decoder=decoder), "transform of vectors")


@pytest.mark.parametrize("context_length", [-1, 2])
def test_a_context_too_short_for_the_flow_is_refused(context_length: int) -> None:
    flow = TemporalAffine(MLPConditioner(2, window=3))
    expected = ("expected a context of at least 3 frames", f"got {context_length}")
    refused(lambda: FlowModel(flow, (2,), context_length=context_length), *expected)
    prior = TemporalAffine(LSTMConditioner(2, hidden=4))
    refused(
        lambda: SLVM(
            (2,),
            2,
            prior=prior,
            decoder=MLPDecoder(2, 2),
            flow=flow,
            context_length=context_length,
        ),
        *expected,
    )


def test_checks_of_values_cost_nothing_once_validation_is_off() -> None:
    pyro.enable_validation(False)
    x = torch.full((2, 6, 1, 16, 16), float("nan"))
    assert video_flow().model.log_prob(x).isnan().all()


def test_padding_whose_gradient_would_be_infinite():
    model = vector_flow()
    x, lengths = torch.randn(2, 6, SIZE), torch.tensor([4, 6])
    x[0, 4:] = 1e30
    with pytest.raises(ValueError, match="padding reaches 1e\\+30: fill it with zeros"):
        model.log_prob(x, lengths=lengths)
    x[0, 4:] = 1e5
    model.log_prob(x, lengths=lengths).sum().backward()
    assert all(p.grad.isfinite().all() for p in model.parameters())


def test_lengths_as_a_list():
    model, x = vector_flow(), torch.randn(2, 6, SIZE)
    expected = model.log_prob(x, lengths=torch.tensor([4, 6]))
    torch.testing.assert_close(model.log_prob(x, lengths=[4, 6]), expected)
