"""Bijections across time and the networks that condition them."""

import warnings

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


def __getattr__(name: str) -> object:
    if name == "Level":
        warnings.warn("Level is AffineStep now", FutureWarning, stacklevel=2)
        return AffineStep
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
