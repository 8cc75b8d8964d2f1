"""Variational autoencoders of binary images, with inverse autoregressive flow posteriors."""

from pyro_afslvm.models.vae.base import ImageGuide, ImageModel
from pyro_afslvm.models.vae.resnet import ResNetVAE, ResNetVAEGuide
from pyro_afslvm.models.vae.single import VAE, VAEGuide

__all__ = ["VAE", "ImageGuide", "ImageModel", "ResNetVAE", "ResNetVAEGuide", "VAEGuide"]
