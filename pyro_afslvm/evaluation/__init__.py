"""Metrics and pictures of a trained model."""

from pyro_afslvm.moved import old_names

__getattr__ = old_names(__name__)
