"""Variational autoencoder of binary images with an IAF posterior, for two cores.

Kingma et al., *Improving Variational Inference with Inverse Autoregressive Flow*,
arXiv:1606.04934, Table 1: 32 latents, residual convolutions, IAF of depth 2 and width 320. The
paper's encoder and decoder are larger, and their first layers work at full resolution.
"""

from pyro_afslvm import VAE, InverseAutoregressive, Pair, VAEGuide
from pyro_afslvm.networks.residual import ResidualDecoder, ResidualEncoder

NAME = "VAE, IAF 2 x 320"
LEARNING_RATE = 1e-3
BATCH_SIZE = 64
STEPS = 10_000
AVERAGE = 0.998  # decay of the running average of the parameters


def build(
    frame_shape: tuple[int, ...] = (1, 28, 28),
    *,
    latent_size: int = 32,
    depth: int = 2,
    width: int = 320,
) -> Pair:
    """Model and guide; with ``depth=0`` the posterior is diagonal."""
    model = VAE(frame_shape, latent_size, decoder=ResidualDecoder(latent_size, frame_shape))
    encoder = ResidualEncoder(frame_shape)
    iaf = InverseAutoregressive(latent_size, context_features=64, depth=depth, hidden=(width,))
    return Pair(model, VAEGuide(model, encoder, iaf=iaf))
