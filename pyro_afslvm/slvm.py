"""The sequential latent variable model, on frames or on the noise of a flow."""

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor, nn

from pyro_afslvm.flow import check_context, check_flow
from pyro_afslvm.objectives import log_prob_per_step
from pyro_afslvm.programs import (
    Split,
    across_time,
    batch_size,
    check_horizon,
    check_latents,
    masked,
    register,
    split,
    standard_normal,
)
from pyro_afslvm.transforms import TemporalTransform, compose


class SLVM(nn.Module):
    r"""Sequential latent variable model, with or without a flow on the frames.

    .. math:: \log p(x, z) = \sum_t \log p(z_t \mid z_{<t}) + \log p(y_t \mid z_{t})
        - \log \left|\det \frac{\partial x_t}{\partial y_t}\right|

    The prior is itself an affine transform across time, of N(0, I); the frames are the flow's
    transform of the decoder's Normal over y. Without a flow y is x.

    Args:
        frame_shape: ``(C, H, W)`` or ``(D,)``.
        latent_size: size of a latent vector z_t.
        prior: a transform across time of latent vectors.
        decoder: maps ``(*batch, latent_size)`` to location and scale ``(*batch, *frame_shape)``.
        flow: a transform across time of frames, or a chain of them.
        context_length: frames that are given; by default as many as the flow cannot score.

    Sites: ``z`` with event ``(T - context_length, latent_size)``, ``x``, and with a horizon
    ``z_future`` and ``x_future``. Any guide with a site ``z`` of that event fits.

    Source: Marino et al., Eq. 16-18.
    """

    def __init__(
        self,
        frame_shape: tuple[int, ...],
        latent_size: int,
        *,
        prior: TemporalTransform,
        decoder: nn.Module,
        flow: TemporalTransform | None = None,
        context_length: int | None = None,
    ) -> None:
        super().__init__()
        if flow is not None:
            check_flow(flow, frame_shape)
        if prior.frame_dims != 1 or prior.context_length:
            raise ValueError("the prior must be a transform of vectors that starts from nothing")
        self.frame_shape = tuple(frame_shape)
        self.latent_size = latent_size
        self.context_length = check_context(flow, context_length)
        self.prior = prior
        self.decoder = decoder
        self.flow = flow

    def forward(
        self, x: Tensor | None = None, *, horizon: int = 0, lengths: Tensor | None = None
    ) -> Tensor | None:
        """p(x, z), Eq. 16-17, and the frames that follow.

        Args:
            x: ``(batch, T, *frame_shape)``; ``None`` to sample from nothing.
            horizon: frames to sample after ``x``.
            lengths: ``(batch,)`` whole numbers: frames of each sequence that count.

        Returns:
            the future frames ``(*batch, horizon, *frame_shape)``, ``None`` without horizon.

        Raises:
            ValueError: as :func:`~pyro_afslvm.programs.split` does; for no ``x`` and no horizon.
        """
        register(self)
        check_horizon(x, horizon, lengths)
        with pyro.plate("sequence", batch_size(x, self.frame_shape), dim=-1):
            z = None
            if x is not None:
                parts = self.split(x, lengths)
                z = pyro.sample("z", self.latents(parts))
                check_latents(z, parts.values.shape[1], self.latent_size)
                pyro.sample("x", self.frames(z, parts), obs=parts.values)
            if not horizon:
                return None
            z_future = pyro.sample("z_future", self._future_latents(z, horizon))
            future: Tensor = pyro.sample("x_future", self._future_frames(z_future, x))
            return future

    def split(self, x: Tensor, lengths: Tensor | None = None) -> Split:
        """Check x and split off the frames that are given."""
        return split(
            x, frame_shape=self.frame_shape, context_length=self.context_length, lengths=lengths
        )

    def latents(self, parts: Split) -> dist.TorchDistribution:
        """p(z): event ``(T, latent_size)``."""
        shape = (parts.values.shape[1], self.latent_size)
        base = standard_normal(shape, parts.values).expand([parts.batch])
        return across_time(base, self.prior.condition(mask=parts.mask))

    def frames(self, z: Tensor, parts: Split) -> dist.TorchDistribution:
        """p(x | z): the decoder's Normal over y, sent through the flow."""
        return self._emission(z, history=parts.history, mask=parts.mask)

    def noise(self, parts: Split) -> Tensor:
        """y behind the scored frames, the input of a guide; without a flow these frames."""
        if self.flow is None:
            return parts.values
        y: Tensor = self.flow.condition(history=parts.history, mask=parts.mask).inv(parts.values)
        return y

    def log_prob(self, x: Tensor, z: Tensor, *, lengths: Tensor | None = None) -> Tensor:
        """log p(x_t | x_<t, z_t) of each scored frame, in nats.

        Args:
            x: ``(batch, T, *frame_shape)``.
            z: ``(*particles, batch, T - context_length, latent_size)``.
            lengths: ``(batch,)``.

        Returns:
            ``(*particles, batch, T - context_length)``; zero where a sequence has ended.
        """
        parts = self.split(x, lengths)
        return log_prob_per_step(self.frames(z, parts), parts.values)

    def predictive_mean(self, x: Tensor, z: Tensor) -> Tensor:
        r"""E[x_t | x_<t, z_t] :math:`= \mu(x_{<t}) + \sigma(x_{<t}) \odot E[y_t | z_t]`.

        Args:
            x: ``(batch, T, *frame_shape)``.
            z: ``(*particles, batch, T - context_length, latent_size)``.

        Returns:
            ``(*particles, batch, T - context_length, *frame_shape)``.
        """
        parts = self.split(x)
        location: Tensor = self.decoder(z)[0]
        if self.flow is None:
            return location
        transform = self.flow.condition(history=parts.history)
        shift, log_scale = compose(transform.levels(parts.values))
        return shift + log_scale.exp() * location

    def _emission(
        self, z: Tensor, *, history: Tensor | None, mask: Tensor | None = None
    ) -> dist.TorchDistribution:
        event = 1 + len(self.frame_shape)
        y: dist.TorchDistribution = dist.Normal(*self.decoder(z)).to_event(event)
        if self.flow is None:
            return masked(y, mask)
        return across_time(y, self.flow.condition(history=history, mask=mask))

    def _future_latents(self, z: Tensor | None, horizon: int) -> dist.TorchDistribution:
        like = next(self.parameters(), torch.empty(())) if z is None else z
        base = standard_normal((horizon, self.latent_size), like)
        return across_time(base, self.prior.condition(history=z))

    def _future_frames(self, z_future: Tensor, x: Tensor | None) -> dist.TorchDistribution:
        return self._emission(z_future, history=x)
