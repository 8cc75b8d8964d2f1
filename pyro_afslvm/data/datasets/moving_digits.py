"""Moving handwritten digits from scikit-learn's bundled data: nothing to download."""

from functools import lru_cache, partial
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from pyro_afslvm.data.datasets.bouncing import moving_pictures
from pyro_afslvm.data.datasets.resize import cubic_weights, resize
from pyro_afslvm.data.source import SequenceSource
from pyro_afslvm.data.splits import Split, check_request
from pyro_afslvm.utils.checks import check_minimum

if TYPE_CHECKING:
    from pyro_afslvm.data.sequences import SequenceDataset

Pixels = NDArray[np.uint8]

_DIGIT_PARTS = {"train": (0.0, 0.7), "validation": (0.7, 0.8), "test": (0.8, 1.0)}
_PHOTO_PARTS = {  # photograph, first and last column
    "train": ("china.jpg", 0, 448),
    "validation": ("china.jpg", 448, 640),
    "test": ("flower.jpg", 0, 640),
}
_LARGEST_CROP = 192  # the validation part of the photograph is no wider
_BRIGHTNESS = 0.65  # white digits must show up against the sky of china.jpg


class MovingDigits(SequenceSource):
    """Handwritten digits that move and bounce as in Moving MNIST, over black or a photograph.

    .. math:: v = b (1 - a) + 255 a

    with digit opacity a and background b. scikit-learn's 1,797 digits of 8x8 pixels are
    upscaled smoothly; 70 % of the images are for training, 10 % for validation, 20 % for
    test. Backgrounds are static crops of scikit-learn's sample photographs, darkened to
    65 %: the left of ``china.jpg`` for training, its right for validation, ``flower.jpg``
    for test.

    Args:
        size: Height and width of a frame in pixels.
        num_digits: Digits in a sequence.
        background: ``"photo"`` for photographs, ``None`` for black.
        channels: 1 for grey, 3 for RGB.
        digit_size: Height and width of a digit in pixels; ``None`` for 28/64 of ``size``.
        step: Distance a digit moves per frame, in units of the free range.
        seed: Seed of all sequences; digit images and photographs of a split do not depend
            on it.
        train_size: Sequences per training epoch; each epoch has fresh ones.
        validation_size: Sequences for validation.
        test_size: Sequences for test.

    Raises:
        ValueError: A setting is out of range.

    Source: E. Alpaydin, C. Kaynak, *Optical Recognition of Handwritten Digits*, UCI, as
    distributed with scikit-learn.

    Example:
        >>> source = MovingDigits(size=32)
        >>> source.frame_shape
        (1, 32, 32)
        >>> source.dataset("test", num_frames=13)[0].shape
        torch.Size([13, 1, 32, 32])
    """

    name = "moving_digits"

    def __init__(
        self,
        *,
        size: int = 64,
        num_digits: int = 2,
        background: Literal["photo"] | None = None,
        channels: Literal[1, 3] = 1,
        digit_size: int | None = None,
        step: float = 0.1,
        seed: int = 0,
        train_size: int = 10000,
        validation_size: int = 200,
        test_size: int = 500,
    ) -> None:
        check_minimum(size=(size, 16), num_digits=(num_digits, 1), seed=(seed, 0))
        digit_size = 28 * size // 64 if digit_size is None else digit_size
        check_minimum(
            digit_size=(digit_size, 4),
            train_size=(train_size, 0),
            validation_size=(validation_size, 0),
            test_size=(test_size, 0),
        )
        _check_picture(size, digit_size, background, channels, step)
        self.size, self.num_digits, self.digit_size, self.step = size, num_digits, digit_size, step
        self.background, self.channels, self.seed = background, channels, seed
        self.train_size, self.validation_size, self.test_size = (
            train_size,
            validation_size,
            test_size,
        )

    @property
    def frame_shape(self) -> tuple[int, ...]:
        """Shape of one frame, (C, H, W)."""
        return (self.channels, self.size, self.size)

    def dataset(self, split: Split, *, num_frames: int) -> "SequenceDataset":
        """Sequences of one split; see :meth:`SequenceSource.dataset`."""
        from pyro_afslvm.data.sequences import GeneratedSequences

        check_request(split, num_frames)
        draw = partial(
            _draw,
            digits=digit_images(split, self.digit_size),
            photo=photograph(split, self.channels) if self.background else None,
            size=self.size,
            channels=self.channels,
            num_objects=self.num_digits,
            num_frames=num_frames,
            step=self.step,
        )
        sizes = {
            "train": self.train_size,
            "validation": self.validation_size,
            "test": self.test_size,
        }
        return GeneratedSequences(draw, size=sizes[split], seed=self.seed, split=split)

    def describe(self) -> dict[str, object]:
        """Settings as JSON values."""
        settings = {k: v for k, v in vars(self).items() if not k.startswith("_")}
        return {"name": self.name, **settings}


