"""The bound as one torch module, and a check of the data."""

from typing import Any

import pyro.poutine as poutine
import torch
from pyro.infer import ELBO
from pyro.infer.util import torch_item
from torch import Tensor, nn

from pyro_afslvm.models.base import context_length
from pyro_afslvm.models.pair import Pair
from pyro_afslvm.models.programs import evaluating, no_guide, one_line_errors
from pyro_afslvm.objectives import KLScale, UnwatchedELBO


class BoundLoss(nn.Module):
    """The negative bound in nats per sequence and scored frame, as one torch module.

    Args:
        pair: model and guide.
        elbo: the objective, by default that of ``Trace_ELBO()``.

    Attributes:
        latents: by how much the divergence of the latents counts; fully, until it is changed.
    """

    def __init__(self, pair: Pair, elbo: ELBO | None = None) -> None:
        super().__init__()
        self.model = pair.model
        self.guide = pair.guide
        self.elbo = elbo or UnwatchedELBO()  # type: ignore[no-untyped-call]
        self.latents = KLScale()

    def forward(self, x: Tensor) -> Tensor:  # (batch, T, *frame_shape) -> ()
        programs = self.latents(self.model), self.latents(self.guide or no_guide)
        terms = x.shape[0] * (x.shape[1] - context_length(self.model))
        if not hasattr(self.elbo, "differentiable_loss"):
            return self._with_gradients(programs, x, terms)
        loss: Tensor = self.elbo.differentiable_loss(*programs, x)
        return loss / terms

    def _with_gradients(self, programs: Any, x: Tensor, terms: int) -> Tensor:
        """The loss of an objective that takes its own gradients, such as wake-sleep."""
        with poutine.trace(param_only=True) as seen:
            loss = self.elbo.loss_and_grads(*programs, x)  # type: ignore[attr-defined]
        sites: list[Any] = [*seen.trace.nodes.values()]
        found = [site["value"].unconstrained() for site in sites]
        for parameter in {id(p): p for p in found}.values():  # one may have several names
            if parameter.grad is not None:
                parameter.grad.div_(terms)
        of_model = loss[0] if isinstance(loss, tuple) else loss  # and of the guide
        return torch.tensor(float(torch_item(of_model)) / terms, requires_grad=True)


@torch.no_grad()
def check_discrete(model: nn.Module, x: Tensor) -> None:
    """Refuse a density of real numbers where the pixels are 0 or 1.

    On two points a density grows without bound, and says nothing of their probability.

    Args:
        model: a Pyro program with a site ``x``.
        x: some of the data, ``(batch, T, *frame_shape)``.

    Raises:
        ValueError: if the model's ``x`` is not discrete, or ``x`` is none of its values.
    """
    with evaluating(model), one_line_errors():
        observed: Any = poutine.trace(model).get_trace(x).nodes["x"]
    if not observed["fn"].support.is_discrete:
        raise ValueError(
            "the data are binary, but the model has a density of real numbers, which grows "
            "without bound on them: take a model of binary images such as models/vae.py"
        )
