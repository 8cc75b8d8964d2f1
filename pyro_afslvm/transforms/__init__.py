"""Bijections across time and the networks that condition them."""

from pyro_afslvm.moved import old_names
from pyro_afslvm.transforms.affine import TemporalAffine, TemporalDifference
from pyro_afslvm.transforms.base import ConditionedTemporalTransform, TemporalTransform
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
from pyro_afslvm.transforms.steps import AffineStep, Inverse, Prediction, check_affine, compose

__all__ = [
    "AffineParameters",
    "AffineStep",
    "ConditionedConvInverseAutoregressive",
    "ConditionedInverseAutoregressive",
    "ConditionedTemporalTransform",
    "Conditioner",
    "ConvConditioner",
    "ConvInverseAutoregressive",
    "Inverse",
    "InverseAutoregressive",
    "LSTMConditioner",
    "LastFrame",
    "MLPConditioner",
    "Prediction",
    "TemporalAffine",
    "TemporalChain",
    "TemporalDifference",
    "TemporalHierarchy",
    "TemporalTransform",
    "check_affine",
    "check_size",
    "compose",
]
__getattr__ = old_names(__name__)
