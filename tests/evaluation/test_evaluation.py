"""Reported metrics: their units, their guard, their repeatability."""

import math

import numpy as np
import pyro
import pytest
import torch
from torch import nn

from pyro_afslvm import SLVM, FilteringGuide, FlowModel, LSTMConditioner, Pair, TemporalAffine
from pyro_afslvm.data import (
    GaussianDequantization,
    MovingDigits,
    NoDequantization,
    SequenceSource,
    StoredSequences,
    dequantization,
)
from pyro_afslvm.distributions import across_time, standard_normal
from pyro_afslvm.evaluation.metrics import evaluate, likelihood
from pyro_afslvm.evaluation.pictures import pictures
from pyro_afslvm.networks import ConvDecoder, ConvEncoder
from pyro_afslvm.transforms import AffineParameters, Conditioner, LastFrame
from tests.support import kalman

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


# ---- what is a bound, and of what ----


def test_the_last_terms_of_a_bound_are_no_bound_and_the_true_one_stands_beside(float64: None):
    pair = kalman.exact_pair(flow=False)  # with the exact posterior, which sees all frames
    x = kalman.sequences(pair.model, 200)
    scored, dims = 3, x.shape[-1]
    with torch.no_grad():
        of_all = kalman.evidence(pair.model, x)
        conditional = of_all - kalman.evidence(pair.model, x[:, :-scored])
    found = likelihood(pair, [*x], dequantization=Exact(), scored_frames=scored, num_samples=20)
    excess = scored * dims * found.per_sequence - conditional.numpy()
    assert excess.mean() > 5 * excess.std() / math.sqrt(len(x))  # above log p(last | first)
    assert found.whole is not None
    np.testing.assert_allclose(
        found.whole.per_sequence * x.shape[1] * dims, of_all.numpy(), rtol=1e-9
    )
    assert found.whole.num_values == x.numel()
    assert found.num_values == 200 * scored * dims


class Exact(NoDequantization):
    """Values as they are, in double precision."""

    def __call__(self, frames, *, generator=None):
        return frames


def test_all_scored_frames_are_a_bound_by_themselves(float64: None):
    pair = kalman.exact_pair(flow=False)
    x = kalman.sequences(pair.model)
    found = likelihood(pair, [*x], dequantization=Exact(), scored_frames=x.shape[1])
    assert found.whole is None
    flow = likelihood(
        copy_last_frame(),
        SOURCE.dataset("test", num_frames=16),
        dequantization=dequantization("gaussian"),
        scored_frames=10,
    )
    assert flow.whole is None  # exact for every frame, however many there are


def small_slvm(context_length: int | None) -> Pair:
    prior = TemporalAffine(LSTMConditioner(4, hidden=8))
    decoder = ConvDecoder(4, (1, 16, 16), width=4)
    model = SLVM((1, 16, 16), 4, prior=prior, decoder=decoder, context_length=context_length)
    encoder = ConvEncoder((1, 16, 16), features=8, width=4)
    return Pair(model, FilteringGuide(model, encoder, hidden=8))


def test_results_name_the_conditional_figure_and_hold_the_true_bound():
    results = evaluate(small_slvm(None), SOURCE)
    assert results["protocol"]["bound"] == "last 10 of 13 terms of an ELBO"
    assert results["whole_frames"] == 13
    for name in ("nats_per_dim", "bits_per_dim"):
        assert results[f"whole_{name}"] != results[name]
        assert results[f"whole_{name}_error"] > 0
    given = evaluate(small_slvm(3), SOURCE)
    assert given["protocol"]["bound"] == "ELBO"
    for name in ("frames", "nats_per_dim", "nats_per_dim_error", "bits_per_dim"):
        assert given[f"whole_{name}"] is None


# ---- units, windows ----


