"""The splits of a data set, and the errors of those that hold nothing."""

from typing import Literal

Split = Literal["train", "validation", "test"]
SPLITS: tuple[Split, ...] = ("train", "validation", "test")


class EmptySplitError(ValueError):
    """A split holds no sequences."""


class ShortSplitError(ValueError):
    """All sequences of a split are shorter than was asked for."""


def check_request(split: str, num_frames: int) -> None:
    """Check the arguments of :meth:`SequenceSource.dataset`.

    Raises:
        ValueError: The split is unknown or ``num_frames`` is not positive.

    Example:
        >>> check_request("dev", 13)
        Traceback (most recent call last):
        ValueError: unknown split 'dev': expected 'train', 'validation' or 'test'
    """
    if split not in SPLITS:
        raise ValueError(f"unknown split {split!r}: expected 'train', 'validation' or 'test'")
    if num_frames < 1:
        raise ValueError(f"num_frames must be at least 1, got {num_frames}")
