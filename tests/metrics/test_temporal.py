"""Temporal correlation, Eq. 31."""

import math

import numpy as np
import pytest
import torch

from pyro_afslvm.metrics import temporal_correlation, temporal_correlations


def autoregressive(a: float, shape: tuple[int, ...], num_frames: int) -> torch.Tensor:
    """Stationary AR(1): correlation a between neighbours, (N, T, *frame)."""
    frames = [torch.randn(shape)]
    for _ in range(num_frames - 1):
        frames.append(a * frames[-1] + math.sqrt(1 - a**2) * torch.randn(shape))
    return torch.stack(frames, 1)


def test_white_noise_has_none() -> None:
    assert abs(temporal_correlation(torch.randn(200, 20, 1, 4, 4))) < 0.01


@pytest.mark.parametrize("a", [-0.5, 0.3, 0.9])
def test_autoregressive_sequences(a: float) -> None:
    x = autoregressive(a, (2000, 2, 3, 3), 20)
    assert temporal_correlation(3 + 10 * x) == pytest.approx(a, abs=0.02)


def test_sequences_that_never_change() -> None:
    x = torch.rand(50, 1, 2, 3).expand(50, 7, 2, 3)
    assert temporal_correlation(x) == pytest.approx(1.0)


def test_against_a_loop_over_pixels() -> None:
    x = torch.rand(5, 4, 1, 2, 2, dtype=torch.float64)
    ratios = []
    for i in range(2):
        for j in range(2):
            p = x[:, :, 0, i, j]
            mean, variance = p.mean(), p.var(correction=0)
            ratios.append(((p[:, :-1] - mean) * (p[:, 1:] - mean)).mean() / variance)
    expected = torch.stack(ratios).mean().item()
    assert temporal_correlation(x) == pytest.approx(expected, rel=1e-12)


def test_statistics_are_per_pixel() -> None:
    """A pixel that is always bright is no correlation."""
    x = torch.randn(500, 20, 4) + torch.tensor([0.0, 10.0, 100.0, -50.0])
    assert abs(temporal_correlation(x)) < 0.03


def test_constant_pixels_are_left_out() -> None:
    x = autoregressive(0.6, (500, 3), 20)
    constant = torch.full((500, 20, 2), 0.1)
    alone, together = temporal_correlation(x), temporal_correlation(torch.cat([x, constant], -1))
    assert together == pytest.approx(alone, rel=1e-12)
    assert math.isnan(temporal_correlation(constant))


def test_scalar_frames_and_large_offsets() -> None:
    x = autoregressive(0.5, (5000,), 20)
    assert temporal_correlation(x) == pytest.approx(0.5, abs=0.02)
    assert temporal_correlation(x.double() + 1e6) == pytest.approx(0.5, abs=0.02)


def ragged() -> tuple[torch.Tensor, torch.Tensor]:
    return torch.rand(6, 5, 1, 2, 2, dtype=torch.float64), torch.tensor([5, 2, 1, 4, 5, 3])


def test_ragged_is_the_formula_on_frames_that_count() -> None:
    x, lengths = ragged()
    ratios = []
    for pixel in x.flatten(2).unbind(-1):
        sequences = [s[:n] for s, n in zip(pixel, lengths.tolist(), strict=True)]
        mean, variance = torch.cat(sequences).mean(), torch.cat(sequences).var(correction=0)
        products = [(s[:-1] - mean) * (s[1:] - mean) for s in sequences]
        ratios.append(torch.cat(products).mean() / variance)
    expected = torch.stack(ratios).mean().item()
    assert temporal_correlation(x, lengths) == pytest.approx(expected, rel=1e-12)
    assert temporal_correlation(x) != pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize("padding", [0.0, 1e30, math.nan, math.inf])
def test_padding_adds_nothing(padding: float) -> None:
    x, lengths = ragged()
    padded = torch.where((torch.arange(5) < lengths[:, None])[..., None, None, None], x, padding)
    assert temporal_correlation(padded, lengths) == temporal_correlation(x, lengths)


def test_full_lengths_and_arrays_change_nothing() -> None:
    x, _ = ragged()
    assert temporal_correlation(x, torch.full((6,), 5)) == temporal_correlation(x)
    assert temporal_correlation(x.numpy(), np.full(6, 5)) == temporal_correlation(x)


