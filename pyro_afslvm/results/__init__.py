"""Results of inference as labelled arrays: made, stored, handed to ArviZ.

Only :func:`infer` needs torch; stored results are read without it.
"""

from pyro_afslvm.results.conversion import to_arviz
from pyro_afslvm.results.storage import load, save
from pyro_afslvm.results.tree import infer

__all__ = ["infer", "load", "save", "to_arviz"]
