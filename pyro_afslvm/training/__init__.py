"""Training: one loop, in notebooks and on the command line."""

from pyro_afslvm.moved import old_names

__getattr__ = old_names(__name__)
