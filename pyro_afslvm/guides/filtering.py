"""The filtering posterior: each latent sees the frames up to its own."""

import pyro
import pyro.distributions as dist
from torch import Tensor, nn

from pyro_afslvm.programs import Split, across_time, check_horizon, register, standard_normal
from pyro_afslvm.slvm import SLVM
from pyro_afslvm.transforms import LSTMConditioner, TemporalAffine, TemporalTransform


class FilteringGuide(nn.Module):
    r"""Filtering posterior over the latents of an :class:`~pyro_afslvm.SLVM`.

    .. math:: q(z_{1:T} \mid x_{1:T}) = \prod_t q(z_t \mid x_{\le t}, z_{<t})

    An affine transform across time of N(0, I), conditioned by an LSTM on earlier latents and
    on an encoding of the frames' noise y (of the frames, in a model without a flow).

    Args:
        model: the model it is for; used for its sizes and its flow, and not owned.
        encoder: maps ``(*batch, *frame_shape)`` to ``(*batch, encoder.features)``.
        hidden: size of the LSTM.
        layers: number of LSTM layers; the paper has two without a flow, one with.
        posterior: a transform of latent vectors with ``encoder.features`` context features,
            in place of the LSTM's.

    Source: Marino et al., Eq. 19, Appendix B.2.
    """

    def __init__(
        self,
        model: SLVM,
        encoder: nn.Module,
        *,
        hidden: int = 256,
        layers: int = 1,
        posterior: TemporalTransform | None = None,
    ) -> None:
        super().__init__()
        self._model = (model,)  # in a tuple: its parameters have one owner
        self.encoder = encoder
        self.posterior = posterior or TemporalAffine(
            LSTMConditioner(
                model.latent_size,
                hidden=hidden,
                layers=layers,
                context_features=encoder.features,  # type: ignore[arg-type]
            )
        )

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

    def context(self, parts: Split) -> Tensor:
        """What the posterior sees of the frames up to each: ``(batch, T, features)``."""
        features: Tensor = self.encoder(self.model.noise(parts))
        return features

    def distribution(self, parts: Split) -> dist.TorchDistribution:
        """q(z | x): event ``(T, latent_size)``."""
        shape = (parts.values.shape[1], self.model.latent_size)
        base = standard_normal(shape, parts.values).expand([parts.batch])
        return across_time(
            base, self.posterior.condition(context=self.context(parts), mask=parts.mask)
        )
