"""Multilayer perceptrons."""

from itertools import pairwise

from torch import Tensor, nn

from pyro_afslvm.networks.layers import in_full_precision, positive_scale


def mlp(*sizes: int) -> nn.Sequential:
    """Linear layers, each followed by a ReLU.

    >>> import torch
    >>> mlp(3, 16, 8)(torch.zeros(5, 3)).shape
    torch.Size([5, 8])
    """
    pairs = pairwise(sizes)
    return nn.Sequential(*(layer for a, b in pairs for layer in (nn.Linear(a, b), nn.ReLU())))


class MLPEncoder(nn.Module):
    """Encoder of vectors to features, a multilayer perceptron.

    Args:
        size: size of a vector.
        features: size of the result.
        hidden: sizes of the hidden layers.
    """

    def __init__(self, size: int, *, features: int = 64, hidden: tuple[int, ...] = (64,)) -> None:
        super().__init__()
        self.features = features
        self.frame_dims = 1
        self.network = mlp(size, *hidden, features)

    def forward(self, x: Tensor) -> Tensor:  # (*batch, D) -> (*batch, features)
        features: Tensor = self.network(x)
        return features


class MLPDecoder(nn.Module):
    """Decoder of latents to location and scale of a vector, a multilayer perceptron.

    Args:
        latent_size: size of a latent vector.
        size: size of the vector.
        hidden: sizes of the hidden layers.
    """

    def __init__(self, latent_size: int, size: int, *, hidden: tuple[int, ...] = (64,)) -> None:
        super().__init__()
        self.network = mlp(latent_size, *hidden)
        self.heads = nn.Linear(hidden[-1], 2 * size)  # location and log-scale

    def forward(self, z: Tensor) -> tuple[Tensor, Tensor]:  # (*batch, Z) -> 2 x (*batch, D)
        location, log_scale = in_full_precision(self.heads, self.network(z), 1).chunk(2, -1)
        return location, positive_scale(log_scale)
