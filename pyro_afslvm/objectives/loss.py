"""The bound as one torch module, and a check of the data."""

from collections.abc import Callable
from typing import Any

import pyro.poutine as poutine
import torch
from pyro.infer import ELBO, ReweightedWakeSleep, TraceTailAdaptive_ELBO
from pyro.infer.util import torch_item
from pyro.poutine.messenger import Messenger
from pyro.poutine.util import site_is_subsample
from torch import Tensor, nn

from pyro_afslvm.models.base import SequenceModel, context_length
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
        sites = pair.model.sites if isinstance(pair.model, SequenceModel) else ()
        self._drawn = _Drawn(sites) if sites and pair.guide is not None else None

    def forward(
        self, x: Tensor, lengths: Tensor | None = None, context: Tensor | None = None
    ) -> Tensor:
        """The loss of sequences.

        Args:
            x: ``(batch, T, *frame_shape)``.
            lengths: ``(batch,)``: frames that count.
            context: covariates, ``(batch, T, context_features)``.

        Raises:
            ValueError: at the first call, for a guide that leaves out latents of the model.
        """
        programs = self.latents(self.model), self.latents(self.guide or no_guide)
        if self._drawn is not None:  # the first time
            programs, self._drawn = self._drawn.watching(*programs), None
        given: dict[str, Tensor] = {} if lengths is None else {"lengths": lengths}
        terms = self.num_frames(x, lengths)
        if context is not None:
            given["covariates"] = context
        if isinstance(self.elbo, TraceTailAdaptive_ELBO):
            return self._with_plain_bound(programs, x, given) / terms
        if not hasattr(self.elbo, "differentiable_loss"):
            return self._with_gradients(programs, x, given, terms)
        loss: Tensor = self.elbo.differentiable_loss(*programs, x, **given)
        return loss / terms

    def num_frames(self, x: Tensor, lengths: Tensor | None = None) -> int:
        """Count the frames of sequences that are scored, of all of them together."""
        frames = x.shape[0] * x.shape[1] if lengths is None else int(lengths.sum())
        return frames - context_length(self.model) * len(x)

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


class _Drawn:
    """Names of what a guide draws, which a model's latents are to be among.

    Pyro would draw the others from the prior.

    Args:
        wanted: the model's latents.
    """

    def __init__(self, wanted: tuple[str, ...]) -> None:
        self.wanted = wanted
        self.names: dict[str, None] = {}

    def watching(self, model: Callable[..., Any], guide: Callable[..., Any]) -> tuple[Any, Any]:
        """Both programs, of which the model refuses a guide at the first latent it lacks."""
        note, check = _OnLatents(self._note), _OnLatents(self._check)
        return check(model), note(guide)

    def _note(self, name: str) -> None:
        self.names[name] = None

    def _check(self, name: str) -> None:
        left_out = [site for site in self.wanted if site not in self.names]
        if name in left_out:
            raise ValueError(
                f"expected a guide with the model's latents {', '.join(left_out)}, got one with "
                f"{', '.join(self.names) or 'none'}"
            )


class _OnLatents(Messenger):
    """Call a function with the name of every latent, before it is drawn."""

    def __init__(self, call: Callable[[str], None]) -> None:
        super().__init__()
        self._call = call

    def _pyro_sample(self, msg: Any) -> None:
        if not (msg["is_observed"] or site_is_subsample(msg)):
            self._call(msg["name"])


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
