"""The mixture transform across time: frames that may go several ways."""

from collections.abc import Sequence
from typing import Literal

from pyro_afslvm.transforms.autoregressive import TemporalAutoregressive
from pyro_afslvm.transforms.conditioners import Conditioner
from pyro_afslvm.transforms.univariate import MixtureMap
from pyro_afslvm.transforms.univariate.mixture import Centre, Family


class TemporalMixture(TemporalAutoregressive):
    r"""Mixture of each entry given the past, as a transform across time.

    .. math:: y_t = \Phi^{-1}\Bigl(\sum_k \pi_k(x_{<t}) \,
        F\bigl(\tfrac{x_t - \mu_k(x_{<t})}{\sigma_k(x_{<t})}\bigr)\Bigr)

    Alone over N(0, 1) noise it is a mixture of each entry; below a latent variable model the
    noise y is what the latents explain, as with an affine transform.

    Args:
        conditioner: gives weights, centres and scales from the past: three parameters of each
            component, ``num_parameters=3 * len(centres)``, and one more for each centre that
            it predicts.
        centres: of each component: a number, ``"last"`` for :math:`x_{t-1}`, ``"linear"`` for
            :math:`2 x_{t-1} - x_{t-2}`, or ``"predicted"`` for one that the conditioner gives.
        scale: at which the components of a fresh network start, in units of the frames.
        min_scale: smallest scale of a component, in the same units.
        family: ``"gaussian"`` or ``"logistic"`` components.
        initial: ``"learned"`` gives the first ``window`` frames parameters of their own, as
            in :class:`TemporalAutoregressive`.

    Raises:
        ValueError: as :class:`~pyro_afslvm.transforms.univariate.MixtureMap`, and for a
            conditioner of another number of parameters.

    >>> import torch
    >>> from pyro_afslvm import MLPConditioner, TemporalMixture
    >>> conditioner = MLPConditioner(2, window=1, num_parameters=6)
    >>> flow = TemporalMixture(conditioner, centres=["last", 0.0], initial="learned")
    >>> x = torch.randn(5, 10, 2)
    >>> flow(flow.inv(x)).shape
    torch.Size([5, 10, 2])
    """

    def __init__(
        self,
        conditioner: Conditioner,
        *,
        centres: Sequence[Centre] = ("last",) * 3,
        scale: float = 0.1,
        min_scale: float = 1e-3,
        family: Family = "gaussian",
        initial: Literal["learned"] | None = None,
    ) -> None:
        univariate = MixtureMap(centres, scale=scale, min_scale=min_scale, family=family)
        super().__init__(conditioner, univariate, initial=initial)
