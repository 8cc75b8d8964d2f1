"""Generative models of sequences and images, as Pyro programs."""
