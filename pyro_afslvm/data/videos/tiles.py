"""Many windows of one film: its frames cut into squares, each a sequence of its own."""

import numpy as np

from pyro_afslvm.data.splits import SPLITS, Split
from pyro_afslvm.data.videos.prepared import Part


def tiles(parts: list[Part], size: int, *, are_units: bool) -> list[Part]:
    """Cut the frames of each part into squares that do not overlap, around the centre.

    Args:
        parts: Sequences of whole frames.
        size: Height and width of a square in pixels.
        are_units: Whether error bars count each square, or the part that it is of.

    Returns:
        The squares of each part, row by row.
    """
    found: list[Part] = []
    for k, part in enumerate(parts):
        height, width = part.frames.shape[-2:]
        rows, columns = height // size, width // size
        top, left = (height - rows * size) // 2, (width - columns * size) // 2
        for i in range(rows * columns):
            row, column = divmod(i, columns)
            corner = (top + row * size, left + column * size)
            found.append(part._replace(unit=len(found) if are_units else k, corner=corner))
    return found


def share(count: int, split: Split, parts: tuple[float, float], seed: int) -> set[int]:
    """Draw which of so many things are in a split, one at least where it has a part.

    Args:
        count: Number of things.
        split: Which split.
        parts: Share of the things for validation, and for test.
        seed: Seed of the draw.

    Returns:
        Their numbers, from 0 on.

    Example:
        >>> [len(share(10, split, (0.1, 0.2), seed=0)) for split in ("train", "validation", "test")]
        [7, 1, 2]
    """
    held = [_rounded(part, count) for part in parts]
    held[0] = min(held[0], max(count - 1 - held[1], 0))  # one is for training
    sizes = {"train": count - sum(held), "validation": held[0], "test": held[1]}
    order = np.random.default_rng(seed).permutation(count)
    first = sum(sizes[s] for s in SPLITS[: SPLITS.index(split)])
    return set(order[first : first + sizes[split]].tolist())


def _rounded(part: float, count: int) -> int:
    if not part or count < 2:
        return 0
    return min(max(1, round(part * count)), count - 1)
