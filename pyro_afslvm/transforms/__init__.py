"""Bijections across time and the networks that condition them."""

from pyro_afslvm.moved import old_names
from pyro_afslvm.transforms.affine import TemporalAffine, TemporalDifference
from pyro_afslvm.transforms.autoregressive import TemporalAutoregressive
from pyro_afslvm.transforms.base import ConditionedTemporalTransform, TemporalTransform
from pyro_afslvm.transforms.chain import TemporalChain
from pyro_afslvm.transforms.conditioners import (
    AffineParameters,
    AttentionConditioner,
    CausalConditioner,
    Conditioner,
    ConvConditioner,
    ConvLSTMConditioner,
    DilatedConditioner,
    LastFrame,
    LinearConditioner,
    LSTMConditioner,
    MLPConditioner,
    MotionConditioner,
    Parameters,
    PatchAttentionConditioner,
    as_parameters,
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
from pyro_afslvm.transforms.mixture import TemporalMixture
from pyro_afslvm.transforms.spline import TemporalSpline
from pyro_afslvm.transforms.steps import AffineStep, Inverse, Prediction, check_affine, compose
from pyro_afslvm.transforms.univariate import AffineMap, GlowMap, MixtureMap, SplineMap, Univariate
from pyro_afslvm.transforms.within import WithinFrame, channel_mixing, triangular_mixing

__all__ = [
    "AffineMap",
    "AffineParameters",
    "AffineStep",
    "AttentionConditioner",
    "CausalConditioner",
    "ConditionedConvInverseAutoregressive",
    "ConditionedInverseAutoregressive",
    "ConditionedTemporalTransform",
    "Conditioner",
    "ConvConditioner",
    "ConvInverseAutoregressive",
    "ConvLSTMConditioner",
    "DilatedConditioner",
    "GlowMap",
    "Inverse",
    "InverseAutoregressive",
    "LSTMConditioner",
    "LastFrame",
    "LinearConditioner",
    "MLPConditioner",
    "MixtureMap",
    "MotionConditioner",
    "Parameters",
    "PatchAttentionConditioner",
    "Prediction",
    "SplineMap",
    "TemporalAffine",
    "TemporalAutoregressive",
    "TemporalChain",
    "TemporalDifference",
    "TemporalHierarchy",
    "TemporalMixture",
    "TemporalSpline",
    "TemporalTransform",
    "Univariate",
    "WithinFrame",
    "as_parameters",
    "channel_mixing",
    "check_affine",
    "check_size",
    "compose",
    "triangular_mixing",
]
__getattr__ = old_names(__name__)
