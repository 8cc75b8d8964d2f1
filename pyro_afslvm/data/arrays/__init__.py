"""Sequences in array files."""

from pyro_afslvm.data.arrays.source import Arrays

__all__ = ["Arrays"]
