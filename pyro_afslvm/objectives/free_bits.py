"""Free bits: an objective that charges every group of latents no less than a fixed amount."""

import math
from typing import Any

import torch
from pyro.infer import ELBO
from pyro.infer.enum import get_importance_trace
from pyro.infer.util import torch_item
from pyro.poutine.util import site_is_subsample
from torch import Tensor

from pyro_afslvm.distributions import log_prob_per_entry


class FreeBitsELBO(ELBO):
    r"""Bound in which every group of latents counts at least :math:`\lambda` nats.

    .. math:: E_q \log p(x \mid z) - \sum_j \max\left(\lambda,
        E_\mathrm{batch} \log \frac{q(z_j \mid \cdot)}{p(z_j \mid \cdot)} \right)

    A group is a site, or a channel of a site of images; the expectation is over a batch with
    one sample of each sequence. A group below :math:`\lambda` is not driven towards the prior,
    so that it may come into use. The value is at most the plain bound, which is what is
    reported; this is for training only.

    Args:
        nats: :math:`\lambda`, per group and sequence; finite.
        channels: whether each channel of a site ``(T, C, H, W)`` is a group of its own.

    Raises:
        ValueError: if ``nats`` is negative or not finite.

    Source: Kingma et al., *Improving Variational Inference with Inverse Autoregressive Flow*,
    arXiv:1606.04934, Appendix C.8.
    """

    def __init__(self, nats: float, *, channels: bool = False) -> None:
        if not 0 <= nats < math.inf:
            raise ValueError(f"expected finite free bits of at least 0 nats, got {nats:g}")
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
    return log_prob_per_entry(distribution, z).sum((-2, -1)).sum(-2)  # (*batch, T, C, H, W)
