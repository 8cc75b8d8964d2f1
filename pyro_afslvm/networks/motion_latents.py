"""Networks of a latent variable model whose latents say how the last frame moves."""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from pyro_afslvm.networks.displacement import (
    displaced_means,
    displacement_probabilities,
    likeliest_displacements,
)
from pyro_afslvm.networks.layers import without_autocast
from pyro_afslvm.networks.motion_grid import SEEN, MotionGrid, MotionPast
from pyro_afslvm.networks.residual import ResidualBlock, near_zero

LEAST_LOG_SCALE, MOST_LOG_SCALE = -4.0, 2.0  # of the latents, as the decoder takes them
GAUSSIAN, MIXTURE = 4, 9  # outputs of each pixel
FIRST_LOG_SCALE = -4.0  # of what displacements do not explain


class MotionEncoder(nn.Module):
    r"""Encoder of a frame to its latents, given the summary of those before.

    It sees by how much each block has moved since the last frame. Its features are location and
    log-scale of the latents' posterior, which from the start differ from frame to frame: a
    posterior that begins at the prior stays there, as no one has learned to listen.

    Args:
        grid: the sizes.

    >>> grid = MotionGrid((1, 16, 16), reach=1, hidden=4)
    >>> from pyro_afslvm.networks.motion_grid import MotionSummary
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
    own; as a Gaussian its mean is that over the displacements, and its variance theirs, times a
    factor, and that of what they do not explain.

    Args:
        grid: the sizes.
        displacements: how many of the likeliest displacements are components of the mixture; 0
            for a Gaussian.
        features: channels of what the coarse layers hand on to each pixel.
        pixel_hidden: channels of the layers of each pixel.
        min_scale: floor of the scales, a little below that of the data's noise.

    Source: moving pixels by distributions over displacements is of Finn, Goodfellow, Levine,
    *Unsupervised Learning for Physical Interaction through Video Prediction*, arXiv:1605.07157.

    >>> grid = MotionGrid((1, 16, 16), reach=1, hidden=4)
    >>> from pyro_afslvm.networks.motion_grid import MotionSummary
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
            return self._gaussian(outputs, mean, self._spread_of(last, mean, ways))
        return self._mixture(outputs, mean, last, ways)

    def _gaussian(self, outputs: Tensor, mean: Tensor, variance: Tensor) -> tuple[Tensor, Tensor]:
        change, log_new, log_factor, keep = outputs.unbind(-1)
        location = mean * torch.sigmoid(keep + 3.0) + 0.3 * change
        moved = variance.clamp(min=1e-8).log() + log_factor
        return location, self._floored(
            0.5 * torch.logaddexp(moved, 2 * (3.0 * log_new + FIRST_LOG_SCALE))
        ).exp()

    def _spread_of(self, last: Tensor, mean: Tensor, ways: Tensor) -> Tensor:
        """Variance of each pixel over the displacements."""
        grid = self.grid
        weights = ways.exp().unsqueeze(1)
        square = displaced_means(last.square(), weights, reach=grid.reach, block=grid.block)
        return square.squeeze(1) - mean.square()

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