class Clips(SequenceSource):
    """Videos of 40 frames, which hold three windows of 13 or two of 16."""

    name, unit, frame_shape = "clips", "video", (1, 16, 16)

    def __init__(self, *, videos: int = 6) -> None:
        self.videos = videos

    def dataset(self, split, *, num_frames):
        stored = np.random.default_rng(len(split)).integers(
            256, size=(self.videos, 40, 1, 16, 16), dtype=np.uint8
        )
        stored += np.arange(self.videos, dtype=np.uint8)[:, None, None, None, None]
        stored[:, :, :, :8] = 0
        return StoredSequences(
            lambda i, a, b: stored[i, a:b].copy(),
            lengths=[40] * self.videos,
            num_frames=num_frames,
            seed=0,
            split=split,
        )

    def describe(self):
        return {"name": self.name, "videos": self.videos}


def test_error_bars_are_over_videos_not_windows():
    results = evaluate(copy_last_frame(), Clips())
    values = np.array(results["per_sequence"]["nats_per_dim"])
    assert results["per_sequence"]["unit"] == [*np.repeat(range(6), 3)]
    assert (results["num_sequences"], results["num_units"]) == (18, 6)
    means = values.reshape(6, 3).mean(1)
    assert results["nats_per_dim"] == pytest.approx(values.mean())
    assert results["nats_per_dim_error"] == pytest.approx(means.std(ddof=1) / math.sqrt(6))
    assert results["unit"] == "video"


def test_no_error_bar_from_fewer_than_five_videos():
    results = evaluate(copy_last_frame(), Clips(videos=4))
    assert results["num_sequences"] == 12
    assert results["nats_per_dim_error"] is results["bits_per_dim_error"] is None
    limited = evaluate(copy_last_frame(), Clips(), limit=12)  # windows of four videos
    assert limited["num_units"] == 4
    assert limited["nats_per_dim_error"] is None


def test_one_window_of_each_sequence_or_all_are_named_and_chosen():
    every = evaluate(copy_last_frame(), Clips())
    one = evaluate(copy_last_frame(), Clips(), windows="one")
    assert every["protocol"]["windows"] == "all"
    assert one["protocol"]["windows"] == one["protocol_bits"]["windows"] == "one"
    assert (one["num_sequences"], one["num_units"]) == (6, 6)
    assert evaluate(copy_last_frame(), SOURCE)["protocol"]["windows"] == "one"
    with pytest.raises(ValueError, match="moving_digits has one crop of each sequence"):
        evaluate(copy_last_frame(), SOURCE, windows="all")


# ---- bits, correlations ----


def test_the_floor_of_bits_is_that_of_a_perfect_model_of_gaussian_noise():
    """Who knows the pixels, and takes them for noisy ones, has so many bits per dimension."""
    pixels = torch.randint(256, (6, 13, 1, 16, 16), dtype=torch.uint8)
    uniform = dequantization("uniform")
    x = uniform(pixels).double()
    known = torch.distributions.Normal(pixels.double() / 255, 1 / 256)
    bits = uniform.to_report(known.log_prob(x).mean().item())
    assert uniform.floor_of_gaussian(pixels) == pytest.approx(bits, abs=5e-3)
    assert bits == pytest.approx(1.446, abs=0.01)
    results = evaluate(copy_last_frame(), SOURCE)
    assert 1.45 < results["bits_per_dim_floor"] < 1.57


def test_correlations_of_training_sequences_and_of_moving_pixels_are_recorded():
    results = evaluate(copy_last_frame(), SOURCE)
    for name in ("correlation", "absolute_correlation", "moving_correlation", "train_correlation"):
        assert -1 <= results[f"{name}_x"] <= 1
        assert -1 <= results[f"{name}_y"] <= 1
    assert results["moving_correlation_x"] != results["correlation_x"]
    assert results["train_correlation_x"] != results["correlation_x"]
    assert results["absolute_correlation_y"] >= abs(results["correlation_y"])
    none = evaluate(small_slvm(None), SOURCE)
    assert none["correlation_y"] is none["moving_correlation_y"] is None
    assert none["train_correlation_y"] is None
