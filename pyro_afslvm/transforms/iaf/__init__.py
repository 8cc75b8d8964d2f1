"""Inverse autoregressive flows within a step, of vectors and of images."""

from pyro_afslvm.moved import old_names
from pyro_afslvm.transforms.iaf.images import (
    ConditionedConvInverseAutoregressive,
    ConvInverseAutoregressive,
)
from pyro_afslvm.transforms.iaf.vectors import (
    ConditionedInverseAutoregressive,
    InverseAutoregressive,
)

__all__ = [
    "ConditionedConvInverseAutoregressive",
    "ConditionedInverseAutoregressive",
    "ConvInverseAutoregressive",
    "InverseAutoregressive",
]
__getattr__ = old_names(__name__)
