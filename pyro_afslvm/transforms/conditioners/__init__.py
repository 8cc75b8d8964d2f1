"""Networks that give a transform its parameters from the past."""

from pyro_afslvm.transforms.conditioners.attention import AttentionConditioner
from pyro_afslvm.transforms.conditioners.base import (
    AffineParameters,
    Conditioner,
    LastFrame,
    Parameters,
    as_parameters,
)
from pyro_afslvm.transforms.conditioners.causal import CausalConditioner
from pyro_afslvm.transforms.conditioners.conv_lstm import ConvLSTMConditioner
from pyro_afslvm.transforms.conditioners.dilated import DilatedConditioner
from pyro_afslvm.transforms.conditioners.given import GivenParameters, StandardNormal
from pyro_afslvm.transforms.conditioners.linear import LinearConditioner
from pyro_afslvm.transforms.conditioners.lstm import LSTMConditioner
from pyro_afslvm.transforms.conditioners.motion import DisplacementConditioner, MotionConditioner
from pyro_afslvm.transforms.conditioners.patch_attention import PatchAttentionConditioner
from pyro_afslvm.transforms.conditioners.windowed import ConvConditioner, MLPConditioner

__all__ = [
    "AffineParameters",
    "AttentionConditioner",
    "CausalConditioner",
    "Conditioner",
    "ConvConditioner",
    "ConvLSTMConditioner",
    "DilatedConditioner",
    "DisplacementConditioner",
    "GivenParameters",
    "LSTMConditioner",
    "LastFrame",
    "LinearConditioner",
    "MLPConditioner",
    "MotionConditioner",
    "Parameters",
    "PatchAttentionConditioner",
    "StandardNormal",
    "as_parameters",
]
