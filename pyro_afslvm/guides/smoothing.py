"""The smoothing posterior: each latent sees all frames."""

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from pyro_afslvm.guides.base import ForwardGuide, encoded
from pyro_afslvm.models.base import SequenceBatch
from pyro_afslvm.models.slvm import SLVM
from pyro_afslvm.networks.recurrent import LSTM
from pyro_afslvm.transforms import InverseAutoregressive, LSTMConditioner, TemporalAffine


class SmoothingGuide(ForwardGuide):
    r"""Smoothing posterior over the latents of an :class:`~pyro_afslvm.SLVM`.

    .. math:: q(z_{1:T} \mid x_{1:T}) = \prod_t q(z_t \mid x_{1:T}, z_{<t})

    The frames' features go through a bidirectional LSTM, and its summary of all of them stands
    beside each frame's own features: what the filtering guide knows is there from the first
    step of training, or the latents would be given up before the summary says anything. Where
    a sequence ends earlier than the batch, the summary starts from its own end.

    Args:
        model: the model it is for, as in :class:`~pyro_afslvm.FilteringGuide`.
        encoder: maps ``(*batch, *frame_shape)`` to ``(*batch, encoder.features)``.
        summary: size of the bidirectional LSTM in each direction.
        hidden: size of the posterior's LSTM.
        layers: number of its layers.
        iaf: as in :class:`~pyro_afslvm.FilteringGuide`, with ``encoder.features + 2 * summary``
            context features.

    Source: as Marino et al., Eq. 19, but for what is seen of the frames.
    """

    def __init__(
        self,
        model: SLVM,
        encoder: nn.Module,
        *,
        summary: int = 128,
        hidden: int = 256,
        layers: int = 1,
        iaf: InverseAutoregressive | None = None,
    ) -> None:
        features: int = encoder.features  # type: ignore[assignment]
        posterior = LSTMConditioner(
            model.latent_size,
            hidden=hidden,
            layers=layers,
            context_features=features + 2 * summary,
        )
        super().__init__(model, TemporalAffine(posterior), iaf=iaf)
        self.encoder = encoder
        self.summary = LSTM(features, summary, batch_first=True, bidirectional=True)
        self._features = features

    def context(self, batch: SequenceBatch) -> Tensor:
        """Give features and summary: ``(batch, T, encoder.features + 2 * summary)``."""
        y = self.model.to_noise(batch)
        features = encoded(
            self.encoder, y, frame_shape=self.model.frame_shape, expected=self._features
        )
        features = features.to(batch.targets.dtype)
        return torch.cat([features, self._summary(features, batch.mask)], -1)

    def _summary(self, features: Tensor, mask: Tensor | None) -> Tensor:
        if mask is None:
            outputs: Tensor = self.summary(features)[0]
            return outputs
        lengths, total = mask.sum(-1).cpu(), features.shape[1]
        packed = pack_padded_sequence(features, lengths, batch_first=True, enforce_sorted=False)
        outputs, _ = pad_packed_sequence(self.summary(packed)[0], True, total_length=total)
        return outputs
