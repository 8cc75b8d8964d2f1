"""Networks of a latent variable model whose latents say how the last frame moves."""

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from pyro_afslvm.networks.displacement import (
    displaced_means,
    displacement_probabilities,
    likeliest_displacements,
)
from pyro_afslvm.networks.layers import without_autocast
from pyro_afslvm.networks.residual import ResidualBlock, near_zero

SEEN = 4.0  # probabilities of displacements, as the networks are shown them
LEAST_LOG_SCALE, MOST_LOG_SCALE = -4.0, 2.0  # of the latents, as the decoder takes them
GAUSSIAN, MIXTURE = 3, 9  # outputs of each pixel
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


class MotionEncoder(nn.Module):
    r"""Encoder of a frame to its latents, given the summary of those before.

    It sees by how much each block has moved since the last frame. Its features are location and
    log-scale of the latents' posterior, which from the start differ from frame to frame: a
    posterior that begins at the prior stays there, as no one has learned to listen.

    Args:
        grid: the sizes.

    >>> grid = MotionGrid((1, 16, 16), reach=1, hidden=4)
    >>> past = MotionSummary(grid)(torch.rand(5, 3, 16, 16))
    >>> encoder = MotionEncoder(grid)
    >>> encoder(torch.rand(5, 1, 16, 16), past).shape == (5, 2 * grid.latent_size)
    True
    """

    def __init__(self, grid: MotionGrid) -> None:
        super().__init__()
        self.grid = grid
        self.features = 2 * grid.latent_size
        self.frame_dims = 3
        inputs = grid.hidden + 2 * grid.ways + grid.frame_shape[0] * grid.block**2
        self.network = nn.Sequential(
            nn.Conv2d(inputs, grid.hidden, 3, stride=2, padding=1),
            nn.ELU(),
            ResidualBlock(grid.hidden),
            nn.ELU(),
        )
        self.heads = nn.Conv2d(grid.hidden, 2 * grid.latents, 1)

    def forward(self, x: Tensor, past: Tensor) -> Tensor:
        """Encode frames ``(*batch, C, H, W)`` after their past: ``(*batch, features)``."""
        frames, flat = x.reshape(-1, *x.shape[-3:]), past.reshape(-1, past.shape[-1])
        found = MotionPast.unpacked(flat.expand(len(frames), -1), self.grid)
        block = self.grid.block
        last = found.frames[:, -frames.shape[1] :]
        moved = displacement_probabilities(frames, last, reach=self.grid.reach, block=block)
        change = functional.pixel_unshuffle(frames - last, block)
        hidden = self.network(
            torch.cat([found.hidden, SEEN * moved, SEEN * found.before, change], 1)
        )
        with without_autocast(x.device):
            latents = self.heads(hidden.to(x.dtype))
        # all locations, then all log-scales, each in the order of the latent vector
        features: Tensor = latents.flatten(1).reshape(*x.shape[:-3], -1)
        return features


