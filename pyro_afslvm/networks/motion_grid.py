"""How a window of frames has moved, block by block."""

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from pyro_afslvm.networks.displacement import displacement_probabilities
from pyro_afslvm.networks.layers import without_autocast
from pyro_afslvm.networks.residual import ResidualBlock, near_zero

SEEN = 4.0  # probabilities of displacements, as the networks are shown them
SAME, NEXT = 5.0, 4.0  # first logits of the displacement before, and of those one pixel off


class MotionGrid(NamedTuple):
    """Sizes that all parts of a motion model share.

    A frame is cut into blocks, each of which moves as a whole, and two by two blocks share a
    latent vector.

    Attributes:
        frame_shape: ``(C, H, W)``, height and width multiples of twice ``block``.
        window: frames that are looked back at, at least three.
        reach: largest displacement of a frame, in pixels.
        block: height and width of a block.
        latents: latents of two by two blocks; 0 for none.
        hidden: channels of the coarse layers.
    """

    frame_shape: tuple[int, ...]
    window: int = 3
    reach: int = 4
    block: int = 4
    latents: int = 8
    hidden: int = 48

    @property
    def ways(self) -> int:
        """Number of displacements."""
        return int((2 * self.reach + 1) ** 2)

    @property
    def blocks(self) -> tuple[int, int]:
        """Rows and columns of blocks."""
        _, height, width = self.frame_shape
        return height // self.block, width // self.block

    @property
    def latent_size(self) -> int:
        """Size of a latent vector z_t."""
        rows, columns = self.blocks
        return self.latents * (rows // 2) * (columns // 2)

    def check(self) -> None:
        """Refuse sizes that do not go together.

        Raises:
            ValueError: if they do not.
        """
        channels, height, width = self.frame_shape
        if height % (2 * self.block) or width % (2 * self.block):
            raise ValueError(
                f"expected frames of a multiple of {2 * self.block} pixels, got {height}×{width}"
            )
        if self.window < 3:
            raise ValueError(f"two displacements need a window of 3 frames, got {self.window}")
        if min(channels, self.reach, self.hidden) < 1 or self.latents < 0:
            raise ValueError(f"expected sizes of at least 1, got {self}")


class MotionPast(NamedTuple):
    """What the past says, block by block: the summary of a :class:`MotionSummary`.

    Gradients go to the networks, and none to the frames of the past.
    """

    frames: Tensor  # the window, (N, W * C, H, W)
    hidden: Tensor  # features, (N, hidden, rows, columns)
    before: Tensor  # probabilities of the displacements of the last frame, (N, ways, ...)
    logits: Tensor  # of the displacements to come, (N, ways, ...)

    def packed(self) -> Tensor:
        """Put them side by side: ``(N, features)``."""
        return torch.cat([part.flatten(1).to(self.frames) for part in self], 1)

    @classmethod
    def unpacked(cls, summary: Tensor, grid: MotionGrid) -> "MotionPast":
        """Take a summary ``(N, features)`` of this grid apart."""
        channels, height, width = grid.frame_shape
        shapes = (
            (grid.window * channels, height, width),
            (grid.hidden, *grid.blocks),
            (grid.ways, *grid.blocks),
            (grid.ways, *grid.blocks),
        )
        parts = summary.split([math.prod(shape) for shape in shapes], 1)
        frames, hidden, before, logits = (
            part.unflatten(1, shape) for part, shape in zip(parts, shapes, strict=True)
        )
        return cls(frames.detach(), hidden, before.detach(), logits)


class MotionSummary(nn.Module):
    r"""Summary of a window of frames: how it has moved, and how it may move on.

    The displacements of the last two frames are estimated block by block, from how well each
    explains the frame. A linear map of their probabilities is the first guess of the logits of
    the next displacement; a network of the window corrects it.

    Args:
        grid: the sizes.

    Raises:
        ValueError: for sizes that do not go together.

    >>> grid = MotionGrid((1, 16, 16), reach=1, hidden=4)
    >>> summary = MotionSummary(grid)
    >>> summary(torch.rand(5, 3, 16, 16)).shape == (5, summary.features)
    True
    """

    def __init__(self, grid: MotionGrid) -> None:
        grid.check()
        super().__init__()
        self.grid = grid
        channels, height, width = grid.frame_shape
        blocks = math.prod(grid.blocks)
        self.features = (
            grid.window * channels * height * width + (grid.hidden + 2 * grid.ways) * blocks
        )
        inputs = grid.window * channels * grid.block**2 + 2 * grid.ways
        self.enter = nn.Conv2d(inputs, grid.hidden, 3, padding=1)
        self.around = nn.Sequential(  # at half the resolution, for a wider view
            nn.Conv2d(grid.hidden, grid.hidden, 3, stride=2, padding=1), ResidualBlock(grid.hidden)
        )
        self.body = nn.Sequential(ResidualBlock(grid.hidden), nn.ELU())
        self.direct = nn.Conv2d(2 * grid.ways, grid.ways, 1)
        self.correct = near_zero(nn.Conv2d(grid.hidden, grid.ways, 1))
        with torch.no_grad():
            self.direct.weight.zero_()
            self.direct.bias.zero_()  # type: ignore[union-attr]
            self.direct.weight[:, : grid.ways, 0, 0] = _steady(grid.reach)

    def forward(self, frames: Tensor) -> Tensor:  # (N, W*C, H, W) -> (N, features)
        grid, channels = self.grid, self.grid.frame_shape[0]
        third, second, last = frames.split(channels, 1)[-3:]
        before = self._probabilities(last, second)
        both = torch.cat([before, self._probabilities(second, third)], 1)
        pixels = functional.pixel_unshuffle(frames, grid.block)
        entered = self.enter(torch.cat([pixels, SEEN * both], 1))
        wide = functional.interpolate(self.around(entered), size=entered.shape[-2:])
        hidden = self.body(entered + wide)
        with without_autocast(frames.device):
            logits = self.direct(both) + self.correct(hidden.to(frames.dtype))
        return MotionPast(frames, hidden, before, logits).packed()

    def _probabilities(self, now: Tensor, before: Tensor) -> Tensor:
        return displacement_probabilities(now, before, reach=self.grid.reach, block=self.grid.block)


def _steady(reach: int) -> Tensor:
    """First logits of each displacement after each: as before, or one pixel off."""
    places = torch.arange(2 * reach + 1)
    ways = torch.cartesian_prod(places, places)
    off = (ways[:, None] - ways).abs().amax(-1)
    return torch.where(off == 0, SAME, torch.where(off == 1, NEXT, 0.0))
