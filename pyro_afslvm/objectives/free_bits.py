"""Free bits: an objective that charges every group of latents no less than a fixed amount."""

from typing import Any

import torch
from pyro.infer import ELBO
from pyro.infer.enum import get_importance_trace
from pyro.infer.util import torch_item
from pyro.poutine.util import site_is_subsample
from torch import Tensor
from torch.distributions import Independent, TransformedDistribution
from torch.distributions.utils import _sum_rightmost


class FreeBitsELBO(ELBO):
    r"""Bound in which every group of latents counts at least :math:`\lambda` nats.

    .. math:: E_q \log p(x \mid z) - \sum_j \max\left(\lambda,
        E_\mathrm{batch} \log \frac{q(z_j \mid \cdot)}{p(z_j \mid \cdot)} \right)

    A group is a site, or a channel of a site of images; the expectation is over a batch with
    one sample of each sequence. A group below :math:`\lambda` is not driven towards the prior,
    so that it may come into use. The value is at most the plain bound, which is what is
    reported; this is for training only.

    Args:
        nats: :math:`\lambda`, per group and sequence.
        channels: whether each channel of a site ``(T, C, H, W)`` is a group of its own.

    Raises:
        ValueError: if ``nats`` is negative.

    Source: Kingma et al., *Improving Variational Inference with Inverse Autoregressive Flow*,
    arXiv:1606.04934, Appendix C.8.
    """

    def __init__(self, nats: float, *, channels: bool = False) -> None:
        if nats < 0:
            raise ValueError(f"expected free bits of at least 0 nats, got {nats:g}")
        super().__init__()  # type: ignore[no-untyped-call]
        self.nats = nats
        self.channels = channels

    def differentiable_loss(self, model: Any, guide: Any, *args: Any, **kwargs: Any) -> Tensor:
        """The negative objective, summed over the batch."""
        joint, posterior = self._get_trace(model, guide, args, kwargs)
        sites: list[Any] = [joint.nodes[name] for name in joint.observation_nodes]
        loss: Tensor = -sum(site["log_prob"].sum() for site in sites)
        for name in posterior.stochastic_nodes:
            q: Any = posterior.nodes[name]
            if not site_is_subsample(q):
                loss = loss + self._cost(q, joint.nodes[name])
        return loss

    def loss(self, model: Any, guide: Any, *args: Any, **kwargs: Any) -> float:
        """The negative objective as a number."""
        with torch.no_grad():
            return float(torch_item(self.differentiable_loss(model, guide, *args, **kwargs)))

    def loss_and_grads(self, model: Any, guide: Any, *args: Any, **kwargs: Any) -> float:
        """The negative objective, after its gradients went to the parameters."""
        loss = self.differentiable_loss(model, guide, *args, **kwargs)
        loss.backward()
        return float(torch_item(loss))

    def _get_trace(self, model: Any, guide: Any, args: Any, kwargs: Any) -> Any:
        return get_importance_trace("flat", self.max_plate_nesting, model, guide, args, kwargs)

    def _cost(self, q: Any, p: Any) -> Tensor:
        z = q["value"]
        ratio = _groups(q["fn"], z, self.channels) - _groups(p["fn"], z, self.channels)
        ratio = ratio.flatten(0, -2)  # (sequences, groups)
        cost: Tensor = len(ratio) * ratio.mean(0).clamp(min=self.nats).sum()
        cost = cost * p["scale"]
        return cost


def _groups(distribution: Any, z: Tensor, channels: bool) -> Tensor:  # -> (*batch, groups)
    """Log-density of every group."""
    if not channels or len(distribution.event_shape) != 4:
        whole: Tensor = distribution.log_prob(z)
        return whole.unsqueeze(-1)
    entries = _sum_rightmost(_entries(distribution, z), 2)  # (*batch, T, C)
    return entries.sum(-2)


def _entries(distribution: Any, z: Tensor) -> Tensor:
    """Log-density of every entry, from transforms that are triangular and say their scales."""
    log_scale: Tensor | float = 0.0
    if isinstance(distribution, TransformedDistribution):
        for transform in reversed(distribution.transforms):
            log_scale = log_scale + transform.log_scale(z)  # type: ignore[attr-defined]
            z = transform.inv(z)
        distribution = distribution.base_dist
    while isinstance(distribution, Independent):
        distribution = distribution.base_dist
    entries: Tensor = distribution.log_prob(z) - log_scale
    return entries
