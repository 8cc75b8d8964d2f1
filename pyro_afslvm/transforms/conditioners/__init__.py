"""Networks that give a transform its shift and log-scale from the past."""

from pyro_afslvm.transforms.conditioners.base import AffineParameters, Conditioner, LastFrame
from pyro_afslvm.transforms.conditioners.lstm import LSTMConditioner
from pyro_afslvm.transforms.conditioners.windowed import ConvConditioner, MLPConditioner

__all__ = [
    "AffineParameters",
    "Conditioner",
    "ConvConditioner",
    "LSTMConditioner",
    "LastFrame",
    "MLPConditioner",
]
