"""Reported metrics: their units, their guard, their repeatability."""

import math

import numpy as np
import pyro
import pytest
import torch
from torch import nn

from pyro_afslvm import FlowModel, Pair, TemporalAffine
from pyro_afslvm.data import GaussianDequantization, MovingDigits, dequantization
from pyro_afslvm.distributions import across_time, standard_normal
from pyro_afslvm.evaluation.metrics import evaluate, likelihood
from pyro_afslvm.evaluation.pictures import pictures
from pyro_afslvm.transforms import AffineParameters, Conditioner, LastFrame

SOURCE = MovingDigits(size=16, test_size=6)


def copy_last_frame(log_scale: float = -1.0) -> Pair:
    frame = LastFrame(3, learned_scale=True)
    frame.log_scale.data.fill_(log_scale)
    return Pair(FlowModel(TemporalAffine(frame), (1, 16, 16), context_length=3), None)


def test_units_and_protocols():
    results = evaluate(copy_last_frame(), SOURCE)
    data = SOURCE.dataset("test", num_frames=13)
    torch.manual_seed(5)
    x = GaussianDequantization()(torch.stack([data[i] for i in range(6)])).double()
    change = x[:, 3:] - x[:, 2:-1]
    by_hand = torch.distributions.Normal(0.0, math.exp(-1.0)).log_prob(change).mean()
    assert results["nats_per_dim_unit"] == pytest.approx(by_hand.item(), abs=2e-3)
    assert results["nats_per_dim"] == pytest.approx(results["nats_per_dim_unit"] - math.log(256))
    assert results["protocol"] | {"noise": "uniform"} == results["protocol_bits"]
    assert results["protocol"]["context_frames"] == 3
    assert results["protocol"]["bound"] == "exact"
    assert results["num_sequences"] == 6
    assert results["parameters"] == 1
    bits = (math.log(256) - results["nats_per_dim_unit"]) / math.log(2)
    assert results["bits_per_dim"] == pytest.approx(bits, abs=0.02)  # nearly the same pixels


def test_repeatable_whatever_the_batch():
    pixels = dequantization("gaussian")
    data = SOURCE.dataset("test", num_frames=13)
    one = likelihood(copy_last_frame(), data, dequantization=pixels, scored_frames=10)
    two = likelihood(copy_last_frame(), data, dequantization=pixels, scored_frames=10)
    np.testing.assert_array_equal(one.per_sequence, two.per_sequence)
    assert one.num_values == 6 * 10 * 256


def test_only_the_last_frames_are_reported():
    pixels, data = dequantization("gaussian"), SOURCE.dataset("test", num_frames=13)
    few = likelihood(copy_last_frame(), data, dequantization=pixels, scored_frames=4)
    assert few.num_values == 6 * 4 * 256
    whole = likelihood(copy_last_frame(), data, dequantization=pixels, scored_frames=10)
    assert few.mean != whole.mean


class Own(nn.Module):
    """A Pyro program of the user's own over the flow of another model."""

    def __init__(self, model: FlowModel) -> None:
        super().__init__()
        self.flow, self.context_length = model.flow, model.context_length

    def forward(self, x, horizon=0, lengths=None):
        given, scored = x[:, : self.context_length], x[:, self.context_length :]
        with pyro.plate("sequence", len(x), dim=-1):
            flow = self.flow.condition(history=given)
            pyro.sample("x", across_time(standard_normal(scored.shape[1:], x), flow), obs=scored)
            if horizon:
                future = standard_normal((horizon, *x.shape[2:]), x)
                pyro.sample("x_future", across_time(future, self.flow.condition(history=x)))


def test_a_program_of_the_users_own_is_evaluated_like_the_librarys():
    pair = copy_last_frame()
    own = Pair(Own(pair.model), None)
    results = evaluate(own, SOURCE)
    assert results == evaluate(pair, SOURCE)
    assert results["correlation_y"] is not None
    drawn, expected = pictures(own, SOURCE), pictures(pair, SOURCE)
    assert drawn.keys() == expected.keys() >= {"shift_1", "scale_1", "noise_1"}
    for name, values in drawn.items():
        np.testing.assert_array_equal(values, expected[name])


class Cheat(Conditioner):
    """Pretends to know every pixel to a hundredth of the noise: breaks the density."""

    def __init__(self) -> None:
        super().__init__(frame_dims=3, initial_shape=(1, 1, 1), window=0, reach=0)
        self.unused = nn.Parameter(torch.zeros(()))

    def forward(self, values, *, history=None, context=None):
        return AffineParameters(values, torch.full_like(values, -9.0))  # sees the present

    def initial_state(self, batch_shape, *, history=None, context=None):
        return ()

    def step(self, previous, state, *, context=None):
        raise NotImplementedError


def test_a_figure_above_the_entropy_of_the_noise_is_refused():
    cheat = Pair(FlowModel(TemporalAffine(Cheat()), (1, 16, 16)), None)
    data = SOURCE.dataset("test", num_frames=13)
    for name in ("gaussian", "uniform"):
        with pytest.raises(ValueError, match="a bug"):
            likelihood(cheat, data, dequantization=dequantization(name), scored_frames=10)


def test_the_best_possible_model_reaches_the_entropy_of_the_noise():
    """Who knows the pixels (black) and the scale of the noise scores -1.419 and passes."""

    class Black(Cheat):
        def forward(self, values, *, history=None, context=None):
            zeros = torch.zeros_like(values)
            return AffineParameters(zeros, zeros - math.log(256))

    black = [torch.zeros(13, 1, 16, 16, dtype=torch.uint8) for _ in range(6)]
    model = Pair(FlowModel(TemporalAffine(Black()), (1, 16, 16)), None)
    pixels = dequantization("gaussian")
    found = likelihood(model, black, dequantization=pixels, scored_frames=10)
    tolerance = 4 * math.sqrt(0.5 / found.num_values)
    assert found.mean - math.log(256) == pytest.approx(-1.4189, abs=tolerance)


def test_pictures_start_with_what_was_given():
    arrays = pictures(copy_last_frame(-5.0), SOURCE, num_sequences=2, horizon=4, context=5)
    given = int(arrays["rollout_context"])
    assert given == 5
    truth, samples = arrays["rollout_truth"], arrays["rollout_samples"]
    assert truth.shape == (2, 9, 1, 16, 16)
    assert samples.shape == (3, 2, 9, 1, 16, 16)
    np.testing.assert_array_equal(samples[1, :, :5], truth[:, :5].clip(0, 1))
    assert not np.array_equal(samples[0, :, 5:], samples[1, :, 5:])
    frames = arrays["shift_1"] + arrays["scale_1"] * arrays["noise_1"]
    np.testing.assert_allclose(frames, arrays["frames"], atol=1e-5)
