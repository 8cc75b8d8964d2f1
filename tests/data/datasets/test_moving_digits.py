"""Moving digits: what is drawn, and from what."""

from typing import Any

import numpy as np
import pytest

from pyro_afslvm.data import MovingDigits
from pyro_afslvm.data.datasets.moving_digits import digit_images, photograph

SPLITS = ("train", "validation", "test")


def test_digit_images_are_in_one_split_only() -> None:
    images = {split: digit_images(split, 28) for split in SPLITS}
    assert sum(map(len, images.values())) == 1797
    own = {split: {image.tobytes() for image in x} for split, x in images.items()}
    assert not own["train"] & own["test"]
    assert not own["train"] & own["validation"]
    assert not own["validation"] & own["test"]


def test_digits_do_not_depend_on_the_seed() -> None:
    before = digit_images("test", 14).copy()
    MovingDigits(size=32, seed=5).dataset("test", num_frames=2)[0]
    digit_images.cache_clear()
    assert np.array_equal(before, digit_images("test", 14))


def background(split: Any, **settings: Any) -> tuple[np.ndarray, np.ndarray]:
    """A sequence, and the places where the digits left the background alone."""
    x = MovingDigits(size=32, background="photo", **settings).dataset(split, num_frames=8)[3]
    return x.numpy(), (x == x[:1]).all(0).numpy()


def test_background_is_static_and_digits_are_brighter() -> None:
    for channels in (1, 3):
        x, still = background("train", channels=channels)
        assert 0.05 < still.mean() < 0.95
        assert x.max() > 240
        assert x[:, still].max() < 0.7 * 255


@pytest.mark.parametrize("channels", [1, 3])
def test_backgrounds_of_splits_come_from_different_photographs(channels: Any) -> None:
    parts = {split: photograph(split, channels) for split in SPLITS}
    assert parts["train"].shape == (channels, 427, 448)
    assert parts["validation"].shape == (channels, 427, 192)
    assert parts["test"].shape == (channels, 427, 640)
    for split in SPLITS:
        crops = {other: found_in(parts[other], split, channels) for other in SPLITS}
        assert crops == {other: other == split for other in SPLITS}


def found_in(photo: np.ndarray, split: Any, channels: Any) -> bool:
    """Whether the still part of a sequence of ``split`` is a piece of ``photo``."""
    x, still = background(split, channels=channels)
    places = np.argwhere(still)[:400]
    c, rows, columns = places.T
    windows = (photo.shape[1] - 31, photo.shape[2] - 31)
    match = np.ones(windows, dtype=bool)
    for i, row, column in zip(c, rows, columns, strict=True):
        piece = photo[i, row : row + windows[0], column : column + windows[1]]
        match &= piece == x[0, i, row, column]
    return bool(match.any())


def test_grey_photograph_is_the_luma() -> None:
    from sklearn.datasets import load_sample_image

    luma = load_sample_image("flower.jpg") @ np.array([0.299, 0.587, 0.114])
    assert np.abs(photograph("test", 1)[0] - 0.65 * luma).max() <= 0.51


def test_blend_of_digit_and_background() -> None:
    from pyro_afslvm.data.datasets.moving_digits import _blend

    b, a = np.meshgrid(np.arange(256, dtype=np.uint8), np.arange(256, dtype=np.uint8))
    alpha = a / 255
    exact = b * (1 - alpha) + 255 * alpha
    assert np.abs(_blend(b, a) - exact).max() <= 0.51


def test_settings_reach_the_protocol() -> None:
    settings = MovingDigits(size=32, background="photo", channels=3).describe()
    assert settings["name"] == "moving_digits"
    assert settings["background"] == "photo"
    assert settings["digit_size"] == 14


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"size": 8}, "size must be an integer of at least 16, got 8"),
        ({"num_digits": 0}, "num_digits must be an integer of at least 1"),
        ({"seed": -1}, "seed must be an integer of at least 0"),
        ({"test_size": -3}, "test_size must be an integer of at least 0"),
        ({"digit_size": 64}, "digit_size must be below size = 64, got 64"),
        ({"background": "sea"}, "background must be 'photo' or None, got 'sea'"),
        ({"channels": 2}, "channels must be 1 or 3, got 2"),
        ({"step": 1.5}, "step must lie between 0 and 1"),
        ({"size": 256, "background": "photo"}, "size must be at most 192 with photographs"),
    ],
)
def test_bad_settings_of_digits(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        MovingDigits(**settings)


def test_bad_requests() -> None:
    source = MovingDigits(size=32, validation_size=0)
    with pytest.raises(ValueError, match="unknown split 'dev': expected 'train'"):
        source.dataset("dev", num_frames=3)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="the validation split is empty"):
        source.dataset("validation", num_frames=3)
    with pytest.raises(ValueError, match="num_frames must be at least 1, got 0"):
        source.dataset("train", num_frames=0)
