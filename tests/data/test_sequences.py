"""Sequences of a store, cropped in time."""

from typing import Any

import numpy as np
import pytest
import torch

from pyro_afslvm.data import (
    EmptySplitError,
    GeneratedSequences,
    ShortSplitError,
    StoredSequences,
)

LENGTHS = [10, 3, 7, 4]


def where(i: int, first: int, last: int) -> np.ndarray:
    """Frames that say which they are: (sequence, frame)."""
    assert 0 <= first < last <= LENGTHS[i]
    return np.array([[i, t] for t in range(first, last)], dtype=np.uint8)


def sequences(split: Any, num_frames: int = 4, **options: Any) -> StoredSequences:
    return StoredSequences(
        where, lengths=LENGTHS, num_frames=num_frames, seed=3, split=split, **options
    )


@pytest.mark.parametrize("split", ["validation", "test"])
def test_windows_of_validation_and_test(split: Any) -> None:
    data = sequences(split)
    assert [x[0].tolist() for x in data] == [[0, 0], [0, 4], [2, 0], [3, 0]]
    assert torch.equal(data[1], data[1 + 5 * len(data)])
    assert len(sequences(split, num_frames=3)) == 3 + 1 + 2 + 1


def test_training_windows_start_anywhere_in_their_sequence() -> None:
    data = sequences("train")
    assert len(data) == 4
    starts: dict[int, set[int]] = {0: set(), 2: set(), 3: set()}
    for k in range(4 * 60):
        x = data[k]
        i, first = x[0].tolist()
        assert i == [0, 0, 2, 3][k % 4]
        assert x.tolist() == [[i, first + t] for t in range(4)]
        starts[i].add(first)
    assert starts == {0: set(range(7)), 2: set(range(4)), 3: {0}}
    assert torch.equal(sequences("train")[77], data[77])


def test_lengths_are_those_of_the_store() -> None:
    data = sequences("test")
    assert data.lengths.tolist() == [10, 3, 7, 4]
    data.lengths[:] = 0
    assert data.lengths.tolist() == [10, 3, 7, 4]


def test_at_most_so_many_windows() -> None:
    assert [x[0].tolist() for x in sequences("test", max_windows=1)] == [[0, 0], [2, 0], [3, 0]]


def test_sequences_that_are_all_too_short() -> None:
    for split in ("train", "test"):
        with pytest.raises(ShortSplitError, match=r"num_frames is 11, but .* have 10 frames"):
            sequences(split, num_frames=11)
    with pytest.raises(EmptySplitError, match="the test split is empty"):
        StoredSequences(where, lengths=[], num_frames=2, seed=0, split="test")


def test_crop_gets_random_numbers_in_training_only() -> None:
    def crop(frames: Any, rng: Any) -> Any:
        return frames if rng is None else np.full_like(frames, rng.integers(100))

    assert sequences("test", crop=crop)[1][0].tolist() == [0, 4]
    train = sequences("train", crop=crop)
    values = [int(train[k][0, 0]) for k in range(20)]
    assert len(set(values)) > 5
    assert values == [int(train[k][0, 0]) for k in range(20)]


def test_float_vectors() -> None:
    stored = np.random.default_rng(0).normal(size=(9, 2)).astype(np.float32)
    data = StoredSequences(
        lambda i, a, b: stored[a:b].copy(), lengths=[9], num_frames=4, seed=0, split="test"
    )
    assert data[1].dtype == torch.float32
    assert torch.equal(data[1], torch.from_numpy(stored[4:8]))


def test_windows_say_which_sequence_and_unit_they_are_of() -> None:
    data = sequences("test")
    assert data.sequences.tolist() == data.units.tolist() == [0, 0, 2, 3]
    shared = sequences("test", units=[7, 7, 7, 5])
    assert shared.sequences.tolist() == [0, 0, 2, 3]
    assert shared.units.tolist() == [7, 7, 7, 5]
    longer = sequences("test", num_frames=7, units=[7, 7, 7, 5])
    assert longer.units.tolist() == [7, 7]  # the same numbers for crops of any length


def test_one_window_or_all_is_named() -> None:
    assert sequences("test").windows == "all"
    assert sequences("test", max_windows=1).windows == "one"


def test_generated_sequences_are_units_by_themselves() -> None:
    def draw(rng: np.random.Generator) -> np.ndarray:
        return rng.integers(256, size=(2, 1, 4, 4), dtype=np.uint8)

    data = GeneratedSequences(draw, size=3, seed=0, split="test")
    assert data.units.tolist() == data.sequences.tolist() == [0, 1, 2]
    assert data.windows == "one"
