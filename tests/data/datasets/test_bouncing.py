"""How pictures move and are resized."""

import numpy as np
import pytest

from pyro_afslvm.data import MovingDigits
from pyro_afslvm.data.datasets.bouncing import bounce, moving_pictures
from pyro_afslvm.data.datasets.resize import area_weights, cubic_weights, resize


def test_positions_stay_inside_and_reach_the_borders() -> None:
    paths = bounce(np.random.default_rng(0), num_steps=400, num_objects=50, limit=36)
    assert paths.min() == 0
    assert paths.max() == 36


def test_motion_is_straight_at_a_tenth_of_the_range() -> None:
    limit = 10**6  # fine pixels, so that truncation does not blur the speed
    paths = bounce(np.random.default_rng(1), num_steps=30, num_objects=200, limit=limit)
    steps = np.diff(paths, axis=0) / limit
    inside = ((paths[:-1] > 0) & (paths[:-1] < limit) & (paths[1:] > 0) & (paths[1:] < limit)).all(
        -1
    )
    np.testing.assert_allclose(np.hypot(*steps[inside].T), 0.1, atol=1e-5)
    at_border = (paths[1:-1] == 0) | (paths[1:-1] == limit)
    assert at_border.sum() > 100
    before, after = steps[:-1][at_border], steps[1:][at_border]
    assert (before * after <= 0).all()  # turns round at the border
    # ... and nowhere else
    both = ~at_border & (paths[:-2] % limit != 0) & (paths[2:] % limit != 0)
    np.testing.assert_allclose(steps[:-1][both], steps[1:][both], atol=1e-5)


def test_starts_and_directions_are_uniform() -> None:
    limit = 10**6
    paths = bounce(np.random.default_rng(2), num_steps=2, num_objects=20000, limit=limit) / limit
    inner = ((paths > 0.2) & (paths < 0.8)).all(-1).all(0)  # not near a border
    assert abs(paths[0, inner].mean() - 0.5) < 0.01
    direction = paths[1, inner] - paths[0, inner]
    angle = np.arctan2(direction[:, 0], direction[:, 1])
    counts = np.histogram(angle, bins=8, range=(-np.pi, np.pi))[0]
    assert abs(counts / counts.mean() - 1).max() < 0.1


def test_overlap_takes_the_brighter_pixel() -> None:
    pictures = np.stack([np.full((8, 8), 100, np.uint8), np.full((8, 8), 200, np.uint8)])
    frames = moving_pictures(
        np.random.default_rng(3), pictures, size=12, num_objects=4, num_frames=50
    )
    assert set(np.unique(frames)) <= {0, 100, 200}
    assert {100, 200} <= set(np.unique(frames))


def test_digits_move_between_frames() -> None:
    x = MovingDigits(size=64).dataset("train", num_frames=13)[0]
    assert (x[1:] != x[:-1]).flatten(1).any(1).all()


@pytest.mark.parametrize(("old", "new"), [(28, 14), (28, 21), (64, 32), (28, 56), (64, 48)])
def test_area_weights_keep_the_mean(old: int, new: int) -> None:
    w = area_weights(old, new)
    np.testing.assert_allclose(w.sum(1), 1.0)
    np.testing.assert_allclose(w.sum(0), new / old)


def test_area_resize_averages_blocks() -> None:
    image = np.arange(16, dtype=np.uint8).reshape(1, 4, 4) * 10
    expected = image.reshape(2, 2, 2, 2).astype(float).mean(axis=(1, 3))
    np.testing.assert_allclose(resize(image, area_weights(4, 2))[0], np.rint(expected))


def test_cubic_upscaling_reproduces_a_ramp_inside() -> None:
    ramp = cubic_weights(8, 28) @ np.arange(8.0)
    centres = (np.arange(28) + 0.5) * 8 / 28 - 0.5
    inner = (centres > 1) & (centres < 6)
    np.testing.assert_allclose(ramp[inner], centres[inner], atol=1e-12)
