"""A variational recurrent network, small: prior and decoder see the frames before.

Chung et al., *A Recurrent Latent Variable Model for Sequential Data*, arXiv:1506.02216. The
prior's LSTM reads the latents and the encoding of the frame before; the decoder sees a summary
of the frames before beside z_t, where the original shows it one of the latents too.
"""

from pyro_afslvm import (
    SLVM,
    FilteringGuide,
    HistoryEncoder,
    LSTMConditioner,
    Pair,
    TemporalAffine,
)
from pyro_afslvm.networks import ConvDecoder, ConvEncoder, mlp

NAME = "VRNN"
LEARNING_RATE = 1e-3
BATCH_SIZE = 8
STEPS = 2000


def build(frame_shape: tuple[int, ...] = (1, 32, 32), *, latent_size: int = 32) -> Pair:
    """Model and filtering guide."""
    memory = HistoryEncoder(ConvEncoder(frame_shape, features=64, width=16), hidden=64)
    prior = LSTMConditioner(
        latent_size,
        hidden=64,
        context_features=memory.features,
        pre_network=mlp(latent_size, 64, 64),
    )
    model = SLVM(
        frame_shape,
        latent_size,
        prior=TemporalAffine(prior),
        decoder=ConvDecoder(latent_size + memory.features, frame_shape, width=16),
        memory=memory,
        decode_memory=True,
    )
    encoder = ConvEncoder(frame_shape, features=64, width=16)
    return Pair(model, FilteringGuide(model, encoder, hidden=64))
