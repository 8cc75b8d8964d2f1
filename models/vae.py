"""Variational autoencoder of binary images with a diagonal posterior, for two cores.

The same as ``iaf_vae.py`` but for the posterior: the first line of Table 1 of Kingma et al.,
*Improving Variational Inference with Inverse Autoregressive Flow*, arXiv:1606.04934.
"""

from pyro_afslvm import VAE, Pair, VAEGuide
from pyro_afslvm.networks.residual import ResidualDecoder, ResidualEncoder

NAME = "VAE, diagonal"
LEARNING_RATE = 1e-3
BATCH_SIZE = 64
STEPS = 10_000
AVERAGE = 0.998  # decay of the running average of the parameters


def build(frame_shape: tuple[int, ...] = (1, 28, 28), *, latent_size: int = 32) -> Pair:
    """Model and guide."""
    model = VAE(frame_shape, latent_size, decoder=ResidualDecoder(latent_size, frame_shape))
    return Pair(model, VAEGuide(model, ResidualEncoder(frame_shape)))
