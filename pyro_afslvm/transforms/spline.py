"""The spline transform across time."""

from typing import Literal

from pyro_afslvm.transforms.autoregressive import TemporalAutoregressive
from pyro_afslvm.transforms.conditioners import Conditioner
from pyro_afslvm.transforms.univariate import SplineMap


class TemporalSpline(TemporalAutoregressive):
    r"""Spline and affine map of each entry given the past, as a transform across time.

    .. math:: x_t = \mu(x_{<t}) + \sigma(x_{<t}) \odot s(y_t; \theta(x_{<t}))

    Args:
        conditioner: gives shift, log-scale and the spline from the past; of
            ``num_parameters=3 * bins + 1``. Where it is residual the shift is the change from
            the last frame, in units of the scale.
        bins: of the spline.
        bound: where the tails begin that are linear, in standard deviations of the noise.
        initial: ``"learned"`` gives the first ``window`` frames parameters of their own, as
            in :class:`TemporalAutoregressive`.

    Raises:
        ValueError: as :class:`~pyro_afslvm.transforms.univariate.SplineMap`, and for a
            conditioner of another number of parameters.

    >>> import torch
    >>> from pyro_afslvm import MLPConditioner, TemporalSpline
    >>> flow = TemporalSpline(MLPConditioner(2, window=1, num_parameters=25), initial="learned")
    >>> flow(torch.randn(5, 10, 2)).shape
    torch.Size([5, 10, 2])
    """

    def __init__(
        self,
        conditioner: Conditioner,
        *,
        bins: int = 8,
        bound: float = 4.0,
        initial: Literal["learned"] | None = None,
    ) -> None:
        univariate = SplineMap(bins=bins, bound=bound, residual=conditioner.residual)
        super().__init__(conditioner, univariate, initial=initial)
