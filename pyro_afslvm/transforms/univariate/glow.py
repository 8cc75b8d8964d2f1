"""The Glow map: a frame made by couplings across space, given the past."""

from typing import cast

from pyro.distributions.transforms import GeneralizedChannelPermute
from torch import Tensor, nn
from torch.distributions import Transform

from pyro_afslvm.networks.residual import near_zero
from pyro_afslvm.transforms.mixing import Coupling, Fresh, Squeeze
from pyro_afslvm.transforms.univariate.affine import AffineMap, composed
from pyro_afslvm.transforms.univariate.base import Univariate


class GlowMap(Univariate):
    r"""Steps of Glow across space, conditioned on the past, and then an affine map.

    .. math:: x_t = \mu + \sigma \odot (g_S \circ \dots \circ g_1)(y_t; h), \qquad
        (\mu, \log \sigma, h) = \theta(x_{<t})

    Each step is an invertible 1×1 convolution of the squeezed frame and an affine coupling of
    its channels that sees h. Entries of a frame so depend on each other given the past, which
    no elementwise map allows. Height and width must be even.

    Parameters of an entry are shift and log-scale, as of :class:`AffineMap`, and the features h.

    Args:
        channels: of a frame.
        steps: of Glow, S.
        features: of each entry for the couplings.
        hidden: channels of the couplings' networks.
        residual: whether the first parameter is the change from the last frame in units of the
            scale, rather than the shift.

    Raises:
        ValueError: for no steps, features or channels.

    Source: Kingma, Dhariwal, *Glow*, arXiv:1807.03039; across time in Kumar et al.,
    *VideoFlow*, arXiv:1903.01434.
    """

    def __init__(
        self,
        channels: int,
        *,
        steps: int = 4,
        features: int = 4,
        hidden: int = 32,
        residual: bool = False,
    ) -> None:
        if min(channels, steps, features) < 1:
            raise ValueError("expected at least one channel, step and feature")
        super().__init__(2 + features, lags=int(residual))
        self.affine = AffineMap(residual=residual)
        self.mixings = nn.ModuleList(GeneralizedChannelPermute(4 * channels) for _ in range(steps))
        self.networks = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d((2 + 4 * features) * channels, hidden, 3, padding=1),
                nn.ELU(),
                nn.Conv2d(hidden, hidden, 1),
                nn.ELU(),
                near_zero(nn.Conv2d(hidden, 4 * channels, 3, padding=1)),
            )
            for _ in range(steps)
        )

    def forward(self, parameters: Tensor, recent: Tensor | None = None) -> Transform:
        squeeze = Squeeze()
        features = parameters[..., 2:].movedim(-1, -4).flatten(-4, -3)  # (*batch, F * C, H, W)
        steps: list[Transform] = [squeeze]
        for mixing, network in zip(self.mixings, self.networks, strict=True):
            steps += [Fresh(cast(Transform, mixing)), Coupling(network, squeeze(features))]
        return composed([*steps, squeeze.inv, self.affine(parameters[..., :2], recent)])
