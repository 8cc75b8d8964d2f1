"""Resizing of square pictures."""

import numpy as np
from numpy.typing import NDArray

from pyro_afslvm.data.datasets.bouncing import Images


def area_weights(old: int, new: int) -> NDArray[np.float64]:  # -> (new, old)
    """Weights of area averaging along one axis: each new pixel is the mean of what it covers.

    Example:
        >>> area_weights(4, 2).tolist()
        [[0.5, 0.5, 0.0, 0.0], [0.0, 0.0, 0.5, 0.5]]
    """
    edges = np.arange(new + 1) * (old / new)
    pixel = np.arange(old)
    covered = np.minimum(edges[1:, None], pixel + 1) - np.maximum(edges[:-1, None], pixel)
    weights: NDArray[np.float64] = np.maximum(covered, 0.0) * (new / old)
    return weights


def cubic_weights(old: int, new: int) -> NDArray[np.float64]:  # -> (new, old)
    """Weights of Catmull-Rom interpolation along one axis, black beyond the border.

    Example:
        >>> cubic_weights(3, 3).tolist()
        [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]]
    """
    centres = (np.arange(new) + 0.5) * (old / new) - 0.5
    d = np.abs(centres[:, None] - np.arange(old))
    near = 1.5 * d**3 - 2.5 * d**2 + 1.0
    far = -0.5 * d**3 + 2.5 * d**2 - 4.0 * d + 2.0
    return np.where(d < 1.0, near, np.where(d < 2.0, far, 0.0))


def resize(images: NDArray[np.uint8], weights: NDArray[np.float64]) -> Images:
    """Resize square images (*B, old, old) by the same weights (new, old) along both axes.

    Example:
        >>> resize(np.full((1, 4, 4), 7, dtype=np.uint8), area_weights(4, 2)).tolist()
        [[[7, 7], [7, 7]]]
    """
    w = weights.astype(np.float32)
    new: Images = np.clip(np.rint(w @ images.astype(np.float32) @ w.T), 0, 255).astype(np.uint8)
    return new
