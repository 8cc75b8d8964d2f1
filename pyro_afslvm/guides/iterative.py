"""The iterative posterior: improved at every step by the gradient of that step's bound."""

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_flatten, tree_unflatten

from pyro_afslvm.guides.base import ForwardGuide
from pyro_afslvm.models.base import SequenceBatch
from pyro_afslvm.models.slvm import SLVM
from pyro_afslvm.networks.layers import single_steps, without_autocast
from pyro_afslvm.networks.mlp import mlp
from pyro_afslvm.transforms import AffineParameters, Conditioner, TemporalAffine, check_affine
from pyro_afslvm.utils.trees import map_tensors


class IterativeGuide(ForwardGuide):
    r"""Filtering posterior found by a few learned updates from the gradient of the bound.

    .. math:: \lambda \leftarrow g \odot \lambda + (1 - g) \odot u, \qquad
        (g, u) = f_\phi(\lambda, \nabla_\lambda L_t), \qquad
        L_t = E_{q(z_t; \lambda)} \log \frac{p(y_t \mid z_t)\, p(z_t \mid z_{<t})}
        {q(z_t; \lambda)}

    with :math:`\lambda = (\mu, \log \sigma)` of q(z_t), started at the prior's prediction;
    :math:`f_\phi` sees the gradient as :math:`\operatorname{asinh}(\sigma \nabla_\mu L_t)` and
    :math:`\operatorname{asinh}(\nabla_{\log \sigma} L_t)`. The
    expectation is taken with one sample, whose N(0, I) draw belongs to the frame, one for all
    particles: given it, q is Gaussian given the past, and the bound is a bound.

    The model is held still while its posterior is searched: the gradient of the bound that
    training sees is the one at fixed :math:`\lambda` for the model, and leaves out how the
    prior's prediction and the gradients above depend on its parameters. A decoder with batch
    norm would move its statistics at every update; use group norm.

    It has no encoder: what it knows of a frame comes through the model's decoder. Its sampling
    and scoring both go step by step, ``iterations`` gradients of the decoder each.

    Args:
        model: the model it is for, which it asks for these gradients, and does not own.
        iterations: updates of each step, K; the attribute of that name may be changed later.
        hidden: sizes of the hidden layers of :math:`f_\phi`.

    Source: Marino, Cvitkovic, Yue, *A General Method for Amortizing Variational Filtering*,
    arXiv:1811.05090.
    """

    def __init__(
        self, model: SLVM, *, iterations: int = 2, hidden: tuple[int, ...] = (256, 256)
    ) -> None:
        if not hidden:
            raise ValueError("expected at least 1 hidden layer, got none")
        check_affine(model.prior, "iterative guide")  # its updates start at shift and scale
        conditioner = _IterativeConditioner(model, hidden)
        super().__init__(model, _ModelAffine(conditioner, model))
        self.iterations = iterations

    @property
    def iterations(self) -> int:
        """Updates of each step; may be changed."""
        return self._iterations

    @iterations.setter
    def iterations(self, iterations: int) -> None:
        if iterations < 0:
            raise ValueError(f"expected at least 0 iterations, got {iterations}")
        self._iterations = iterations

    def context(self, batch: SequenceBatch) -> Tensor:
        """Give what the updates of each step need: a :class:`StepContext`, packed."""
        y = self.model.to_noise(batch)
        return self.frame_context(y, self.model.past(batch))

    def frame_context(self, y: Tensor, past: Tensor | None = None) -> Tensor:
        """Give the same for one frame, or for any number of them."""
        batch = y.shape[: y.ndim - len(self.model.frame_shape)]
        return StepContext(y, past, self.draw(batch, like=y)).packed()

    def draw(self, batch_shape: tuple[int, ...], *, like: Tensor) -> Tensor:
        """Draw from N(0, I) for every update: ``(*batch, iterations, latent_size)``."""
        shape = (*batch_shape, self.iterations, self.model.latent_size)
        return torch.randn(shape, dtype=like.dtype, device=like.device)