def test_pixel_that_moves_only_in_the_padding_is_left_out() -> None:
    x, lengths = ragged()
    still = torch.where((torch.arange(5) < lengths[:, None])[..., None], 0.3, torch.rand(6, 5, 1))
    both = torch.cat([x.flatten(2), still], -1)
    assert temporal_correlation(both, lengths) == temporal_correlation(x, lengths)


@pytest.mark.parametrize(
    ("lengths", "message"),
    [
        (torch.tensor([5, 6]), r"lengths must lie in 1\.\.5, got 5\.\.6"),
        (torch.tensor([5, 0]), r"lengths must lie in 1\.\.5, got 0\.\.5"),
        (torch.tensor([5]), "expected 2 whole lengths"),
        (torch.tensor([5.0, 5.0]), "expected 2 whole lengths"),
        (torch.tensor([1, 1]), "at least 2 frames, got lengths of at most 1"),
    ],
)
def test_lengths_that_do_not_fit(lengths: torch.Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        temporal_correlation(torch.rand(2, 5, 3), lengths)


@pytest.mark.parametrize("shape", [(), (4,), (4, 1), (0, 5), (4, 1, 3, 3)])
def test_too_little_to_correlate(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="at least 2 frames"):
        temporal_correlation(torch.zeros(shape))


def test_signs_that_cancel_are_seen_by_the_absolute_correlation() -> None:
    up, down = autoregressive(0.6, (1000, 3), 20), autoregressive(-0.6, (1000, 3), 20)
    found = temporal_correlations(torch.cat([up, down], -1))
    assert found.signed == pytest.approx(0.0, abs=0.01)
    assert found.absolute == pytest.approx(0.6, abs=0.01)
    assert found.num_pairs == 1000 * 19


def test_absolute_correlation_of_white_noise_is_that_of_its_size() -> None:
    for sequences in (5, 50):
        found = temporal_correlations(torch.randn(sequences, 11, 40, 40))
        assert found.absolute == pytest.approx(found.absolute_of_noise, rel=0.1)
    assert found.signed == pytest.approx(0.0, abs=0.006)


def test_moving_pixels_are_told_from_those_that_show_noise() -> None:
    """Nine pixels of ten are black but for noise: the mean over pixels does not see the tenth."""
    black = 0.01 * torch.randn(300, 20, 9)
    moving = autoregressive(0.8, (300, 1), 20)
    x = torch.cat([black, moving], -1)
    changes = torch.zeros(300, 19, 10, dtype=torch.bool)
    changes[..., 9] = True
    found = temporal_correlations(x, moving=changes)
    assert found.signed == pytest.approx(0.08, abs=0.01)
    assert found.moving == pytest.approx(0.8, abs=0.02)
    everywhere = temporal_correlations(x.round(decimals=1)).moving  # where the pixels change
    assert everywhere == pytest.approx(found.moving, abs=0.05)


@pytest.mark.parametrize("window", [1, 2, 3])
def test_difference_of_white_noise_from_the_mean_of_a_window(window: int) -> None:
    """What a flow leaves of black pixels where it looks at their noise."""
    noise = torch.randn(4000, 20 + window, 3)
    y = noise[:, window:] - sum(noise[:, i : 20 + i] for i in range(window)) / window
    assert temporal_correlation(y) == pytest.approx(-1 / (window**2 + window), abs=0.01)


def test_nothing_that_moves_has_no_correlation_of_its_own() -> None:
    x = torch.randn(5, 4, 3)
    still = temporal_correlations(x, moving=torch.zeros(5, 3, 3, dtype=torch.bool))
    assert math.isnan(still.moving)
    assert still.signed == temporal_correlation(x)
    with pytest.raises(ValueError, match=r"expected moving of shape \(5, 3, 3\), got \(5, 4, 3\)"):
        temporal_correlations(x, moving=torch.ones(5, 4, 3, dtype=torch.bool))


def test_padding_moves_nothing() -> None:
    x, lengths = ragged()
    padded = torch.where((torch.arange(5) < lengths[:, None])[..., None, None, None], x, 1e30)
    assert temporal_correlations(padded, lengths) == temporal_correlations(x, lengths)
