"""Sequences in array files."""

from pyro_afslvm.data.arrays.source import Arrays
from pyro_afslvm.moved import old_names

__all__ = ["Arrays"]
__getattr__ = old_names(__name__)
