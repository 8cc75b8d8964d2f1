"""The plain ELBO, computed without waiting for its value."""

from typing import Any

from pyro.distributions.util import is_identically_zero
from pyro.infer import Trace_ELBO
from pyro.infer.util import is_validation_enabled
from torch import Tensor


class UnwatchedELBO(Trace_ELBO):
    r"""The bound of :class:`~pyro.infer.Trace_ELBO`, left on the device where it is computed.

    .. math:: E_q \log \frac{p(x, z)}{q(z \mid x)}

    That one makes a number of every term, for which the processor waits until an accelerator has
    computed it, several times at every step; and what waits cannot be captured as a CUDA graph.
    While Pyro's validation is on, which waits anyway, the two are one.

    >>> import pyro, torch
    >>> from pyro_afslvm import FlowModel, MLPConditioner, TemporalAffine
    >>> from pyro_afslvm.models.programs import no_guide
    >>> model = FlowModel(TemporalAffine(MLPConditioner(2, window=3)), (2,))
    >>> with pyro.validation_enabled(False):
    ...     UnwatchedELBO().differentiable_loss(model, no_guide, torch.randn(5, 13, 2)).shape
    torch.Size([])
    """

    def differentiable_loss(self, model: Any, guide: Any, *args: Any, **kwargs: Any) -> Tensor:
        """The negative bound, summed over the batch."""
        plain: Any = super()
        loss: Any = 0.0
        if is_validation_enabled():
            loss = plain.differentiable_loss(model, guide, *args, **kwargs)
        else:
            for joint, posterior in plain._get_traces(model, guide, args, kwargs):
                loss = loss + self._negative_bound(joint, posterior) / self.num_particles
        total: Tensor = loss
        return total

    def _negative_bound(self, joint: Any, posterior: Any) -> Any:
        sites = [site for site in posterior.nodes.values() if site["type"] == "sample"]
        if all(is_identically_zero(site["score_parts"].score_function) for site in sites):
            return posterior.log_prob_sum() - joint.log_prob_sum()
        # samples without a gradient have one of their own
        plain: Any = super()
        value, surrogate = plain._differentiable_loss_particle(joint, posterior)
        return surrogate + (value - surrogate.detach())
