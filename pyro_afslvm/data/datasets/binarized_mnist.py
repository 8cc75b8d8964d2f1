"""Binarized MNIST: digits whose pixels are drawn, black or white."""

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pyro_afslvm.data.datasets.mnist_files import read_idx_images
from pyro_afslvm.data.dequantize import DequantizationName
from pyro_afslvm.data.fetch import IDX_TEST, IDX_TRAIN, locate
from pyro_afslvm.data.source import SequenceSource
from pyro_afslvm.data.splits import Split, check_request
from pyro_afslvm.utils.checks import check_minimum

if TYPE_CHECKING:
    from pyro_afslvm.data.sequences import SequenceDataset

Images = NDArray[np.uint8]


class BinarizedMNIST(SequenceSource):
    """Handwritten digits, each pixel drawn with its grey value as the probability of a 1.

    A training image is drawn afresh in every epoch, from (seed, epoch, image) alone; validation
    and test are drawn once and for all. An image is a sequence of one frame, ``(1, 1, 28, 28)``.

    With both idx files ``t10k-images`` is for test; with one, its last tenth. The last
    ``validation_size`` of the remaining images are for validation.

    Args:
        path: Folder of the idx files, or the only one of them; ``None`` for this package's
            download cache.
        validation_size: Images for validation; the training set has the others.
        seed: Seed of the draws.
        download: Fetch files that are not there, 11 MB.

    Raises:
        ValueError: A setting is out of range, or a file is damaged.
        FileNotFoundError: There are no such files, when they are first needed.

    Source: Salakhutdinov, Murray, *On the quantitative analysis of deep belief networks* (ICML
    2008); drawn anew in every epoch as by Burda, Grosse, Salakhutdinov, arXiv:1509.00519.

    Example:
        >>> BinarizedMNIST(path="data/mnist").frame_shape
        (1, 28, 28)
    """

    name = "binarized_mnist"
    unit = "image"

    def __init__(
        self,
        *,
        path: str | None = None,
        validation_size: int = 0,
        seed: int = 0,
        download: bool = False,
    ) -> None:
        check_minimum(validation_size=(validation_size, 0), seed=(seed, 0))
        self.path, self.download = path, download
        self.validation_size, self.seed = validation_size, seed

    @property
    def frame_shape(self) -> tuple[int, ...]:
        """Shape of an image, (C, H, W)."""
        return (1, 28, 28)

    @property
    def dequantization(self) -> DequantizationName:
        """``"binary"``: such pixels have probabilities, not densities."""
        return "binary"

    @property
    def num_frames(self) -> int:
        """Always 1: an image is a sequence of one frame."""
        return 1

    def dataset(self, split: Split, *, num_frames: int = 1) -> "SequenceDataset":
        """Images of one split; see :meth:`SequenceSource.dataset`.

        Raises:
            FileNotFoundError: There are no such files.
            ValueError: A file is damaged, the split is empty, or ``num_frames`` is not 1.
        """
        from pyro_afslvm.data.sequences import StoredSequences

        check_request(split, num_frames)
        if num_frames != 1:
            raise ValueError(f"{self.name} holds single images: num_frames is 1, got {num_frames}")
        digits = self._digits(split)
        fixed = split != "train"
        return StoredSequences(
            partial(_fixed if fixed else _grey, digits=digits, seed=self.seed, split=split),
            lengths=[1] * len(digits),
            num_frames=1,
            seed=self.seed,
            split=split,
            crop=None if fixed else _drawn,
        )

    def describe(self) -> dict[str, object]:
        """Settings as JSON values; files by their names, not by where they lie."""
        return {
            "name": self.name,
            "files": sorted(self._files()),
            "validation_size": self.validation_size,
            "seed": self.seed,
        }

    def _files(self) -> dict[str, Path]:
        return locate(self.path, kind="generated", download=self.download)

    def _digits(self, split: Split) -> Images:
        """The split's grey images, (N, 28, 28)."""
        files = self._files()
        if len(files) == 2:
            rest, test = (_read(files[name]) for name in (IDX_TRAIN, IDX_TEST))
        else:
            (path,) = files.values()
            images = _read(path)
            rest, test = _split(images, len(images) // 10)
        if self.validation_size >= len(rest):
            raise ValueError(
                f"validation_size is {self.validation_size}, but there are {len(rest)} images for "
                "training and validation"
            )
        train, validation = _split(rest, self.validation_size)
        return {"train": train, "validation": validation, "test": test}[split]


def _read(path: Path) -> Images:
    images = read_idx_images(path)
    if images.shape[1:] != (28, 28) or len(images) < 20:
        raise ValueError(f"{path}: expected at least 20 images of 28x28, got {images.shape}")
    return images


def _split(images: Images, last: int) -> tuple[Images, Images]:
    border = len(images) - last
    return images[:border], images[border:]


def _grey(i: int, start: int, stop: int, *, digits: Images, **_: object) -> Images:
    return digits[i, None, None]  # (1, 1, 28, 28)


def _drawn(images: NDArray[Any], rng: np.random.Generator | None) -> NDArray[np.float32]:
    """Draw pixels 0 and 1, with the grey values as probabilities of a 1."""
    assert rng is not None  # there are random numbers for every training index
    return (255 * rng.random(images.shape, dtype=np.float32) < images).astype(np.float32)


def _fixed(
    i: int, start: int, stop: int, *, digits: Images, seed: int, split: Split
) -> NDArray[np.float32]:
    from pyro_afslvm.data.sequences import generator

    return _drawn(digits[i, None, None], generator(seed, split, i))
