"""Binarized MNIST: its splits, its draws, and damaged or missing files."""

import gzip
import os
import struct
from pathlib import Path

import numpy as np
import pytest
import torch

from pyro_afslvm.data import BinarizedMNIST, EmptySplitError, source_from_config
from pyro_afslvm.data.fetch import IDX_TEST, IDX_TRAIN

SPLITS = ("train", "validation", "test")


def idx_bytes(images: np.ndarray) -> bytes:
    header = bytes([0, 0, 8, images.ndim])
    return header + struct.pack(f">{images.ndim}I", *images.shape) + images.tobytes()


def grey(count: int, first: int = 0) -> np.ndarray:
    """Images of which the top row says, in black and white, which one it is; the rest is grey."""
    images = np.full((count, 28, 28), 51, dtype=np.uint8)  # a fifth of white
    images[:, 0] = [[255 * (n >> b & 1) for b in range(28)] for n in range(first, first + count)]
    return images


def numbers(source: BinarizedMNIST, split: str) -> list[int]:
    data = source.dataset(split, num_frames=1)
    return [sum(int(bit) << b for b, bit in enumerate(x[0, 0, 0])) for x in data]


@pytest.fixture
def both(tmp_path: Path) -> str:
    (tmp_path / IDX_TRAIN).write_bytes(idx_bytes(grey(60)))
    (tmp_path / f"{IDX_TEST}.gz").write_bytes(gzip.compress(idx_bytes(grey(30, first=60))))
    return str(tmp_path)


@pytest.fixture
def one(tmp_path: Path) -> str:
    folder = tmp_path / "one"
    folder.mkdir()
    (folder / IDX_TEST).write_bytes(idx_bytes(grey(30)))
    return str(folder)


def test_splits_of_both_files(both: str) -> None:
    source = BinarizedMNIST(path=both, validation_size=10)
    assert numbers(source, "train") == list(range(50))
    assert numbers(source, "validation") == list(range(50, 60))
    assert numbers(source, "test") == list(range(60, 90))


def test_splits_of_one_file(one: str) -> None:
    source = BinarizedMNIST(path=one)
    assert numbers(source, "train") == list(range(27))
    assert numbers(source, "test") == list(range(27, 30))
    assert numbers(BinarizedMNIST(path=f"{one}/{IDX_TEST}"), "test") == [27, 28, 29]
    with pytest.raises(EmptySplitError):
        source.dataset("validation", num_frames=1)


def test_an_image_is_a_sequence_of_one_binary_frame(both: str) -> None:
    source = BinarizedMNIST(path=both)
    x = source.dataset("train", num_frames=1)[0]
    assert (x.shape, x.dtype) == ((1, 1, 28, 28), torch.float32)
    assert x.shape[1:] == source.frame_shape
    assert set(x.unique().tolist()) == {0.0, 1.0}


def test_training_images_are_drawn_afresh_in_every_epoch(both: str) -> None:
    data = BinarizedMNIST(path=both).dataset("train", num_frames=1)
    again = BinarizedMNIST(path=both).dataset("train", num_frames=1)
    epochs = [data[7 + epoch * len(data)] for epoch in range(3)]
    assert torch.equal(epochs[0][0, 0, 0], epochs[1][0, 0, 0])  # black and white stay
    assert len({x.numpy().tobytes() for x in epochs}) == 3
    assert torch.equal(again[7 + 2 * len(data)], epochs[2])  # whatever was drawn before
    other = BinarizedMNIST(path=both, seed=1).dataset("train", num_frames=1)
    assert not torch.equal(other[7], epochs[0])


@pytest.mark.parametrize("split", ["validation", "test"])
def test_test_images_are_drawn_once(both: str, split: str) -> None:
    data = BinarizedMNIST(path=both, validation_size=10).dataset(split, num_frames=1)
    again = BinarizedMNIST(path=both, validation_size=10).dataset(split, num_frames=1)
    assert torch.equal(data[3], data[3 + 5 * len(data)])
    assert torch.equal(data[3], again[3])
    assert not torch.equal(data[3][..., 1:, :], data[4][..., 1:, :])
    other = BinarizedMNIST(path=both, validation_size=10, seed=1).dataset(split, num_frames=1)
    assert not torch.equal(data[3], other[3])


def test_grey_values_are_probabilities(both: str) -> None:
    data = BinarizedMNIST(path=both).dataset("train", num_frames=1)
    drawn = torch.stack([data[k] for k in range(600)])[..., 1:, :]  # rows of a fifth of white
    error = (0.2 * 0.8 / drawn.numel()) ** 0.5
    assert abs(drawn.mean().item() - 0.2) < 5 * error
    assert (drawn.mean(0) - 0.2).abs().max() < 6 * (0.16 / 600) ** 0.5


def test_it_is_made_again_from_its_config_and_names_no_folder(both: str) -> None:
    source = BinarizedMNIST(path=both, seed=3)
    made = source_from_config(source.config())
    assert made.describe() == source.describe()
    assert both not in str(source.describe())


def test_the_real_digits() -> None:
    default = Path(__file__).parents[4] / "shared/data/mnist"
    folder = Path(os.environ.get("AFSLVM_TEST_DATA", default))
    if not list(folder.glob(f"{IDX_TEST}*")):
        pytest.skip(f"no MNIST at {folder}: set AFSLVM_TEST_DATA to a folder with {IDX_TEST}.gz")
    source = BinarizedMNIST(path=str(folder))
    if list(folder.glob(f"{IDX_TRAIN}*")):
        pytest.skip("both files are there")
    assert [len(source.dataset(s, num_frames=1)) for s in ("train", "test")] == [9000, 1000]
    ink = torch.stack(list(source.dataset("test", num_frames=1))).mean()
    assert 0.1 < ink < 0.16


# what a user may get wrong --------------------------------------------------------------


def test_what_is_refused(both: str, one: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="seed must be an integer of at least 0, got -1"):
        BinarizedMNIST(seed=-1)
    with pytest.raises(ValueError, match="single images: num_frames is 1, got 2"):
        BinarizedMNIST(path=both).dataset("train", num_frames=2)
    with pytest.raises(ValueError, match="validation_size is 60, but there are 60 images for"):
        BinarizedMNIST(path=both, validation_size=60).dataset("train", num_frames=1)
    with pytest.raises(ValueError, match="unknown split 'dev'"):
        BinarizedMNIST(path=both).dataset("dev", num_frames=1)  # type: ignore[arg-type]
    with pytest.raises(FileNotFoundError, match=r"looked for train-images.* give path=FOLDER"):
        BinarizedMNIST(path=str(tmp_path / "none")).dataset("train", num_frames=1)
    file = Path(one) / IDX_TEST
    for content, message in (
        (file.read_bytes()[:500], "truncated or damaged"),
        (b"no", "expected an idx file"),
        (idx_bytes(np.zeros((30, 8, 8), np.uint8)), "expected at least 20 images of 28x28"),
        (idx_bytes(grey(3)), "expected at least 20 images of 28x28"),
    ):
        file.write_bytes(content)
        with pytest.raises(ValueError, match=message) as error:
            BinarizedMNIST(path=one).dataset("train", num_frames=1)
        assert IDX_TEST in str(error.value)
        assert "\n" not in str(error.value)
