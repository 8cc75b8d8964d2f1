"""What guides share: a posterior that samples forward in time, with or without IAF on top."""

from typing import Any, NamedTuple

import pyro
import pyro.distributions as dist
from torch import Tensor, nn

from pyro_afslvm.distributions import across_time, standard_normal
from pyro_afslvm.models.base import Split
from pyro_afslvm.models.checks import check_horizon
from pyro_afslvm.models.param_store import register
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

    :math:`h_t` is the :meth:`context` that a subclass makes of the frames, filtering or
    smoothing. Without IAF z is u, Gaussian given the past.

    Args:
        model: the model it is for; used for its sizes and its flow, and not owned.
        posterior: transform across time of N(0, I), with h_t as context.
        iaf: transform of each step's latents, with h_t as context.

    Raises:
        ValueError: if a part is not of the model's latents.
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
        self, x: Tensor | None = None, *, horizon: int = 0, lengths: Tensor | None = None
    ) -> Tensor | None:
        """q(z | x), Eq. 19; the arguments are those of the model.

        Returns:
            z of shape ``(*particles, batch, T - context_length, latent_size)``.
        """
        register(self)
        check_horizon(x, horizon, lengths)
        if x is None:
            return None
        parts = self.model.split(x, lengths)
        with pyro.plate("sequence", parts.batch, dim=-1):
            z: Tensor = pyro.sample("z", self.distribution(parts))
            return z

    def distribution(self, parts: Split) -> dist.TorchDistribution:
        """q(z | x): event ``(T, latent_size)``."""
        shape = (parts.values.shape[1], self.model.latent_size)
        base = standard_normal(shape, parts.values).expand([parts.batch])
        context = self.context(parts)
        forward = self.posterior.condition(context=context, mask=parts.mask)
        if self.iaf is None:
            return across_time(base, forward)
        return across_time(base, forward, self.iaf.condition(context, mask=parts.mask))

    # what a guide defines ---------------------------------------------------------------

    def context(self, parts: Split) -> Tensor:
        """What the posterior sees of the frames at each of them: ``(batch, T, features)``."""
        raise NotImplementedError

    def frame_context(self, y: Tensor, past: Tensor | None = None) -> Tensor:
        """The context at one frame of which no later one is known: ``(*batch, features)``.

        Args:
            y: the noise behind the frame, ``(*batch, *frame_shape)``.
            past: the model's summary of the frames before, where it has a memory.

        Raises:
            TypeError: if this guide sees later frames.
        """
        raise TypeError(f"{type(self).__name__} sees later frames, a stream has none yet")

    # one step after the other -----------------------------------------------------------

    def initial_state(self, batch_shape: Any) -> Any:
        """The state from which :meth:`step` gives the first latents."""
        return self.posterior.initial_state(batch_shape)

    def step(self, noise: Tensor, state: Any, *, context: Tensor) -> Proposal:
        """Latents of one step, from N(0, I) noise ``(*batch, latent_size)``."""
        z, log_scale, state = self.posterior.step(noise, state, context=context)
        log_prob = standard_normal(noise.shape[-1:], noise).log_prob(noise) - log_scale.sum(-1)
        if self.iaf is not None:
            transform, u = self.iaf.condition(context), z
            z = transform(u)
            log_prob = log_prob - transform.log_abs_det_jacobian(u, z)
        return Proposal(z, log_prob, state)


def encoded(encoder: nn.Module, y: Tensor, frame_shape: tuple[int, ...], expected: int) -> Tensor:
    """The features of frames, from an encoder that was made for their size.

    Raises:
        ValueError: if it was not.
    """
    try:
        features: Tensor = encoder(y)
    except RuntimeError as error:
        if "shapes cannot be multiplied" not in str(error) and "to have" not in str(error):
            raise
        raise ValueError(f"the encoder was not made for frames of {frame_shape}") from None
    if features.shape[-1] != expected:
        raise ValueError(
            f"the encoder was not made for frames of {frame_shape}: it gave {features.shape[-1]} "
            f"features and not {expected}"
        )
    return features


def check_guide(model: nn.Module, guide: ForwardGuide) -> None:
    """Refuse a guide that was made for another model: it would use that one's flow."""
    if guide.model is not model:
        raise ValueError(
            "the guide was made for another model: make it, or copy it, together with this one"
        )