class StepContext(NamedTuple):
    """The inputs of a step's updates, beside the latents before it."""

    y: Tensor  # the noise behind the frame, (*batch, *frame_shape)
    past: Tensor | None  # the summary of a model's memory, (*batch, features)
    eps: Tensor  # a draw for each update, (*batch, iterations, latent_size)

    def packed(self) -> Tensor:
        """Put them side by side: ``(*batch, features)``, as a transform takes a context."""
        batch = self.eps.ndim - 2
        parts = [self.y.flatten(batch), self.eps.flatten(batch)]
        if self.past is not None:
            parts.insert(1, self.past.to(self.y))
        return torch.cat(parts, -1)

    @classmethod
    def unpacked(cls, context: Tensor, model: SLVM) -> "StepContext":
        """Take a context of this model apart."""
        num_values = math.prod(model.frame_shape)
        features = model.past_features
        y, past, eps = context.tensor_split((num_values, num_values + features), -1)
        return cls(
            y.unflatten(-1, model.frame_shape),
            past if features else None,
            eps.unflatten(-1, (eps.shape[-1] // model.latent_size, model.latent_size)),
        )


class _State(NamedTuple):
    """The prior before the last latents, and what it saw of the frames then."""

    prior: Any
    past: Tensor | None
    batch: tuple[int, ...]


class _IterativeConditioner(Conditioner):
    """Conditioner that improves the prior's shift and log-scale by updates."""

    def __init__(self, model: SLVM, hidden: tuple[int, ...]) -> None:
        size = model.latent_size
        super().__init__(frame_dims=1, initial_shape=(size,), window=0, reach=None)
        self._model = (model,)
        self.network = mlp(4 * size, *hidden)
        self.gate = nn.Linear(hidden[-1], 2 * size)
        self.update = nn.Linear(hidden[-1], 2 * size)
        nn.init.constant_(self.gate.bias, 2.0)  # at first most of the prior's prediction stays

    @property
    def model(self) -> SLVM:
        return self._model[0]

    def forward(
        self, values: Tensor, *, history: Tensor | None = None, context: Tensor | None = None
    ) -> AffineParameters:
        before, steps = None, values.shape[-2]
        if context is not None and context.shape[-2] > steps:
            before, context = context.tensor_split((context.shape[-2] - steps,), -2)
        state: Any = self.initial_state(values.shape[:-2], history=history, context=before)
        previous = None if history is None else history[..., -1, :]
        found = []
        for t in range(steps):
            present = None if context is None else context[..., t, :]
            parameters, state = self.step(previous, state, context=present)
            found.append(parameters)
            previous = values[..., t, :]
        return AffineParameters(*(torch.stack(each, -2) for each in zip(*found, strict=True)))

    def initial_state(
        self,
        batch_shape: torch.Size,
        *,
        history: Tensor | None = None,
        context: Tensor | None = None,
    ) -> _State:
        if history is None:
            return _State(self.model.prior.initial_state(batch_shape), None, batch_shape)
        past = None if context is None else StepContext.unpacked(context, self.model).past
        absorbed = history[..., :-1, :] if history.shape[-2] > 1 else None
        prior = self.model.prior.initial_state(
            batch_shape, history=absorbed, context=None if past is None else past[..., :-1, :]
        )
        return _State(prior, None if past is None else past[..., -1, :], batch_shape)

    def step(
        self, previous: Tensor | None, state: _State, *, context: Tensor | None = None
    ) -> tuple[AffineParameters, _State]:
        model = self.model
        if context is None:
            raise ValueError(
                "expected a context, without which there is no frame to improve on; got none"
            )
        y, past, draws = StepContext.unpacked(context, model)
        prior = state.prior
        if previous is not None:
            prior = model.prior.inverse_step(previous, prior, context=state.past)[2]
        batch = torch.broadcast_shapes(state.batch, context.shape[:-1])
        zeros = y.new_zeros(*batch, model.latent_size)
        shift, log_scale, _ = model.prior.step(zeros, prior, context=past)
        # the model stands still while its posterior is searched
        current = AffineParameters(shift.detach(), log_scale.detach().expand_as(shift))
        for eps in draws.unbind(-2):
            gradient = self._gradient(current, eps, y, prior, past)
            current = self._updated(current, gradient)
        held = None if past is None else past.expand(*batch, past.shape[-1])
        return current, _State(prior, held, batch)

    def _updated(self, now: AffineParameters, gradient: AffineParameters) -> AffineParameters:
        shift, log_scale = (p.detach() for p in now)
        # in units of the scale; far from the optimum gradients are larger by orders of magnitude
        slopes = (log_scale.exp() * gradient.shift).asinh(), gradient.log_scale.asinh()
        with without_autocast(shift.device):
            features = self.network(torch.cat([shift, log_scale, *slopes], -1))
            gate, update = self.gate(features).sigmoid(), self.update(features)
        mixed = gate * torch.cat(now, -1) + (1 - gate) * update
        return AffineParameters(*mixed.chunk(2, -1))

    def _gradient(
        self, now: AffineParameters, eps: Tensor, y: Tensor, prior: Any, past: Tensor | None
    ) -> AffineParameters:
        """Gradient of the step's bound, in whatever mode the caller is."""
        given = (*now, y, eps, prior, past)
        if torch._C._get_tracing_state() is None:
            return self._gradient_of(*given)
        # autograd within a trace would leave what it keeps as constants: one opaque call instead
        leaves, tree = tree_flatten(given)
        tensors = [leaf for leaf in leaves if isinstance(leaf, Tensor)]

        def gradient(*tensors: Tensor) -> AffineParameters:
            found = iter(tensors)
            filled = [next(found) if isinstance(leaf, Tensor) else leaf for leaf in leaves]
            return self._gradient_of(*tree_unflatten(filled, tree))

        found = _Untraced.apply(gradient, *tensors)  # type: ignore[no-untyped-call]
        return AffineParameters(*found)

    def _gradient_of(
        self, shift: Tensor, log_scale: Tensor, y: Tensor, eps: Tensor, prior: Any, past: Any
    ) -> AffineParameters:
        with torch.inference_mode(False), torch.enable_grad(), single_steps():
            y, eps, prior, past = map_tensors(_fixed, (y, eps, prior, past))
            shift, log_scale = (_fixed(p).requires_grad_() for p in (shift, log_scale))
            z = shift + log_scale.exp() * eps
            terms, _ = self.model.log_prob_step(y, z, prior, past)
            bound = (terms.y + terms.z + log_scale.sum(-1)).sum()
            return AffineParameters(*torch.autograd.grad(bound, (shift, log_scale)))


class _Untraced(torch.autograd.Function):
    """A function of tensors without a gradient, which a tracer calls and does not look into."""

    @staticmethod
    def forward(ctx: Any, function: Any, *tensors: Tensor) -> tuple[Tensor, ...]:
        state = torch._C._get_tracing_state()
        torch._C._set_tracing_state(None)  # type: ignore[attr-defined]
        try:
            found = tuple(function(*tensors))
        finally:
            torch._C._set_tracing_state(state)  # type: ignore[attr-defined]
        ctx.mark_non_differentiable(*found)
        return found

    @staticmethod
    def backward(ctx: Any, *_: Tensor) -> Any:
        return (None,) * len(ctx.needs_input_grad)


class _ModelAffine(TemporalAffine):
    """An affine transform whose conditioner asks a model."""

    def __init__(self, conditioner: Conditioner, model: SLVM) -> None:
        super().__init__(conditioner)
        self._model = (model,)  # in a tuple, for it is no part of the guide

    @property
    def watched(self) -> tuple[nn.Module, ...]:
        """Guide and model: a posterior is stale when either has changed."""
        (model,) = self._model
        return self, model.prior, model.decoder


def _fixed(x: Tensor) -> Tensor:
    """Give the values alone; outside of inference mode a tensor of it must be copied."""
    return x.clone() if x.is_inference() else x.detach()
