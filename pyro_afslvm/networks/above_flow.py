"""Networks of latents that say how the last frame moves, above an affine flow."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from pyro_afslvm.networks.layers import without_autocast
from pyro_afslvm.networks.motion_grid import MotionGrid, MotionPast
from pyro_afslvm.networks.motion_latents import MotionDecoder, MotionEncoder
from pyro_afslvm.networks.residual import near_zero

FIRST = 1.0  # logit of what the latents' prediction weighs at first


class MotionDecoderAboveFlow(MotionDecoder):
    r"""Decoder of the noise y of an affine flow, whose latents say how the last frame moves.

    With location :math:`\ell` and scale s of a pixel as a :class:`MotionDecoder` gives them, and
    shift :math:`\mu` and scale :math:`\sigma` of the flow,

    .. math:: p(y \mid z) = N\left(y; g\,\frac{\ell - \mu}{\sigma},
        \left(\frac{s}{\sigma}\right)^{2g}\right)

    where a weight g of each pixel, in (0, 1), says how far the latents are followed: at 0 the
    prediction is the flow's own, at 1 that of the latents alone.

    Args:
        grid: the sizes, the window that of the flow.
        flow: the network of the flow's conditioner, which maps the window, ``(N, W * C, H, W)``,
            to shift and log-scale, ``(N, 2 * C, H, W)``. Its parameters are the flow's alone.
        hidden: channels between both predictions and the weight.

    >>> from pyro_afslvm.networks.motion_grid import MotionSummary
    >>> from pyro_afslvm.transforms.conditioners import DisplacementConditioner
    >>> grid = MotionGrid((1, 16, 16), reach=1, hidden=4)
    >>> flow = DisplacementConditioner(grid._replace(latents=0)).fuse
    >>> past = MotionSummary(grid)(torch.rand(5, 3, 16, 16))
    >>> given = torch.cat([torch.randn(5, grid.latent_size), past], 1)
    >>> [p.shape[1:] for p in MotionDecoderAboveFlow(grid, flow)(given)]  # location and scale
    [torch.Size([1, 16, 16]), torch.Size([1, 16, 16])]
    """

    def __init__(self, grid: MotionGrid, flow: nn.Module, *, hidden: int = 8) -> None:
        super().__init__(grid)
        self._flow = (flow,)  # the flow's own, and no part of this
        channels = grid.frame_shape[0]
        self.meet = nn.Conv2d(4 * channels, hidden, 3, padding=1)
        self.weigh = near_zero(nn.Conv2d(hidden, channels, 3, padding=1))

    def forward(self, given: Tensor) -> tuple[Tensor, ...]:
        """Decode latents and, after them, the summary of the past, ``(*batch, size + past)``.

        Returns:
            location and scale of y, ``(*batch, C, H, W)``.
        """
        flat = given.reshape(-1, given.shape[-1])
        location, scale = super().forward(flat)
        with without_autocast(given.device):
            summary = flat[:, self.grid.latent_size :]
            shift, log_scale = _predicted(self._flow[0], MotionPast.unpacked(summary, self.grid))
            both = torch.cat([location, scale.log(), shift, log_scale], 1)
            weight = torch.sigmoid(self.weigh(functional.elu(self.meet(both))) + FIRST)
            y = weight * (location - shift) * torch.exp(-log_scale)
            y_scale = torch.exp(weight * (scale.log() - log_scale))
        return tuple(part.reshape(*given.shape[:-1], *part.shape[1:]) for part in (y, y_scale))


class MotionEncoderAboveFlow(MotionEncoder):
    r"""A :class:`MotionEncoder` of the frame that the noise y of an affine flow stands for.

    Args:
        grid: the sizes, the window that of the flow.
        flow: the network of the flow's conditioner, as a :class:`MotionDecoderAboveFlow` has it.
    """

    def __init__(self, grid: MotionGrid, flow: nn.Module) -> None:
        super().__init__(grid)
        self._flow = (flow,)  # the flow's own, and no part of this

    def forward(self, x: Tensor, past: Tensor) -> Tensor:
        """Encode noise ``(*batch, C, H, W)`` after its past: ``(*batch, features)``."""
        y = x.reshape(-1, *x.shape[-3:])
        with torch.no_grad(), without_autocast(x.device):  # the frame is given, the flow's or not
            flat = past.reshape(-1, past.shape[-1]).expand(len(y), -1)
            shift, log_scale = _predicted(self._flow[0], MotionPast.unpacked(flat, self.grid))
            frames = shift + log_scale.exp() * y
        return super().forward(frames.reshape(x.shape), past)


def _predicted(flow: nn.Module, past: MotionPast) -> tuple[Tensor, Tensor]:
    """Shift and log-scale of the flow after this past, each ``(N, C, H, W)``."""
    shift, log_scale = flow(past.frames).to(past.frames).chunk(2, 1)
    return shift, log_scale
