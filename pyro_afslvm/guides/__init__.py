"""Guides: approximate posteriors q(z | x), any of which fits any model with site ``z``."""

from pyro_afslvm.guides.filtering import FilteringGuide
from pyro_afslvm.guides.smoothing import SmoothingGuide

__all__ = ["FilteringGuide", "SmoothingGuide"]
