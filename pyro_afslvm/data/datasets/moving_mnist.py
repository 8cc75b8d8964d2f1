"""Moving MNIST: the public file, or sequences generated from MNIST's digits."""

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from pyro_afslvm.data.datasets.bouncing import moving_pictures
from pyro_afslvm.data.datasets.mnist_files import open_sequences, read_idx_images
from pyro_afslvm.data.datasets.resize import area_weights, resize
from pyro_afslvm.data.fetch import IDX_TEST, IDX_TRAIN, PUBLIC, Kind, locate
from pyro_afslvm.data.source import SequenceSource
from pyro_afslvm.data.splits import Split, check_request
from pyro_afslvm.utils.checks import check_minimum

if TYPE_CHECKING:
    from pyro_afslvm.data.sequences import SequenceDataset

Pixels = NDArray[np.uint8]

_SIDE, _CANVAS = 28, 64
_GENERATED_SIZES = {"train": 10000, "validation": 200, "test": 1000}


class MovingMNIST(SequenceSource):
    """Two handwritten digits that move and bounce over black.

    ``kind="public"``: the file ``mnist_test_seq.npy`` of shape (20, 10000, 64, 64); its
    first nine tenths are for training, of which the last ``validation_size`` are for
    validation, and its last tenth is for test.

    ``kind="generated"``: MNIST digits in idx files moved by :func:`bounce`, a step of 0.1
    of the free range per frame, pixelwise maximum where they overlap. With both files, the
    digits of ``t10k-images`` are for test; with one, its last tenth. The last tenth of what
    remains is for validation. No digit image is in two splits.

    Args:
        path: The file itself, or the folder that holds it; ``None`` for this package's
            download cache.
        kind: ``"public"`` or ``"generated"``; ``None`` for what is found in ``path``, and
            ``"generated"`` for a download.
        size: Height and width of a frame in pixels; below 64 the picture is the same at
            lower resolution, by area averaging.
        num_digits: Digits in a generated sequence.
        seed: Seed of generated sequences and of random crops in time.
        train_size: Sequences per training epoch; ``None`` for 10,000 generated or all
            stored.
        validation_size: Sequences for validation; ``None`` for 200 generated or 0 stored.
        test_size: Sequences for test; ``None`` for 1,000 generated or all stored.
        download: Fetch files that are not there: 11 MB of digits, or 819 MB of sequences.

    Raises:
        ValueError: A setting is out of range, or a file is damaged.
        FileNotFoundError: There are no such files, when they are first needed.

    Source: Srivastava, Mansimov, Salakhutdinov, *Unsupervised Learning of Video
    Representations using LSTMs*, arXiv:1502.04681.

    Example:
        >>> MovingMNIST(path="data/mnist").frame_shape
        (1, 64, 64)
    """

    name = "moving_mnist"

    def __init__(
        self,
        *,
        path: str | None = None,
        kind: Kind | None = None,
        size: int = 64,
        num_digits: int = 2,
        seed: int = 0,
        train_size: int | None = None,
        validation_size: int | None = None,
        test_size: int | None = None,
        download: bool = False,
    ) -> None:
        check_minimum(size=(size, 16), num_digits=(num_digits, 1), seed=(seed, 0))
        if kind not in (None, "public", "generated"):
            raise ValueError(f"kind must be 'public', 'generated' or None, got {kind!r}")
        self._sizes = {"train": train_size, "validation": validation_size, "test": test_size}
        for split, asked in self._sizes.items():
            if asked is not None:
                check_minimum(**{f"{split}_size": (asked, 0)})
        self.path, self.kind, self.download = path, kind, download
        self.size, self.num_digits, self.seed = size, num_digits, seed

    @property
    def frame_shape(self) -> tuple[int, ...]:
        """Shape of one frame, (C, H, W)."""
        return (1, self.size, self.size)

    def dataset(self, split: Split, *, num_frames: int) -> "SequenceDataset":
        """Sequences of one split; see :meth:`SequenceSource.dataset`.

        Raises:
            FileNotFoundError: There are no such files.
            ValueError: A file is damaged, or the split is empty or too short.
        """
        check_request(split, num_frames)
        files = self._files()
        if PUBLIC in files:
            return self._stored(files[PUBLIC], split, num_frames)
        return self._generated(files, split, num_frames)

    def describe(self) -> dict[str, object]:
        """Settings as JSON values; files by their names, not by where they lie."""
        files = sorted(self._files())
        public = PUBLIC in files
        sizes = self._sizes if public else self._generated_sizes()
        return {
            "name": self.name,
            "kind": "public" if public else "generated",
            "files": files,
            "size": self.size,
            "num_digits": 2 if public else self.num_digits,
            "seed": self.seed,
            **{f"{split}_size": size for split, size in sizes.items()},
        }

    def _files(self) -> dict[str, Path]:
        return locate(self.path, kind=self.kind, download=self.download)

    def _stored(self, path: Path, split: Split, num_frames: int) -> "SequenceDataset":
        from pyro_afslvm.data.sequences import StoredSequences

        stored_frames, count = open_sequences(path).shape[:2]
        first, size = _stored_part(split, count, self._sizes)
        return StoredSequences(
            partial(_load, path=path, first=first, size=self.size),
            lengths=[stored_frames] * size,
            num_frames=num_frames,
            seed=self.seed,
            split=split,
            max_windows=1,
            where=str(path),
        )

    def _generated(
        self, files: dict[str, Path], split: Split, num_frames: int
    ) -> "SequenceDataset":
        from pyro_afslvm.data.sequences import GeneratedSequences

        draw = partial(
            _draw,
            digits=mnist_digits(files, split, _SIDE * self.size // _CANVAS),
            size=self.size,
            num_objects=self.num_digits,
            num_frames=num_frames,
        )
        size = self._generated_sizes()[split]
        return GeneratedSequences(draw, size=size, seed=self.seed, split=split)

    def _generated_sizes(self) -> dict[str, int]:
        return {
            split: _GENERATED_SIZES[split] if asked is None else asked
            for split, asked in self._sizes.items()
        }


def mnist_digits(files: dict[str, Path], split: Split, digit_size: int) -> Pixels:
    """Read the digit images of a split, (N, D, D), from one or both idx files.

    Raises:
        ValueError: A file is damaged, or holds something else than 28x28 images.
    """
    if len(files) == 2:
        digits = _read_digits(files[IDX_TEST if split == "test" else IDX_TRAIN])
        rest = digits
    else:
        (path,) = files.values()
        digits = _read_digits(path)
        rest = digits[: len(digits) - len(digits) // 10]
        digits = digits[len(rest) :]
    if split != "test":
        border = len(rest) - len(rest) // 10
        digits = rest[:border] if split == "train" else rest[border:]
    return digits if digit_size == _SIDE else resize(digits, area_weights(_SIDE, digit_size))


def _read_digits(path: Path) -> Pixels:
    digits = read_idx_images(path)
    if digits.shape[1:] != (_SIDE, _SIDE) or len(digits) < 20:
        raise ValueError(f"{path}: expected at least 20 images of 28x28, got {digits.shape}")
    return digits


def _draw(
    rng: np.random.Generator, *, digits: Pixels, size: int, num_objects: int, num_frames: int
) -> Pixels:  # -> (T, 1, H, W)
    frames = moving_pictures(rng, digits, size=size, num_objects=num_objects, num_frames=num_frames)
    return frames[:, None]


def _load(i: int, start: int, stop: int, *, path: Path, first: int, size: int) -> Pixels:
    # Mapped anew each time: nothing to share between workers, and cheap.
    frames = np.array(open_sequences(path)[start:stop, first + i, None])
    return frames if size == _CANVAS else resize(frames, area_weights(_CANVAS, size))


def _stored_part(split: Split, count: int, sizes: dict[str, int | None]) -> tuple[int, int]:
    """Find a split in the public file: its first sequence, and how many it has."""
    held_out = sizes["validation"] or 0
    border = count - count // 10
    there = {"train": border - held_out, "validation": held_out, "test": count // 10}
    first = {"train": 0, "validation": border - held_out, "test": border}[split]
    asked = there[split] if sizes[split] is None else sizes[split]
    if asked is None or there["train"] < 0 or asked > there[split]:
        raise ValueError(
            f"{split}_size is {asked} with {held_out} sequences for validation, but the file "
            f"holds {border} for training and validation and {count // 10} for test"
        )
    return first, asked
