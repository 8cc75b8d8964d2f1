"""The base class of univariate maps, and the inverse of any map of frames."""

from abc import abstractmethod

from torch import Tensor, nn
from torch.distributions import Transform

from pyro_afslvm.transforms.steps import Inverse


class Univariate(nn.Module):
    r"""A monotone map of each entry's noise to the entry, with parameters from the past.

    .. math:: x_{t,i} = f(y_{t,i}; \theta_i(x_{<t})), \qquad \theta_i \in \mathbb{R}^P

    Called with parameters it gives the map as a :class:`torch.distributions.Transform` from
    noise to frames, which increases in every entry; one that mixes the entries of a frame has
    an ``event_dim`` of the frame's dimensions.

    Args:
        num_parameters: parameters of an entry, P.
        lags: last frames that it sees beside them.
    """

    is_affine = False

    def __init__(self, num_parameters: int, *, lags: int = 0) -> None:
        super().__init__()
        self.num_parameters = num_parameters
        self.lags = lags

    @abstractmethod
    def forward(self, parameters: Tensor, recent: Tensor | None = None) -> Transform:
        """Give the map of these parameters.

        Args:
            parameters: real numbers ``(*batch, *frame, P)``; near zero in a fresh network.
            recent: the last frames ``(*batch, *frame, lags)``, the latest at the end and zero
                before the first of all; ``None`` where lags are none.
        """


def invert(transform: Transform, x: Tensor, frame_dims: int) -> Inverse:
    """Send frames through the inverse of a map, with the log-scale of every entry.

    The log-scales of a map that mixes entries are the equal parts of its log-determinant.

    Args:
        transform: from noise to frames.
        x: ``(*batch, *frame)``.
        frame_dims: dimensions of a frame.
    """
    noise = transform.inv(x)
    return Inverse(noise, log_scale(transform, noise, x, frame_dims))


def log_scale(transform: Transform, noise: Tensor, x: Tensor, frame_dims: int) -> Tensor:
    """Log-scale of every entry of x, as :func:`invert` gives it."""
    log_det: Tensor = transform.log_abs_det_jacobian(noise, x)
    mixed = transform.codomain.event_dim
    if not mixed:
        return log_det
    frame = x.shape[x.ndim - frame_dims :]
    spread = log_det.reshape(*log_det.shape, *[1] * mixed) / frame[-mixed:].numel()
    return spread.expand(*log_det.shape, *frame[-mixed:])
