"""Bouncing pictures: the motion of Moving MNIST."""

import math

import numpy as np
from numpy.typing import NDArray

Images = NDArray[np.uint8]


def bounce(
    rng: np.random.Generator, *, num_steps: int, num_objects: int, limit: int, step: float = 0.1
) -> NDArray[np.int64]:  # -> (T, K, 2)
    r"""Draw positions of objects that move straight and bounce off the borders.

    .. math:: p_t = \mathrm{clip}(p_{t-1} + s v_{t-1}, 0, 1), \qquad
        v_t = -v_{t-1} \text{ at a border, else } v_{t-1}

    per coordinate, with :math:`p_0` uniform in the unit square and :math:`v_0` a uniform
    direction; :math:`\lfloor` limit :math:`p_t \rfloor` is returned for t = 1..T.

    Args:
        rng: Source of the starting positions and directions.
        num_steps: Number of positions T.
        num_objects: Number of objects K.
        limit: Free range in pixels: canvas size less object size.
        step: Length of a step in units of the free range.

    Returns:
        (row, column) of the upper left corners, integers in 0..limit.

    Source: Srivastava, Mansimov, Salakhutdinov, *Unsupervised Learning of Video
    Representations using LSTMs*, arXiv:1502.04681.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> bounce(rng, num_steps=5, num_objects=2, limit=36).shape
        (5, 2, 2)
    """
    start = rng.random((num_objects, 2))
    angle = rng.random(num_objects) * 2 * math.pi
    velocity = step * np.stack([np.sin(angle), np.cos(angle)], axis=-1)
    paths = [
        _reflected(p, v, num_steps)
        for p, v in zip(start.ravel().tolist(), velocity.ravel().tolist(), strict=True)
    ]
    return (limit * np.array(paths).T).astype(np.int64).reshape(num_steps, num_objects, 2)


def _reflected(position: float, velocity: float, num_steps: int) -> list[float]:
    # Plain floats: five times faster than numpy for a handful of objects.
    path = []
    for _ in range(num_steps):
        position += velocity
        if position <= 0.0 or position >= 1.0:
            position, velocity = min(max(position, 0.0), 1.0), -velocity
        path.append(position)
    return path


def moving_pictures(
    rng: np.random.Generator,
    pictures: Images,
    *,
    size: int,
    num_objects: int,
    num_frames: int,
    step: float = 0.1,
) -> Images:  # (N, D, D) -> (T, H, W)
    """Move random pictures over a black square canvas, pixelwise maximum where they overlap.

    Args:
        rng: Source of the choice of pictures and of :func:`bounce`.
        pictures: Square pictures to choose from, (N, D, D).
        size: Height and width of the canvas, at least D.
        num_objects: Pictures in a sequence, drawn with replacement.
        num_frames: Number of frames T.
        step: Step in units of the free range.

    Example:
        >>> square = np.full((1, 8, 8), 255, dtype=np.uint8)
        >>> frames = moving_pictures(
        ...     np.random.default_rng(0), square, size=32, num_objects=1, num_frames=3
        ... )
        >>> (frames == 255).sum(axis=(1, 2)).tolist()
        [64, 64, 64]
    """
    side = pictures.shape[-1]
    chosen = pictures[rng.integers(len(pictures), size=num_objects)]
    corners = bounce(
        rng, num_steps=num_frames, num_objects=num_objects, limit=size - side, step=step
    )
    canvas = np.zeros((num_frames, size, size), dtype=np.uint8)
    for frame, places in zip(canvas, corners.tolist(), strict=True):
        for picture, (row, column) in zip(chosen, places, strict=True):
            under = frame[row : row + side, column : column + side]
            np.maximum(under, picture, out=under)
    return canvas
