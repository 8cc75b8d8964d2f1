"""Evidence by guides of Pyro's own: right, or refused, never something else."""

from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import autoguide
from torch import Tensor

from pyro_afslvm import SLVM, LSTMConditioner, TemporalAffine
from pyro_afslvm.networks import MLPDecoder
from pyro_afslvm.objectives import bound_terms, iwae
from pyro_afslvm.results import infer
from tests.support.guides import sequences, system

JOINT = [
    "AutoDiagonalNormal",
    "AutoMultivariateNormal",
    "AutoLowRankMultivariateNormal",
    "AutoStructured",
    "AutoIAFNormal",
    "AutoGaussian",
]
PER_SEQUENCE = ["AutoNormal", "AutoNormalMessenger"]


def model() -> SLVM:
    prior = TemporalAffine(LSTMConditioner(1, hidden=4))
    return SLVM((2,), 1, prior=prior, decoder=MLPDecoder(1, 2))


def auto(name: str, of: SLVM) -> Any:
    scaled = name in (*PER_SEQUENCE, *JOINT[:3])
    return getattr(autoguide, name)(of, **({"init_scale": 0.7} if scaled else {}))


def by_quadrature(of: SLVM, x: Tensor) -> Tensor:
    """log p(x) of sequences of two frames, on a grid of their latents."""
    grid = torch.linspace(-7.0, 7.0, 281)
    z = torch.cartesian_prod(grid, grid)[:, None, :, None]  # (points, 1, 2, 1)
    base = dist.Normal(torch.zeros(2, 1), 1.0).to_event(2)
    prior = dist.TransformedDistribution(base, [of.prior]).log_prob(z)
    joint = of.log_prob(x, z.expand(-1, len(x), -1, -1)).sum(-1) + prior
    return joint.logsumexp(0) + 2 * (grid[1] - grid[0]).log()


@pytest.mark.parametrize("name", PER_SEQUENCE)
def test_guides_with_latents_of_each_sequence(name: str) -> None:
    of, x = model(), torch.randn(3, 2, 2)
    guide = auto(name, of)
    guide(x)
    with torch.no_grad():
        expected = by_quadrature(of, x).double()
    found = iwae(of, guide, x, num_particles=4000, chunk=500)
    assert ((found.log_evidence - expected).abs() < 4 * found.error + 0.02).all()
    tree = infer(of, guide, x, num_samples=30)
    assert list(tree["posterior"]) == ["z"]  # what it was made from is no latent


@pytest.mark.parametrize("name", JOINT)
def test_guides_of_all_sequences_together(name: str) -> None:
    of, x = model(), torch.randn(3, 2, 2)
    guide = auto(name, of)
    guide(x)
    with pytest.raises(ValueError, match=r"no evidence of single sequences: site '.*' is one for"):
        iwae(of, guide, x, num_particles=4)
    with pytest.raises(ValueError, match="no evidence of single sequences"):
        infer(of, guide, x, num_samples=4)
    with pytest.raises(TypeError, match="no terms step by step"):
        bound_terms(of, guide, x)


@pytest.mark.parametrize("name", ["AutoDiagonalNormal", "AutoMultivariateNormal"])
def test_of_one_sequence_they_have_the_evidence(name: str) -> None:
    of, x = model(), torch.randn(1, 2, 2)
    guide = auto(name, of)
    guide(x)
    with torch.no_grad():
        expected = by_quadrature(of, x).double()
    found = iwae(of, guide, x, num_particles=4000, chunk=500)
    assert ((found.log_evidence - expected).abs() < 4 * found.error + 0.02).all()


@pytest.mark.parametrize("name", ["AutoDelta", "AutoLaplaceApproximation"])
def test_guides_of_single_points(name: str) -> None:
    of, x = model(), torch.randn(3, 2, 2)
    guide = auto(name, of)
    guide(x)
    with pytest.raises(ValueError, match="no evidence by a guide of single points"):
        iwae(of, guide, x, num_particles=4)


def test_a_global_latent_of_ones_own() -> None:
    of, x = model(), torch.randn(3, 2, 2)

    def program(x: Tensor, **options: Any) -> Any:
        pyro.sample("level", dist.Normal(0.0, 1.0))
        return of(x, **options)

    def guide(x: Tensor, **options: Any) -> None:
        pyro.sample("level", dist.Normal(0.0, 1.0))
        with of.plate(x):
            pyro.sample("z", dist.Normal(torch.zeros(2, 1), 1.0).to_event(2))

    with pytest.raises(ValueError, match="site 'level' is one for all 3 of them"):
        iwae(program, guide, x, num_particles=4)
    assert iwae(program, guide, x[:1], num_particles=4).log_evidence.shape == (1,)


@pytest.mark.parametrize("kind", ["AutoNormal", "AutoDelta", "AutoNormalMessenger"])
def test_terms_of_steps_are_refused_in_one_line(kind: str) -> None:
    model, x = system("plain", "filtering").model, sequences()
    guide = getattr(autoguide, kind)(model)
    guide(x)
    with pytest.raises(TypeError, match=r"^no terms step by step: .*-Trace_ELBO") as error:
        bound_terms(model, guide, x)
    assert "\n" not in str(error.value)