class MotionDecoder(nn.Module):
    r"""Decoder that moves the last frame as the latents say.

    The latents change the logits of each block's displacements. As a mixture, a pixel is the
    last frame's under one of the likeliest displacements, black, white, or around a mean of its
    own; as a Gaussian its mean is that over the displacements.

    Args:
        grid: the sizes.
        displacements: how many of the likeliest displacements are components of the mixture; 0
            for a Gaussian.
        features: channels of what the coarse layers hand on to each pixel.
        pixel_hidden: channels of the layers of each pixel.

    Source: moving pixels by distributions over displacements is of Finn, Goodfellow, Levine,
    *Unsupervised Learning for Physical Interaction through Video Prediction*, arXiv:1605.07157.

    >>> grid = MotionGrid((1, 16, 16), reach=1, hidden=4)
    >>> past = MotionSummary(grid)(torch.rand(5, 3, 16, 16))
    >>> given = torch.cat([torch.randn(5, grid.latent_size), past], 1)
    >>> [p.shape[1:] for p in MotionDecoder(grid)(given)]  # location and scale
    [torch.Size([1, 16, 16]), torch.Size([1, 16, 16])]
    """

    def __init__(
        self,
        grid: MotionGrid,
        *,
        displacements: int = 0,
        features: int = 8,
        pixel_hidden: int = 16,
        min_scale: float = 1 / 270,
    ) -> None:
        if not 0 <= displacements <= grid.ways:
            raise ValueError(f"expected 0 to {grid.ways} displacements, got {displacements}")
        super().__init__()
        self.grid, self.displacements, self.min_scale = grid, displacements, min_scale
        channels, hidden = grid.frame_shape[0], grid.hidden
        if grid.latents:
            self.prior = nn.Sequential(
                nn.Conv2d(hidden + grid.ways, hidden, 3, stride=2, padding=1),
                nn.ELU(),
                nn.Conv2d(hidden, 2 * grid.latents, 1),
            )
            self.spread = nn.Sequential(
                nn.Conv2d(grid.latents, hidden, 3, padding=1),
                nn.ELU(),
                nn.Conv2d(hidden, hidden, 1),
                nn.ELU(),
            )
            self.join = nn.Sequential(
                nn.Conv2d(2 * hidden, hidden, 3, padding=1), ResidualBlock(hidden), nn.ELU()
            )
            self.direct = near_zero(nn.Conv2d(hidden, grid.ways, 1))
        self.correct = near_zero(nn.Conv2d(hidden, grid.ways, 1))
        self.features = nn.Conv2d(hidden, features * grid.block**2, 1)
        seen = features + (grid.window + 1) * channels
        self.mix = nn.Sequential(
            nn.Conv2d(seen, pixel_hidden, 3, padding=1),
            nn.ELU(),
            nn.Conv2d(pixel_hidden, pixel_hidden, 3, padding=1),
            nn.ELU(),
        )
        outputs = MIXTURE if displacements else GAUSSIAN
        self.heads = near_zero(nn.Conv2d(pixel_hidden, outputs * channels, 3, padding=1))

    def forward(self, given: Tensor) -> tuple[Tensor, ...]:
        """Decode latents and, after them, the summary of the past, ``(*batch, size + past)``.

        Returns:
            location and scale ``(*batch, C, H, W)``; or log-weights, locations and log-scales of
            a mixture, ``(*batch, C, H, W, K + 3)``.
        """
        grid = self.grid
        flat = given.reshape(-1, given.shape[-1])
        z, summary = flat.tensor_split((grid.latent_size,), 1)
        past = MotionPast.unpacked(summary, grid)
        hidden, said = self._with_latents(z, past) if grid.latents else (past.hidden, 0.0)
        fine = functional.pixel_shuffle(self.features(hidden), grid.block).to(flat)
        changes = (self.correct(hidden) + said).to(flat)
        with without_autocast(given.device):
            found = self._pixels((past.logits + changes).log_softmax(1), fine, past)
        return tuple(part.reshape(*given.shape[:-1], *part.shape[1:]) for part in found)

    def _with_latents(self, z: Tensor, past: MotionPast) -> tuple[Tensor, Tensor]:
        """Features of past and latents, and what the latents alone say of displacements."""
        rows, columns = self.grid.blocks
        latents = self._latents(z.unflatten(1, (-1, rows // 2, columns // 2)), past)
        spread = functional.interpolate(self.spread(latents), size=self.grid.blocks)
        hidden = self.join(torch.cat([past.hidden.to(spread), spread], 1))
        return hidden, self.direct(spread)

    def _latents(self, z: Tensor, past: MotionPast) -> Tensor:
        """Send N(0, I) latents to what is likely after this past."""
        ways = SEEN * past.logits.softmax(1)
        shift, log_scale = self.prior(torch.cat([past.hidden, ways], 1)).to(z).chunk(2, 1)
        latents: Tensor = shift + log_scale.clamp(LEAST_LOG_SCALE, MOST_LOG_SCALE).exp() * z
        return latents

    def _pixels(self, ways: Tensor, fine: Tensor, past: MotionPast) -> tuple[Tensor, ...]:
        grid, channels = self.grid, self.grid.frame_shape[0]
        last = past.frames[:, -channels:]
        mean = displaced_means(last, ways.exp().unsqueeze(1), reach=grid.reach, block=grid.block)
        mean = mean.squeeze(1)
        seen = torch.cat([fine, past.frames, mean], 1)
        outputs = self.heads(self.mix(seen)).unflatten(1, (-1, channels)).movedim(1, -1)
        if not self.displacements:
            return self._gaussian(outputs, mean)
        return self._mixture(outputs, mean, last, ways)

    def _gaussian(self, outputs: Tensor, mean: Tensor) -> tuple[Tensor, Tensor]:
        change, log_scale, keep = outputs.unbind(-1)
        location = mean * torch.sigmoid(keep + 3.0) + 0.3 * change
        return location, self._floored(log_scale - 2.5).exp()

    def _mixture(
        self, outputs: Tensor, mean: Tensor, last: Tensor, ways: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        kinds, log_scales, change = outputs.split([4, 4, 1], -1)  # moved, black, white, own
        kinds = (kinds + kinds.new_tensor([3.0, 3.0, 0.0, -2.0])).log_softmax(-1)
        log_scales = self._floored(log_scales + log_scales.new_tensor([-5.0, -5.5, -5.0, -1.2]))
        moved, logs = likeliest_displacements(
            last, ways, count=self.displacements, reach=self.grid.reach, block=self.grid.block
        )
        own = mean + 0.3 * change.squeeze(-1)
        others = torch.stack([torch.zeros_like(own), torch.ones_like(own), own], -1)
        return (
            torch.cat([kinds[..., :1] + logs.unsqueeze(1), kinds[..., 1:]], -1),
            torch.cat([moved, others], -1),
            torch.cat([log_scales[..., :1].expand_as(moved), log_scales[..., 1:]], -1),
        )

    def _floored(self, log_scale: Tensor) -> Tensor:
        least = log_scale.new_tensor(2 * math.log(self.min_scale))
        return 0.5 * torch.logaddexp(2 * log_scale, least)


def _steady(reach: int) -> Tensor:
    """First logits of each displacement after each: as before, or one pixel off."""
    places = torch.arange(2 * reach + 1)
    ways = torch.cartesian_prod(places, places)
    off = (ways[:, None] - ways).abs().amax(-1)
    return torch.where(off == 0, SAME, torch.where(off == 1, NEXT, 0.0))
