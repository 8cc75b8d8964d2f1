"""Public data sets, and generated ones like them."""

from pyro_afslvm.moved import old_names

__getattr__ = old_names(__name__)
