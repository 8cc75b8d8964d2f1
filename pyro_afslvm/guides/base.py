"""Posteriors that sample forward in time, with or without IAF on top: the base of guides."""

from typing import Any, NamedTuple

import pyro
import pyro.distributions as dist
from torch import Tensor, nn

from pyro_afslvm.distributions import across_time, standard_normal
from pyro_afslvm.models.base import SequenceBatch
from pyro_afslvm.models.checks import check_horizon
from pyro_afslvm.models.inputs import as_frames, as_lengths
from pyro_afslvm.models.param_store import register, restore
from pyro_afslvm.models.random_weights import check_seen_weights
from pyro_afslvm.models.slvm import SLVM
from pyro_afslvm.transforms import InverseAutoregressive, TemporalTransform, check_size
from pyro_afslvm.transforms.iaf.vectors import check_iaf


class Proposal(NamedTuple):
    """Latents of one step drawn from a guide."""

    z: Tensor  # (*batch, latent_size)
    log_prob: Tensor  # log q(z_t | x, z_<t) in nats, (*batch,)
    state: Any


class ForwardGuide(nn.Module):
    r"""Posterior over the latents of an :class:`~pyro_afslvm.SLVM`, sampled forward in time.

    .. math:: q(z_{1:T} \mid x_{1:T}) = \prod_t q(z_t \mid h_t, z_{<t}), \qquad
        z_t = f_{\mathrm{IAF}}(u_t; h_t), \quad u_t = \mu(u_{<t}, h_{\le t}) +
        \sigma(u_{<t}, h_{\le t}) \odot \epsilon_t

    :math:`h_t` is the :meth:`context` that a subclass makes of the frames, filtering (Eq. 19) or
    smoothing. Without IAF z is u, Gaussian given the past.

    Args:
        model: the model it is for; used for its sizes and its flow, and not owned.
        posterior: transform across time of N(0, I), with h_t as context.
        iaf: transform of each step's latents, with h_t as context.

    Raises:
        ValueError: if a part is not of the model's latents.

    Source: Marino et al., Eq. 19; for IAF Kingma et al., arXiv:1606.04934.
    """

    def __init__(
        self,
        model: SLVM,
        posterior: TemporalTransform,
        *,
        iaf: InverseAutoregressive | None = None,
    ) -> None:
        super().__init__()
        check_iaf(iaf, model.latent_size)
        check_size(posterior, model.latent_size, "the posterior")
        self._model = (model,)  # in a tuple: its parameters have one owner
        self.posterior = posterior
        self.iaf = iaf

    @property
    def model(self) -> SLVM:
        """The model this guide was made for."""
        return self._model[0]

    def forward(
        self,
        x: Tensor | None = None,
        *,
        horizon: int = 0,
        lengths: Tensor | None = None,
        context: Tensor | None = None,
        covariates: Tensor | None = None,
    ) -> Tensor | None:
        """q(z | x), Eq. 19; the arguments are those of the model.

        Returns:
            z of shape ``(*particles, batch, T - context_length, latent_size)``.
        """
        register(self)
        x = None if x is None else as_frames(x, self, lengths=lengths)
        lengths = as_lengths(lengths)
        check_horizon(x, horizon, lengths)
        if x is None:
            return None
        # with a horizon there are covariates of frames to come, too
        context = context if covariates is None else covariates
        known = None if context is None else context[..., : x.shape[1], :]
        check_seen_weights(self.model.flow, self.model.memory)
        with self.model.plate(x):
            z: Tensor = pyro.sample("z", self.distribution(self.model.batch(x, lengths, known)))
            return z

    def distribution(self, batch: SequenceBatch) -> dist.TorchDistribution:
        """q(z | x), Eq. 19: event ``(T, latent_size)``."""
        restore(self)
        shape = (batch.targets.shape[1], self.model.latent_size)
        base = standard_normal(shape, batch.targets).expand([batch.size])
        context = self.context(batch)
        forward = self.posterior.condition(context=context, mask=batch.mask)
        if self.iaf is None:
            return across_time(base, forward)
        return across_time(base, forward, self.iaf.condition(context, mask=batch.mask))

    # what a guide defines ---------------------------------------------------------------

    def context(self, batch: SequenceBatch) -> Tensor:
        """Give what the posterior sees of the frames at each of them: ``(batch, T, features)``."""
        raise NotImplementedError

    def frame_context(self, y: Tensor, past: Tensor | None = None) -> Tensor:
        """Give the context at one frame, no later one of which is known: ``(*batch, features)``.

        Args:
            y: the noise behind the frame, ``(*batch, *frame_shape)``.
            past: the model's summary of the frames before, where it has a memory.

        Raises:
            TypeError: if this guide sees later frames.
        """
        raise TypeError(
            f"expected a filtering guide, got {type(self).__name__}, which sees later frames"
        )

    # one step after the other -----------------------------------------------------------

    def initial_state(self, batch_shape: Any) -> Any:
        """Give the state from which :meth:`step` draws the first latents."""
        return self.posterior.initial_state(batch_shape)

    def step(self, eps: Tensor, state: Any, *, context: Tensor) -> Proposal:
        """Make the latents of one step from N(0, I) draws ``(*batch, latent_size)``."""
        z, log_scale, state = self.posterior.step(eps, state, context=context)
        log_prob = standard_normal(eps.shape[-1:], eps).log_prob(eps) - log_scale.sum(-1)
        if self.iaf is not None:
            transform, u = self.iaf.condition(context), z
            z = transform(u)
            log_prob = log_prob - transform.log_abs_det_jacobian(u, z)
        return Proposal(z, log_prob, state)


def encoded(
    encoder: nn.Module, *given: Tensor, frame_shape: tuple[int, ...], expected: int
) -> Tensor:
    """Encode frames, with an encoder that must have been made for their size.

    Raises:
        ValueError: if it was not.
    """
    try:
        features: Tensor = encoder(*given)
    except RuntimeError as error:
        if "shapes cannot be multiplied" not in str(error) and "to have" not in str(error):
            raise
        raise ValueError(f"expected an encoder of frames {frame_shape}, got another") from None
    if features.shape[-1] != expected:
        raise ValueError(
            f"expected an encoder of frames {frame_shape} with {expected} features, got one with "
            f"{features.shape[-1]}"
        )
    return features


def check_guide(model: nn.Module, guide: ForwardGuide) -> None:
    """Refuse a guide that was made for another model: it would use that one's flow."""
    if guide.model is not model:
        raise ValueError(
            "expected the guide of this model, got one that was made for another model: make it, "
            "or copy it, together with this one"
        )
