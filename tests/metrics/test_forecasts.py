"""Scores of forecasts, against brute force, closed forms and known calibration."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor
from torchmetrics.functional.image import (
    peak_signal_noise_ratio,
    structural_similarity_index_measure,
)

from pyro_afslvm import rollout
from pyro_afslvm.metrics import coverage, crps, forecast_scores, inputs, psnr, squared_error, ssim
from tests.support.guides import sequences, system

SCORES = {
    "crps": crps,
    "coverage": coverage,
    "psnr": psnr,
    "ssim": ssim,
    "squared_error": squared_error,
}


def video(num_samples: int = 4, batch: int = 3, horizon: int = 5) -> tuple[Tensor, Tensor]:
    truth = torch.rand(batch, horizon, 2, 12, 12)
    return truth + 0.2 * torch.randn(num_samples, *truth.shape), truth


def brute_force(samples: Tensor, truth: Tensor) -> Tensor:
    size = len(samples)
    error = (samples - truth).abs().mean(0)
    pairs = (samples[:, None] - samples[None]).abs().sum((0, 1)) / (size * (size - 1))
    return (error - pairs / 2).flatten(2).mean(-1)


# ---- continuous ranked probability score ----


@pytest.mark.parametrize(("frame", "size"), [((), 3), ((7,), 2), ((7,), 20), ((2, 5, 3), 3)])
def test_crps_is_the_average_over_pairs(frame: tuple[int, ...], size: int) -> None:
    truth = torch.randn(3, 4, *frame, dtype=torch.float64)
    samples = 2 * torch.randn(size, 3, 4, *frame, dtype=torch.float64)
    expected = brute_force(samples.reshape(size, 3, 4, -1), truth.reshape(3, 4, -1))
    torch.testing.assert_close(crps(samples, truth), expected, rtol=1e-12, atol=1e-12)


def test_crps_of_a_normal_in_closed_form() -> None:
    """sigma (y (2 Phi(y) - 1) + 2 phi(y) - 1 / sqrt(pi)), also with few samples."""
    normal = torch.distributions.Normal(0.0, 1.0)
    y = torch.tensor([-1.5, 0.0, 0.7], dtype=torch.float64)
    closed = y * (2 * normal.cdf(y) - 1) + 2 * normal.log_prob(y).exp() - 1 / math.sqrt(math.pi)
    many = crps(5 + 3 * torch.randn(100_000, 1, 3), 5 + 3 * y[None])
    torch.testing.assert_close(many[0], 3 * closed, rtol=0, atol=0.03)
    few = crps(torch.randn(3, 1, 3, 50_000), y[None, :, None].expand(1, 3, 50_000))
    torch.testing.assert_close(few[0], closed, rtol=0, atol=0.02)  # unbiased for every S


def test_crps_prefers_the_true_distribution() -> None:
    truth = torch.randn(1, 1, 5000)
    sharp, right, wide, shifted = (
        crps(location + scale * torch.randn(50, 1, 1, 5000), truth).item()
        for location, scale in ((0, 0.5), (0, 1), (0, 2), (1, 1))
    )
    assert right < min(sharp, wide, shifted)


@pytest.mark.parametrize("budget", [1, 50, 10**4])
def test_chunks_change_nothing(budget: int, monkeypatch: pytest.MonkeyPatch) -> None:
    samples, truth = (values[..., :4, :3] for values in video())
    whole = crps(samples, truth), coverage(samples, truth, level=[0.5, 0.9])
    monkeypatch.setattr(inputs, "BUDGET", budget)
    chunked = crps(samples, truth), coverage(samples, truth, level=[0.5, 0.9])
    torch.testing.assert_close(chunked, whole, rtol=1e-12, atol=1e-12)


def test_memory_is_flat_in_the_number_of_futures() -> None:
    """The scored pieces are of one size, whatever is scored."""
    largest = []

    def watch(samples: Tensor, truth: Tensor) -> Tensor:
        largest.append(samples.numel())
        return truth

    for batch, horizon, side in ((1, 2, 8), (2, 5, 64)):
        truth = torch.zeros(()).expand(batch, horizon, 1, side, side)
        samples = torch.zeros(()).expand(1000, *truth.shape)
        inputs.mean_over_pixels(watch, inputs.forecasts(samples, truth, None))
    assert max(largest) <= inputs.BUDGET
    assert len(largest) > 10


# ---- coverage ----


@pytest.mark.parametrize("size", [5, 50])
def test_calibrated_samples_cover_what_they_should(size: int) -> None:
    truth, samples = torch.rand(1, 2, 20_000), torch.rand(size, 1, 2, 20_000)
    levels = [0.2, 0.5, 0.9]
    found = coverage(samples, truth, level=levels).mean((1, 2))
    expected = torch.tensor(levels, dtype=torch.float64) * (size - 1) / (size + 1)
    torch.testing.assert_close(found, expected, rtol=0, atol=0.01)


def test_overconfident_and_timid_samples() -> None:
    truth = torch.randn(1, 1, 20_000)
    narrow, wide, shifted = (
        coverage(location + scale * torch.randn(200, 1, 1, 20_000), truth).item()
        for location, scale in ((0, 0.5), (0, 2), (3, 1))
    )
    normal = torch.distributions.Normal(0.0, 1.0)
    assert narrow == pytest.approx(2 * normal.cdf(torch.tensor(0.5 * 1.645)).item() - 1, abs=0.02)
    assert wide == pytest.approx(2 * normal.cdf(torch.tensor(2 * 1.645)).item() - 1, abs=0.02)
    assert shifted < 0.12


def test_one_level_is_one_of_several() -> None:
    samples, truth = video(20)
    several = coverage(samples, truth, level=[0.5, 0.8])
    assert torch.equal(several[1], coverage(samples, truth, level=0.8))
    assert (several[0] < several[1]).any()


@pytest.mark.parametrize("level", [0.0, 1.0, 90.0, math.nan, [0.5, -1], []])
def test_levels_out_of_range(level: float | list[float]) -> None:
    with pytest.raises(ValueError, match="levels between 0 and 1"):
        coverage(*video(), level=level)


# ---- the best sample ----


@pytest.mark.parametrize(
    ("score", "reference", "options"),
    [
        (psnr, peak_signal_noise_ratio, {"dim": (1, 2, 3)}),
        (ssim, structural_similarity_index_measure, {}),
    ],
)
@pytest.mark.parametrize("budget", [1, 10**9])
def test_best_of_s_by_the_mean_over_frames(score, reference, options, budget, monkeypatch) -> None:
    samples, truth = video()
    samples[0, 0, 0] = truth[0, 0] + 0.01  # one perfect frame makes no best sample
    samples[0, 0, 1:] = torch.rand_like(truth[0, 1:])
    monkeypatch.setattr("pyro_afslvm.metrics.images.BUDGET", budget)
    found = score(samples, truth)
    for n in range(3):
        per_frame = torch.stack(
            [
                reference(s, truth[n], data_range=1.0, reduction="none", **options)
                for s in samples[:, n]
            ]
        )
        best = per_frame[per_frame.mean(1).argmax()]
        torch.testing.assert_close(found[n].float(), best, rtol=1e-5, atol=1e-5)
    assert found[0, 0] < (30.0 if score is psnr else 0.9)


def test_psnr_by_hand() -> None:
    truth = torch.zeros(1, 2, 1, 4, 4)
    samples = torch.stack([truth + 0.5, truth + torch.tensor([0.1, 0.01]).view(2, 1, 1, 1)])
    expected = torch.tensor([[20.0, 40.0]], dtype=torch.float64)
    torch.testing.assert_close(psnr(samples, truth), expected, rtol=1e-5, atol=0)
    assert psnr(truth[None], truth).isposinf().all()


def test_more_samples_are_never_worse() -> None:
    samples, truth = video(8)
    for score in (psnr, ssim):
        few, many = (score(s, truth).mean(1) for s in (samples[:2], samples))
        assert (many >= few).all()
        assert (many > few).any()


# ---- what all have in common ----


@pytest.mark.parametrize("name", SCORES)
def test_ragged_equals_one_by_one(name: str) -> None:
    samples, truth = video()
    lengths = torch.tensor([5, 0, 2])
    clean = SCORES[name](samples, truth, lengths=lengths)
    for n, length in enumerate(lengths.tolist()):
        samples[:, n, length:], truth[n, length:] = math.nan, math.inf
    found = SCORES[name](samples, truth, lengths=lengths)
    assert torch.equal(found.nan_to_num(-7), clean.nan_to_num(-7))
    for n, length in enumerate(lengths.tolist()):
        assert found[n, length:].isnan().all()
        if length:
            one = SCORES[name](samples[:, n : n + 1, :length], truth[n : n + 1, :length])
            torch.testing.assert_close(found[n, :length], one[0], rtol=1e-12, atol=0)


def test_the_end_of_a_future_has_no_say_in_which_sample_is_best() -> None:
    truth = torch.zeros(1, 2, 1, 8, 8)
    errors = torch.tensor([[0.1, 0.9], [0.4, 0.1]]).view(2, 1, 2, 1, 1, 1)
    samples = truth + errors
    assert psnr(samples, truth, lengths=torch.tensor([1]))[0, 0] == pytest.approx(20, rel=1e-5)
    assert psnr(samples, truth)[0, 0] == pytest.approx(-20 * math.log10(0.4), rel=1e-5)


@pytest.mark.parametrize("name", SCORES)
def test_arrays_of_numpy_score_the_same(name: str) -> None:
    samples, truth = video()
    lengths = torch.tensor([5, 1, 2])
    found = SCORES[name](samples.numpy(), truth.numpy(), lengths=lengths.numpy())
    expected = SCORES[name](samples, truth, lengths=lengths)
    assert torch.equal(found.nan_to_num(-7), expected.nan_to_num(-7))
    assert found.dtype == torch.float64


@pytest.mark.parametrize("name", SCORES)
@pytest.mark.parametrize(("which", "value"), [(0, math.nan), (1, math.inf)])
def test_values_that_cannot_be_scored(name: str, which: int, value: float) -> None:
    pair = video()
    pair[which][..., 1, 3, 1, 4, 5] = value
    with pytest.raises(ValueError, match=f"{('samples', 'truth')[which]} holds NaN or Inf"):
        SCORES[name](*pair)


MISFIT = ((4, 3, 5, 2), (3, 4, 2))


@pytest.mark.parametrize(
    ("name", "samples", "truth"),
    [
        *((name, *MISFIT) for name in (*SCORES, "forecast_scores")),
        ("crps", (3, 5, 2), (3, 5, 2)),
        ("crps", (4, 3, 0, 2), (3, 0, 2)),
        ("crps", (4, 3), (3,)),
    ],
)
def test_shapes_that_do_not_fit(name: str, samples, truth) -> None:
    score = {**SCORES, "forecast_scores": forecast_scores}[name]
    with pytest.raises(ValueError, match=r"expected samples \(S, N, H, \*frame\)") as error:
        score(torch.zeros(samples), torch.zeros(truth))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(("name", "least"), [("crps", 2), ("coverage", 2), ("psnr", 1)])
def test_too_few_samples(name: str, least: int) -> None:
    samples, truth = video()
    with pytest.raises(ValueError, match=f"at least {least} samples of each future, got"):
        SCORES[name](samples[: least - 1], truth)
    SCORES[name](samples[:least], truth)


@pytest.mark.parametrize("name", SCORES)
def test_lengths_out_of_range(name: str) -> None:
    for lengths in ([5, 5, 6], [5, -1, 5]):
        with pytest.raises(ValueError, match=r"lengths must lie in 0\.\.5, got"):
            SCORES[name](*video(), lengths=torch.tensor(lengths))


def test_images_only() -> None:
    samples, truth = torch.rand(4, 3, 5, 7), torch.rand(3, 5, 7)
    for score in (psnr, ssim):
        with pytest.raises(ValueError, match="expected video of frames"):
            score(samples, truth)
    small = torch.rand(1, 1, 1, 5, 9)
    with pytest.raises(ValueError, match="at least 6 x 6 pixels for SSIM, got 5 x 9"):
        ssim(small[None], small)


def test_squared_error_by_hand() -> None:
    samples, truth = video()
    expected = (samples.double().mean(0) - truth.double()).square().flatten(2).sum(-1)
    torch.testing.assert_close(squared_error(samples, truth), expected, rtol=1e-5, atol=0)


# ---- together ----


def test_scores_in_one_data_set() -> None:
    samples, truth = video()
    lengths = torch.tensor([5, 1, 2])
    scores = forecast_scores(samples, truth, lengths=lengths, levels=(0.5, 0.9))
    for name in ("crps", "psnr", "ssim", "squared_error"):
        assert scores[name].dims == ("sequence", "time_future")
        expected = SCORES[name](samples, truth, lengths=lengths)
        np.testing.assert_array_equal(scores[name], expected)
    mean = ssim(samples.mean(0)[None], truth, lengths=lengths)
    np.testing.assert_array_equal(scores["ssim_of_mean"], mean)
    at_90 = scores["coverage"].sel(level=0.9)
    np.testing.assert_array_equal(at_90, coverage(samples, truth, lengths=lengths))
    assert scores["time_future"].values.tolist() == [1, 2, 3, 4, 5]
    assert scores["psnr"].attrs["units"] == "dB"
    assert scores.attrs["num_samples"] == 4
    counted = crps(samples, truth, lengths=lengths)[0, 2:]
    np.testing.assert_allclose(scores["crps"].mean("sequence")[2:][-2:], counted[-2:])


def test_scores_of_vectors_and_of_small_frames() -> None:
    vectors = forecast_scores(torch.rand(4, 3, 5, 7), torch.rand(3, 5, 7))
    assert sorted(vectors) == ["coverage", "crps", "squared_error"]
    small = forecast_scores(torch.rand(4, 1, 2, 1, 4, 4), torch.rand(1, 2, 1, 4, 4))
    assert sorted(small) == ["coverage", "crps", "psnr", "squared_error"]


def test_forecasts_as_rollout_gives_them():
    pair, x = system("plain", "filtering"), sequences()
    futures, truth = rollout(*pair, x, horizon=3, num_samples=5).x_future, x[:, :3]
    expected = crps(torch.from_numpy(futures.values), truth)
    torch.testing.assert_close(crps(futures, truth), expected)
    assert set(forecast_scores(futures, truth)) >= {"crps"}
