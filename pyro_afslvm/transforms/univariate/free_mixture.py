"""The mixture map without centres of its own."""

from torch import Tensor

from pyro_afslvm.transforms.univariate.base import Univariate
from pyro_afslvm.transforms.univariate.mixture import Mixture


class FreeMixtureMap(Univariate):
    r"""Mixture of K Gaussians of which the conditioner gives everything.

    .. math:: y = \Phi^{-1}\Bigl(\sum_k \pi_k \Phi\bigl(\tfrac{x - \mu_k}{\sigma_k}\bigr)\Bigr)

    Parameters of an entry are all :math:`\log \pi`, which add to one, then all :math:`\mu`, then
    all :math:`\log \sigma`.

    Args:
        components: K.

    Raises:
        ValueError: for none.

    >>> import torch
    >>> mixture = FreeMixtureMap(2)
    >>> parameters = torch.tensor([0.5, 0.5, 0.1, 0.1]).log()
    >>> parameters = torch.cat([parameters[:2], torch.tensor([-1.0, 1.0]), parameters[2:]])
    >>> round(mixture(parameters)(torch.tensor(1.0)).item(), 2)
    1.05
    """

    def __init__(self, components: int) -> None:
        if components < 1:
            raise ValueError(f"expected at least 1 component, got {components}")
        super().__init__(3 * components, lags=0)
        self.components = components

    def forward(self, parameters: Tensor, recent: Tensor | None = None) -> Mixture:
        log_weights, locations, log_scales = parameters.unflatten(-1, (3, -1)).unbind(-2)
        return Mixture(log_weights, locations, log_scales)
