"""ResNet VAE of binary images with bidirectional inference and IAF, for two cores.

Kingma et al., *Improving Variational Inference with Inverse Autoregressive Flow*,
arXiv:1606.04934, Fig. 3: three layers of latents, two of them a quarter of the image's size and
one half of it.
"""

from pyro_afslvm import Pair, ResNetVAE, ResNetVAEGuide

NAME = "ResNet VAE, IAF"
LEARNING_RATE = 1e-3
BATCH_SIZE = 64
STEPS = 10_000
AVERAGE = 0.998  # decay of the running average of the parameters


def build(
    frame_shape: tuple[int, ...] = (1, 28, 28),
    *,
    layers: tuple[int, ...] = (1, 2),
    channels: int = 4,
    width: int = 24,
) -> Pair:
    """Model and guide."""
    model = ResNetVAE(frame_shape, layers=layers, channels=channels, width=width)
    return Pair(model, ResNetVAEGuide(model, iaf_depth=1, iaf_hidden=(24,)))
