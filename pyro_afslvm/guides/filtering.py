"""The filtering posterior: each latent sees the frames up to its own."""

from torch import Tensor, nn

from pyro_afslvm.guides.base import ForwardGuide, encoded
from pyro_afslvm.models.base import SequenceBatch
from pyro_afslvm.models.slvm import SLVM
from pyro_afslvm.transforms import (
    InverseAutoregressive,
    LSTMConditioner,
    TemporalAffine,
    TemporalTransform,
)


class FilteringGuide(ForwardGuide):
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
            in place of the LSTM's; ``hidden`` and ``layers`` then mean nothing.
        iaf: inverse autoregressive flow of each step's latents, with ``encoder.features``
            context features; makes the posterior of a step more than a diagonal Gaussian.
        encode_memory: whether the encoder is given the model's summary before the frame too, of
            its memory and covariates, as a second argument ``(*batch, model.past_features)``.

    Raises:
        ValueError: to encode the memory of a model that has none.

    Source: Marino et al., Eq. 19, Appendix B; for IAF Kingma et al., arXiv:1606.04934.
    """

    def __init__(
        self,
        model: SLVM,
        encoder: nn.Module,
        *,
        hidden: int = 256,
        layers: int = 1,
        posterior: TemporalTransform | None = None,
        iaf: InverseAutoregressive | None = None,
        encode_memory: bool = False,
    ) -> None:
        if encode_memory and not model.past_features:
            raise ValueError("expected a model with a memory for the encoder to see, got none")
        features: int = encoder.features  # type: ignore[assignment]
        if posterior is None:
            lstm = LSTMConditioner(
                model.latent_size, hidden=hidden, layers=layers, context_features=features
            )
            posterior = TemporalAffine(lstm)
        super().__init__(model, posterior, iaf=iaf)
        self.encoder = encoder
        self.encode_memory = encode_memory
        self._features = features

    def context(self, batch: SequenceBatch) -> Tensor:
        """Encode the noise behind each scored frame: ``(batch, T, features)``."""
        past = self.model.past(batch) if self.encode_memory else None
        return self._encoded(self.model.to_noise(batch), past)

    def frame_context(self, y: Tensor, past: Tensor | None = None) -> Tensor:
        """Encode the noise behind one frame: ``(*batch, features)``."""
        return self._encoded(y, past if self.encode_memory else None)

    def _encoded(self, y: Tensor, past: Tensor | None) -> Tensor:
        given = (y,) if past is None else (y, past)
        return encoded(
            self.encoder, *given, expected=self._features, frame_shape=self.model.frame_shape
        )
