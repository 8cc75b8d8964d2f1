"""Inverse autoregressive flows within a step, of vectors and of images."""

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
