"""Guides: approximate posteriors q(z | x), any of which fits any model with site ``z``."""

from pyro_afslvm.guides.filtering import FilteringGuide

__all__ = ["FilteringGuide"]
