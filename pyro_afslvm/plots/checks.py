"""Checks of what is drawn."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from pyro_afslvm.plots.style import Array


def first_of(rows: Mapping[str, Any]) -> Any:
    """Give the first value.

    Raises:
        ValueError: there is none.
    """
    if not rows:
        raise ValueError("nothing to draw: expected at least one row, got none")
    return next(iter(rows.values()))


def as_frames(name: str, frames: npt.ArrayLike, length: int | None = None) -> Array:
    """Give frames ``(T, 1 or 3, H, W)`` in float64.

    Raises:
        ValueError: they are of another rank, or of another length.
    """
    array = np.asarray(frames, dtype=np.float64)
    if array.ndim != 4 or array.shape[1] not in (1, 3) or not array.size:
        raise ValueError(f"{name}: expected frames (T, 1 or 3, H, W), got {array.shape}")
    if length is not None and len(array) != length:
        raise ValueError(f"{name}: expected {length} frames, got {len(array)}")
    return array


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
