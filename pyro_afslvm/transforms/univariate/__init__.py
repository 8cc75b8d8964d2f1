"""Maps of single entries: what a transform does with the parameters of its conditioner."""

from pyro_afslvm.transforms.univariate.affine import Affine, AffineMap, composed
from pyro_afslvm.transforms.univariate.base import Univariate, invert
from pyro_afslvm.transforms.univariate.free_mixture import FreeMixtureMap
from pyro_afslvm.transforms.univariate.glow import GlowMap
from pyro_afslvm.transforms.univariate.mixture import Mixture, MixtureMap
from pyro_afslvm.transforms.univariate.spline import Spline, SplineMap

__all__ = [
    "Affine",
    "AffineMap",
    "FreeMixtureMap",
    "GlowMap",
    "Mixture",
    "MixtureMap",
    "Spline",
    "SplineMap",
    "Univariate",
    "composed",
    "invert",
]
