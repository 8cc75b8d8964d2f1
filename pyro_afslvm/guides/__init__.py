"""Guides: approximate posteriors q(z | x), any of which fits any model with site ``z``."""

from pyro_afslvm.guides.base import ForwardGuide, Proposal
from pyro_afslvm.guides.filtering import FilteringGuide
from pyro_afslvm.guides.iterative import IterativeGuide
from pyro_afslvm.guides.smoothing import SmoothingGuide

__all__ = ["FilteringGuide", "ForwardGuide", "IterativeGuide", "Proposal", "SmoothingGuide"]
