"""Variational autoencoders of binary images, with inverse autoregressive flow posteriors."""

from pyro_afslvm.vae.base import ImageGuide, ImageModel
from pyro_afslvm.vae.ladder import ResNetVAE, ResNetVAEGuide
from pyro_afslvm.vae.single import VAE, VAEGuide

__all__ = ["VAE", "ImageGuide", "ImageModel", "ResNetVAE", "ResNetVAEGuide", "VAEGuide"]
