"""A network that looks for motion: the last frame, moved the ways its past tells."""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from pyro_afslvm.networks.displacement import displaced_costs, displaced_means
from pyro_afslvm.networks.layers import without_autocast
from pyro_afslvm.networks.residual import ResidualBlock, near_zero

SHARPNESS = 100.0  # of the first guess: squared differences, in units of the frames, to logits
TYPICAL_COST = 0.1  # squared difference of unlike pixels, which the network is shown as one


class MotionNetwork(nn.Module):
    r"""Features of a window of frames, and the last one moved in several ways.

    The differences of the last two frames under each displacement give a first guess of the
    motion of each block, which a network of the window corrects; the last frame is averaged over
    displacements with these weights. That moves content without having to redraw it.

    Args:
        channels: channels of a frame.
        window: frames it is given, at least two.
        outputs: features of each pixel beside the moved frames.
        moves: ways in which the last frame is moved.
        reach: largest displacement in pixels.
        block: height and width of the blocks that move together.
        width: channels of the coarse layers.
        depth: residual blocks of the coarse layers.
        features: channels of what these hand on to each pixel.
        hidden: channels of the last layer of each pixel.

    Raises:
        ValueError: for a window of one frame, which shows no motion.

    Finn, Goodfellow, Levine, *Unsupervised Learning for Physical Interaction through Video
    Prediction*, arXiv:1605.07157, move pixels by learned kernels; the cost volume is that of
    optical flow networks (Sun et al., *PWC-Net*, arXiv:1709.02371).

    >>> network = MotionNetwork(1, 2, outputs=6, width=16, depth=1)
    >>> network(torch.rand(5, 2, 16, 16)).shape  # six, and two moved frames
    torch.Size([5, 8, 16, 16])
    """

    def __init__(
        self,
        channels: int,
        window: int,
        *,
        outputs: int,
        moves: int = 2,
        reach: int = 4,
        block: int = 4,
        width: int = 96,
        depth: int = 2,
        features: int = 8,
        hidden: int = 16,
    ) -> None:
        if window < 2:
            raise ValueError(f"motion needs a window of at least 2 frames, got {window}")
        super().__init__()
        self.channels, self.moves, self.reach, self.block = channels, moves, reach, block
        ways = (2 * reach + 1) ** 2
        self.enter = nn.Conv2d(window * channels * block**2 + ways, width, 3, padding=1)
        self.around = nn.Sequential(  # at half the resolution, for a wider view
            nn.Conv2d(width, width, 3, stride=2, padding=1), ResidualBlock(width)
        )
        self.body = nn.Sequential(*(ResidualBlock(width) for _ in range(depth)), nn.ELU())
        self.motion = nn.Conv2d(width, moves * ways, 1)
        self.features = nn.Conv2d(width, features * block**2, 1)
        self.log_sharpness = nn.Parameter(torch.tensor(math.log(SHARPNESS)))
        seen = features + (window + moves) * channels
        self.mix = nn.Sequential(nn.Conv2d(seen, hidden, 3, padding=1), nn.ELU())
        self.leave = near_zero(nn.Conv2d(hidden, outputs * channels, 3, padding=1))

    def forward(self, frames: Tensor) -> Tensor:  # (N, W*C, H, W) -> (N, (outputs+moves)*C, H, W)
        height, width = frames.shape[-2:]
        down, right = -height % self.block, -width % self.block
        if down or right:
            frames = functional.pad(frames, (0, right, 0, down), mode="replicate")
        last = frames[:, -self.channels :]
        before = frames[:, -2 * self.channels : -self.channels]
        costs = displaced_costs(last, before, reach=self.reach, block=self.block)
        coarse = self._coarse(frames, costs)
        with without_autocast(frames.device):
            moved = self._moved(last, self.motion(coarse.to(frames.dtype)), costs)
        fine = functional.pixel_shuffle(self.features(coarse), self.block).to(frames.dtype)
        hidden = self.mix(torch.cat([fine, frames, moved], 1))
        with without_autocast(frames.device):
            parameters = self.leave(hidden.to(frames.dtype))
        return torch.cat([parameters, moved], 1)[..., :height, :width]

    def _coarse(self, frames: Tensor, costs: Tensor) -> Tensor:
        pixels = functional.pixel_unshuffle(frames, self.block)
        entered = self.enter(torch.cat([pixels, costs / TYPICAL_COST], 1))
        wide = functional.interpolate(self.around(entered), size=entered.shape[-2:])
        found: Tensor = self.body(entered + wide)
        return found

    def _moved(self, last: Tensor, corrections: Tensor, costs: Tensor) -> Tensor:
        smooth = functional.avg_pool2d(costs, 3, 1, 1, count_include_pad=False)
        guess = -self.log_sharpness.exp() * smooth
        logits = corrections.unflatten(1, (self.moves, -1)) + guess.unsqueeze(1)
        weights = logits.softmax(2)
        return displaced_means(last, weights, reach=self.reach, block=self.block).flatten(1, 2)
