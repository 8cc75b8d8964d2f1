"""The bound as one torch module, and a check of the data."""

from typing import Any

import pyro.poutine as poutine
import torch
from pyro.infer import ELBO, ReweightedWakeSleep, TraceTailAdaptive_ELBO
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
        _check_objective(self.elbo)
        self.latents = KLScale()

    def forward(
        self, x: Tensor, lengths: Tensor | None = None, context: Tensor | None = None
    ) -> Tensor:
        """The loss of sequences.

        Args:
            x: ``(batch, T, *frame_shape)``.
            lengths: ``(batch,)``: frames that count.
            context: covariates, ``(batch, T, context_features)``.
        """
        programs = self.latents(self.model), self.latents(self.guide or no_guide)
        skip = context_length(self.model)
        given: dict[str, Tensor] = {}
        if lengths is None:
            terms = x.shape[0] * (x.shape[1] - skip)
        else:
            given["lengths"], terms = lengths, int(lengths.sum()) - skip * len(lengths)
        if context is not None:
            given["covariates"] = context
        if isinstance(self.elbo, TraceTailAdaptive_ELBO):
            return self._with_plain_bound(programs, x, given) / terms
        if not hasattr(self.elbo, "differentiable_loss"):
            return self._with_gradients(programs, x, given, terms)
        loss: Tensor = self.elbo.differentiable_loss(*programs, x, **given)
        return loss / terms

    def _with_plain_bound(self, programs: Any, x: Tensor, given: dict[str, Tensor]) -> Tensor:
        """The gradients of an objective that has no value of its own, and the plain bound."""
        elbo: Any = self.elbo
        value: Any = 0.0
        surrogate: Any = 0.0
        for joint, posterior in elbo._get_traces(*programs, (x,), given):
            difference = posterior.log_prob_sum() - joint.log_prob_sum()
            value = value + difference.detach() / elbo.num_particles
            _, particle = elbo._differentiable_loss_particle(joint, posterior)
            surrogate = surrogate + particle / elbo.num_particles
        loss: Tensor = surrogate + (value - surrogate.detach())
        return loss

    def _with_gradients(
        self, programs: Any, x: Tensor, given: dict[str, Tensor], terms: int
    ) -> Tensor:
        """The loss of an objective that takes its own gradients, such as wake-sleep."""
        with poutine.trace(param_only=True) as seen:
            loss = self.elbo.loss_and_grads(*programs, x, **given)  # type: ignore[attr-defined]
        sites: list[Any] = [*seen.trace.nodes.values()]
        found = [site["value"].unconstrained() for site in sites]
        for parameter in {id(p): p for p in found}.values():  # one may have several names
            if parameter.grad is not None:
                parameter.grad.div_(terms)
        of_model = loss[0] if isinstance(loss, tuple) else loss  # and of the guide
        return torch.tensor(float(torch_item(of_model)) / terms, requires_grad=True)


def _check_objective(elbo: Any) -> None:
    """Refuse an objective that cannot be asked for the gradients of these programs.

    Raises:
        TypeError: if it has no such method.
        ValueError: for wake-sleep with its sleep phase, whose observations Pyro hands over as a
            dictionary.
    """
    if not any(hasattr(elbo, method) for method in ("differentiable_loss", "loss_and_grads")):
        raise TypeError(
            f"expected an objective such as Trace_ELBO, got {type(elbo).__name__}, which has "
            "neither `differentiable_loss` nor `loss_and_grads`"
        )
    if isinstance(elbo, ReweightedWakeSleep) and elbo.insomnia < 1.0:
        raise ValueError(
            f"no sleep phase (insomnia={elbo.insomnia:g}): it hands `observations=` to the guide, "
            "and guides of sequences take `x`; use ReweightedWakeSleep(insomnia=1.0)"
        )


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
