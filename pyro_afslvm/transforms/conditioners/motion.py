"""The conditioner that moves the last frame."""

import torch
from torch import Tensor, nn

from pyro_afslvm.networks.motion import MotionNetwork
from pyro_afslvm.networks.motion_grid import MotionGrid, MotionSummary
from pyro_afslvm.networks.motion_latents import MotionDecoder
from pyro_afslvm.transforms.conditioners.windowed import WindowedConditioner


class MotionConditioner(WindowedConditioner):
    r"""Conditioner that looks for motion in a window of past frames, and moves the last one.

    The last ``moves`` parameters of each pixel are moved frames: the ``"predicted"`` centres of
    a :class:`~pyro_afslvm.TemporalMixture`.

    Args:
        channels: channels of a frame.
        num_parameters: parameters of each entry, the moved frames among them.
        window: number of past frames, at least two.
        moves: ways in which the last frame is moved.
        reach: largest displacement of a frame, in pixels.
        block: height and width of the blocks that move together.
        hidden: channels of the coarse layers.
        depth: residual blocks of the coarse layers.

    Raises:
        ValueError: for a window of one frame, or no parameter beside the moved frames.

    >>> import torch
    >>> network = MotionConditioner(1, num_parameters=14, hidden=16, depth=1)
    >>> history, x = torch.rand(2, 3, 1, 16, 16), torch.rand(2, 10, 1, 16, 16)
    >>> network(x, history=history).shape
    torch.Size([2, 10, 1, 16, 16, 14])
    """

    def __init__(
        self,
        channels: int,
        *,
        num_parameters: int,
        window: int = 3,
        moves: int = 2,
        reach: int = 4,
        block: int = 4,
        hidden: int = 96,
        depth: int = 2,
    ) -> None:
        if not 0 < moves < num_parameters:
            raise ValueError(
                f"expected more parameters than moved frames, got {num_parameters} and {moves}"
            )
        network = MotionNetwork(
            channels,
            window,
            outputs=num_parameters - moves,
            moves=moves,
            reach=reach,
            block=block,
            width=hidden,
            depth=depth,
        )
        super().__init__(
            encoder=nn.Identity(),
            fuse=network,
            body=nn.Identity(),
            heads=nn.Identity(),
            frame_dims=3,
            initial_shape=(channels, 1, 1),
            window=window,
            num_parameters=num_parameters,
            residual=False,
        )


class DisplacementConditioner(WindowedConditioner):
    r"""Conditioner of distributions over the displacements of each block of the last frame.

    The networks are those of the motion latents, without latents: how each block has moved says
    how it may move on.

    Args:
        grid: the sizes, with no latents.
        displacements: how many of the likeliest displacements are components of a mixture,
            beside black, white and a mean of its own: for a
            :class:`~pyro_afslvm.transforms.univariate.FreeMixtureMap` of so many and three
            components. 0 gives shift and log-scale of an affine map.

    Raises:
        ValueError: for sizes that do not go together, or latents.

    >>> grid = MotionGrid((1, 16, 16), latents=0, reach=1, hidden=4)
    >>> network = DisplacementConditioner(grid)
    >>> history, x = torch.rand(2, 3, 1, 16, 16), torch.rand(2, 10, 1, 16, 16)
    >>> network(x, history=history).shape  # shift and log-scale
    torch.Size([2, 10, 1, 16, 16, 2])
    """

    def __init__(self, grid: MotionGrid, *, displacements: int = 0) -> None:
        if grid.latents:
            raise ValueError(f"expected a grid with latents=0, got {grid.latents}")
        channels = grid.frame_shape[0]
        super().__init__(
            encoder=nn.Identity(),
            fuse=_Displaced(grid, displacements),
            body=nn.Identity(),
            heads=nn.Identity(),
            frame_dims=3,
            initial_shape=(channels, 1, 1),
            window=grid.window,
            num_parameters=3 * (displacements + 3) if displacements else 2,
            residual=False,
        )


class _Displaced(nn.Module):
    """Parameters of each pixel from a window of frames."""

    def __init__(self, grid: MotionGrid, displacements: int) -> None:
        super().__init__()
        self.summary = MotionSummary(grid)
        self.decoder = MotionDecoder(grid, displacements=displacements)

    def forward(self, frames: Tensor) -> Tensor:  # (N, W*C, H, W) -> (N, P*C, H, W)
        found = self.decoder(self.summary(frames))
        if len(found) == 2:  # location and scale
            return torch.cat([found[0], found[1].log()], 1)
        each = torch.cat(found, -1)  # (N, C, H, W, P)
        return each.movedim(-1, 1).flatten(1, 2)
