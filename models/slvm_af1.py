"""SLVM w/ 1-AF: the latent variable model on the noise of a flow, at the paper's size.

Marino, Chen, He, Mandt, *Improving Sequential Latent Variable Models with Autoregressive
Flows*, Appendix B.2: one LSTM layer in prior and posterior, which sees the flow's noise.
"""

from pyro_afslvm import (
    SLVM,
    ConvConditioner,
    FilteringGuide,
    LSTMConditioner,
    Pair,
    TemporalAffine,
)
from pyro_afslvm.networks import ConvDecoder, ConvEncoder, mlp

LEARNING_RATE = 1e-4
BATCH_SIZE = 16
STEPS = 200_000


def build(frame_shape: tuple[int, ...] = (1, 64, 64), *, latent_size: int = 256) -> Pair:
    """Model and filtering guide."""
    flow = TemporalAffine(ConvConditioner(frame_shape[0], hidden=64, window=3, norm="batch"))
    prior = LSTMConditioner(latent_size, hidden=256, pre_network=mlp(latent_size, 256, 256))
    model = SLVM(
        frame_shape,
        latent_size,
        prior=TemporalAffine(prior),
        decoder=ConvDecoder(latent_size, frame_shape, norm="batch"),
        flow=flow,
    )
    encoder = ConvEncoder(frame_shape, features=128, norm="batch")
    return Pair(model, FilteringGuide(model, encoder, hidden=256))
