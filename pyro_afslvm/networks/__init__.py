"""Networks of frames and vectors: encoders and decoders."""

from pyro_afslvm.moved import old_names
from pyro_afslvm.networks.convolutional import ConvDecoder, ConvEncoder
from pyro_afslvm.networks.mlp import MLPDecoder, MLPEncoder, mlp
from pyro_afslvm.networks.residual import ResidualDecoder, ResidualEncoder

__all__ = [
    "ConvDecoder",
    "ConvEncoder",
    "MLPDecoder",
    "MLPEncoder",
    "ResidualDecoder",
    "ResidualEncoder",
    "mlp",
]
__getattr__ = old_names(__name__)
