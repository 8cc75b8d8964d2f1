"""What the programs refuse: in one line that says what was expected and what was got."""

import math
import re
from collections.abc import Callable
from typing import Any

import pyro
import pytest
import torch
from pyro.infer import Trace_ELBO
from torch import nn

from pyro_afslvm import (
    SLVM,
    ConvConditioner,
    FlowModel,
    LSTMConditioner,
    MLPConditioner,
    Pair,
    TemporalAffine,
)
from pyro_afslvm.networks import MLPDecoder
from tests.support.programs import LATENT, SIZE, vector_flow, vector_slvm, video_flow, video_slvm


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
