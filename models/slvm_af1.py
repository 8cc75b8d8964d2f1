"""SLVM w/ 1-AF: the latent variable model on the noise of a flow, at the paper's size.

Marino, Chen, He, Mandt, *Improving Sequential Latent Variable Models with Autoregressive
Flows*, Appendix B: one LSTM layer in prior and posterior, which sees the flow's noise.
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
from pyro_afslvm.networks.layers import Norm

LEARNING_RATE = 1e-4
BATCH_SIZE = {"moving_mnist": 16, "bair": 8, "kth": 8}  # other data take the first
STEPS = {"moving_mnist": 100_000, "bair": 200_000, "kth": 90_000}
NORM: Norm = "batch"  # or "batch_per_step": causal in training too, as the authors ran it


def build(
    frame_shape: tuple[int, ...] = (1, 64, 64), *, latent_size: int = 256, norm: Norm = NORM
) -> Pair:
    """Model and filtering guide."""
    flow = TemporalAffine(ConvConditioner(frame_shape[0], hidden=64, window=3, norm=norm))
    prior = LSTMConditioner(latent_size, hidden=256, pre_network=mlp(latent_size, 256, 256))
    model = SLVM(
        frame_shape,
        latent_size,
        prior=TemporalAffine(prior),
        decoder=ConvDecoder(latent_size, frame_shape, norm=norm),
        flow=flow,
    )
    encoder = ConvEncoder(frame_shape, features=128, norm=norm)
    return Pair(model, FilteringGuide(model, encoder, hidden=256))
