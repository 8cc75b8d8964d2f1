"""Generated sequences: pure functions of (seed, split, index)."""

import hashlib
import pickle
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from pyro_afslvm.data import MovingDigits, MovingMNIST
from pyro_afslvm.data.fetch import IDX_TRAIN
from tests.support.processes import run_python

SPLITS = ("train", "validation", "test")


@pytest.fixture
def idx_folder(tmp_path: Path) -> Path:
    digits = np.random.default_rng(0).integers(1, 256, (40, 28, 28), dtype=np.uint8)
    header = bytes([0, 0, 8, 3]) + struct.pack(">3I", *digits.shape)
    (tmp_path / IDX_TRAIN).write_bytes(header + digits.tobytes())
    return tmp_path


def sources(idx: Path) -> list[Any]:
    return [
        MovingDigits(size=32, test_size=4),
        MovingDigits(size=32, background="photo", channels=3, test_size=4),
        MovingMNIST(path=str(idx), test_size=4),
    ]


def test_shapes_and_types(idx_folder: Path) -> None:
    for source in sources(idx_folder):
        for split in SPLITS:
            x = source.dataset(split, num_frames=5)[0]
            assert x.shape == (5, *source.frame_shape)
            assert x.dtype == torch.uint8
            assert x.max() > 0


def test_fresh_objects_give_the_same_sequences(idx_folder: Path) -> None:
    for one, other in zip(sources(idx_folder), sources(idx_folder), strict=True):
        for split in SPLITS:
            a, b = one.dataset(split, num_frames=4), other.dataset(split, num_frames=4)
            # In another order: nothing is remembered between draws.
            backwards = [b[k] for k in (9, 2, 0)][::-1]
            assert all(torch.equal(a[k], x) for k, x in zip((0, 2, 9), backwards, strict=True))


def test_training_is_fresh_each_epoch_and_test_repeats(idx_folder: Path) -> None:
    for source in sources(idx_folder):
        train = source.dataset("train", num_frames=4)
        assert not torch.equal(train[1], train[1 + len(train)])
        test = source.dataset("test", num_frames=4)
        assert len(test) == 4
        assert torch.equal(test[1], test[1 + 3 * len(test)])
        assert not torch.equal(test[1], test[2])


def test_seed_and_split_change_the_draws() -> None:
    one, other = (MovingDigits(seed=seed).dataset("train", num_frames=3)[0] for seed in (0, 1))
    assert not torch.equal(one, other)
    train, test = (MovingDigits().dataset(split, num_frames=3)[0] for split in ("train", "test"))
    assert not torch.equal(train > 0, test > 0)


def test_workers_give_what_the_main_process_gives() -> None:
    dataset = MovingDigits(size=32, background="photo", validation_size=6).dataset(
        "validation", num_frames=3
    )
    loaded = torch.cat(list(DataLoader(dataset, batch_size=2, num_workers=2, timeout=60)))
    assert torch.equal(loaded, torch.stack(list(dataset)))


def test_another_process_gives_the_same_sequence() -> None:
    code = (
        "import hashlib; from pyro_afslvm.data import MovingDigits\n"
        "x = MovingDigits(size=32).dataset('train', num_frames=3)[7].numpy()\n"
        "print(hashlib.sha256(x.tobytes()).hexdigest())"
    )
    x = MovingDigits(size=32).dataset("train", num_frames=3)[7].numpy()
    assert run_python("-c", code).stdout.strip() == hashlib.sha256(x.tobytes()).hexdigest()


def test_datasets_survive_pickling(idx_folder: Path) -> None:
    for source in sources(idx_folder):
        dataset = source.dataset("train", num_frames=3)
        assert torch.equal(pickle.loads(pickle.dumps(dataset))[5], dataset[5])


def test_indices() -> None:
    dataset = MovingDigits(size=32, test_size=3).dataset("test", num_frames=2)
    assert len(list(dataset)) == 3
    assert torch.equal(dataset[np.int64(2)], dataset[2])  # type: ignore[arg-type]
    with pytest.raises(IndexError, match="at least 0, got -1"):
        dataset[-1]