@lru_cache(maxsize=16)
def digit_images(split: Split, digit_size: int) -> Pixels:  # -> (N, D, D)
    """Upscale the digit images of a split.

    Example:
        >>> [len(digit_images(split, 14)) for split in ("train", "validation", "test")]
        [1257, 180, 360]
    """
    from sklearn.datasets import load_digits

    images = np.rint(load_digits().images * (255 / 16)).astype(np.uint8)
    first, last = (int(part * len(images)) for part in _DIGIT_PARTS[split])
    mine = np.random.default_rng(1797).permutation(len(images))[first:last]
    return resize(images[mine], cubic_weights(images.shape[-1], digit_size))


@lru_cache(maxsize=6)
def photograph(split: Split, channels: Literal[1, 3]) -> Pixels:  # -> (C, H, W)
    """Cut and darken a split's part of a sample photograph, in RGB or as its luma.

    Example:
        >>> photograph("validation", 3).shape
        (3, 427, 192)
    """
    from sklearn.datasets import load_sample_image

    file, first, last = _PHOTO_PARTS[split]
    pixels = load_sample_image(file)[:, first:last] * _BRIGHTNESS
    if channels == 1:
        pixels = (pixels @ np.array([0.299, 0.587, 0.114]))[..., None]
    return np.ascontiguousarray(np.rint(pixels).astype(np.uint8).transpose(2, 0, 1))


def _draw(
    rng: np.random.Generator,
    *,
    digits: Pixels,
    photo: Pixels | None,
    size: int,
    channels: int,
    num_objects: int,
    num_frames: int,
    step: float,
) -> Pixels:  # -> (T, C, H, W)
    shown = moving_pictures(
        rng, digits, size=size, num_objects=num_objects, num_frames=num_frames, step=step
    )[:, None]
    if photo is None:
        return np.repeat(shown, channels, axis=1)
    row = rng.integers(photo.shape[1] - size + 1)
    column = rng.integers(photo.shape[2] - size + 1)
    return _blend(photo[:, row : row + size, column : column + size], shown)


def _blend(background: Pixels, opacity: Pixels) -> Pixels:
    # In uint16: 255 * 255 plus half a step still fits.
    a = opacity.astype(np.uint16)
    return ((background * (255 - a) + 255 * a + 127) // 255).astype(np.uint8)


def _check_picture(
    size: int, digit_size: int, background: object, channels: int, step: float
) -> None:
    if digit_size >= size:
        raise ValueError(f"digit_size must be below size = {size}, got {digit_size}")
    if background not in (None, "photo"):
        raise ValueError(f"background must be 'photo' or None, got {background!r}")
    if channels not in (1, 3):
        raise ValueError(f"channels must be 1 or 3, got {channels!r}")
    if not 0.0 < step < 1.0:
        raise ValueError(f"step must lie between 0 and 1, got {step!r}")
    if background == "photo" and size > _LARGEST_CROP:
        raise ValueError(f"size must be at most {_LARGEST_CROP} with photographs, got {size}")
