"""Bounds on the evidence, term by term and as tight as one has time for."""

from pyro_afslvm.distributions import kl_per_step, log_prob_per_step
from pyro_afslvm.objectives.annealing import KLScale, LatentScale, warmed_up
from pyro_afslvm.objectives.elbo import UnwatchedELBO
from pyro_afslvm.objectives.free_bits import FreeBitsELBO
from pyro_afslvm.objectives.importance import Evidence, iwae
from pyro_afslvm.objectives.smc import ParticleEvidence, smc
from pyro_afslvm.objectives.terms import BoundTerms, bound_terms

__all__ = [
    "BoundTerms",
    "Evidence",
    "FreeBitsELBO",
    "KLScale",
    "LatentScale",
    "ParticleEvidence",
    "UnwatchedELBO",
    "bound_terms",
    "iwae",
    "kl_per_step",
    "log_prob_per_step",
    "smc",
    "warmed_up",
]
