"""SLVM: the sequential latent variable model on the frames, at the paper's size.

Marino, Chen, He, Mandt, *Improving Sequential Latent Variable Models with Autoregressive
Flows*, Appendix B.2: two LSTM layers in prior and posterior, pixels through a sigmoid.
"""

from pyro_afslvm import SLVM, FilteringGuide, LSTMConditioner, Pair, TemporalAffine
from pyro_afslvm.networks import ConvDecoder, ConvEncoder, mlp

LEARNING_RATE = 1e-4
BATCH_SIZE = 16
STEPS = 200_000


def build(frame_shape: tuple[int, ...] = (1, 64, 64), *, latent_size: int = 256) -> Pair:
    """Model and filtering guide."""
    prior = LSTMConditioner(
        latent_size, hidden=256, layers=2, pre_network=mlp(latent_size, 256, 256)
    )
    model = SLVM(
        frame_shape,
        latent_size,
        prior=TemporalAffine(prior),
        decoder=ConvDecoder(latent_size, frame_shape, norm="batch", location="sigmoid"),
    )
    encoder = ConvEncoder(frame_shape, features=128, norm="batch")
    return Pair(model, FilteringGuide(model, encoder, hidden=256, layers=2))
