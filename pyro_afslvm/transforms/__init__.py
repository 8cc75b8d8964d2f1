"""Bijections across time and the networks that condition them."""

from pyro_afslvm.transforms.affine import TemporalAffine, TemporalDifference
from pyro_afslvm.transforms.base import (
    ConditionedTemporalTransform,
    Level,
    Prediction,
    TemporalTransform,
    compose,
)
from pyro_afslvm.transforms.chain import TemporalChain
from pyro_afslvm.transforms.conditioners import (
    AffineParameters,
    Conditioner,
    ConvConditioner,
    LastFrame,
    LSTMConditioner,
    MLPConditioner,
)
from pyro_afslvm.transforms.hierarchy import TemporalHierarchy, check_size
from pyro_afslvm.transforms.iaf.images import (
    ConditionedConvInverseAutoregressive,
    ConvInverseAutoregressive,
)
from pyro_afslvm.transforms.iaf.vectors import (
    ConditionedInverseAutoregressive,
    InverseAutoregressive,
)

__all__ = [
    "AffineParameters",
    "ConditionedConvInverseAutoregressive",
    "ConditionedInverseAutoregressive",
    "ConditionedTemporalTransform",
    "Conditioner",
    "ConvConditioner",
    "ConvInverseAutoregressive",
    "InverseAutoregressive",
    "LSTMConditioner",
    "LastFrame",
    "Level",
    "MLPConditioner",
    "Prediction",
    "TemporalAffine",
    "TemporalChain",
    "TemporalDifference",
    "TemporalHierarchy",
    "TemporalTransform",
    "check_size",
    "compose",
]
