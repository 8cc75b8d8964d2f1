"""Frames as coarse grids of patches, and back."""

from torch import Tensor
from torch.nn import functional

from pyro_afslvm.utils.checks import check_image


def grid_of(frame_shape: tuple[int, ...], patch: int) -> tuple[int, int]:
    """Rows and columns of the patches of a frame; the last of them may stick out.

    Raises:
        ValueError: if it is no frame ``(C, H, W)``, or for patches of no pixel.

    >>> grid_of((1, 30, 32), 4)
    (8, 8)
    """
    check_image(frame_shape)
    if patch < 1:
        raise ValueError(f"patch must be at least 1 pixel, got {patch}")
    _, height, width = frame_shape
    return -(-height // patch), -(-width // patch)


def to_patches(frames: Tensor, patch: int) -> Tensor:
    """Give ``(*batch, C, H, W)`` as ``(*batch, C * patch**2, rows, columns)``.

    What sticks out of the frame is zero.
    """
    down, right = -frames.shape[-2] % patch, -frames.shape[-1] % patch
    if down or right:
        frames = functional.pad(frames, (0, right, 0, down))
    return functional.pixel_unshuffle(frames, patch)


def from_patches(patches: Tensor, patch: int, size: tuple[int, int]) -> Tensor:
    """Give patches, or features in their place, as frames of ``(height, width)``.

    >>> import torch
    >>> frames = torch.rand(2, 3, 1, 5, 7)
    >>> torch.equal(from_patches(to_patches(frames, 4), 4, (5, 7)), frames)
    True
    """
    height, width = size
    return functional.pixel_shuffle(patches, patch)[..., :height, :width]
