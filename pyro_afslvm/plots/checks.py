"""Checks of what is drawn."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from pyro_afslvm.plots.style import Array

_CHANNELS = 6  # that are shown of a picture with other than one or three


def first_of(rows: Mapping[str, Any]) -> Any:
    """Give the first value.

    Raises:
        ValueError: there is none.
    """
    if not rows:
        raise ValueError("nothing to draw: expected at least one row, got none")
    return next(iter(rows.values()))


def as_frames(name: str, frames: npt.ArrayLike, length: int | None = None) -> Array:
    """Give frames ``(T, 1 or 3, H, W)`` in float64; other channels lie below one another.

    The first six of them do, with a line of NaN between, which is drawn white.

    Raises:
        ValueError: they are of another rank, or of another length.
    """
    array = np.asarray(frames, dtype=np.float64)
    if array.ndim != 4 or not array.size:
        raise ValueError(f"{name}: expected frames (T, C, H, W), got {array.shape}")
    if length is not None and len(array) != length:
        raise ValueError(f"{name}: expected {length} frames, got {len(array)}")
    if array.shape[1] in (1, 3):
        return array
    apart = np.pad(array[:, :_CHANNELS], ((0, 0), (0, 0), (0, 1), (0, 0)), constant_values=np.nan)
    below = apart.reshape(len(array), 1, -1, array.shape[3])
    return below[:, :, :-1]


def blank_after(frames: npt.ArrayLike, length: int, *, axis: int) -> Array:
    """Extend frames by NaN, which is drawn white, to so many along the axis of time."""
    array = np.asarray(frames, dtype=np.float64)
    missing = [(0, 0)] * array.ndim
    missing[axis] = (0, max(length - array.shape[axis], 0))
    return np.pad(array, missing, constant_values=np.nan)


def as_vectors(name: str, values: npt.ArrayLike, shape: tuple[int, ...] | None = None) -> Array:
    """Give vectors ``(T, D)`` in float64.

    Raises:
        ValueError: they are of another rank, or of another shape.
    """
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 2 or not array.size:
        raise ValueError(f"{name}: expected vectors (T, D), got {array.shape}")
    if shape is not None and array.shape != shape:
        raise ValueError(f"{name}: expected vectors {shape}, got {array.shape}")
    return array


def as_line(name: str, values: npt.ArrayLike, length: int) -> Array:
    """Give so many values in float64.

    Raises:
        ValueError: there are more or fewer.
    """
    array = np.asarray(values, dtype=np.float64)
    if array.shape != (length,):
        raise ValueError(f"{name}: expected {length} values, got {array.shape}")
    return array
