"""Bijections across time and the networks that condition them."""

from pyro_afslvm.transforms.affine import TemporalAffine, TemporalDifference
from pyro_afslvm.transforms.base import (
    ConditionedTemporalTransform,
    Level,
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

__all__ = [
    "AffineParameters",
    "ConditionedTemporalTransform",
    "Conditioner",
    "ConvConditioner",
    "LSTMConditioner",
    "LastFrame",
    "Level",
    "MLPConditioner",
    "TemporalAffine",
    "TemporalChain",
    "TemporalDifference",
    "TemporalTransform",
    "compose",
]
