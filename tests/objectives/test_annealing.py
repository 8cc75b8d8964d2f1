"""Scaled divergences: every latent of every model, and nothing else."""

from collections.abc import Callable
from typing import Any

import pyro
import pyro.distributions as dist
import pyro.poutine as poutine
import pytest
import torch
from pyro.infer import Trace_ELBO, TraceMeanField_ELBO
from torch import Tensor

from pyro_afslvm import Pair, ResNetVAE, ResNetVAEGuide, fit
from pyro_afslvm.objectives import FreeBitsELBO, KLScale, LatentScale, bound_terms
from tests.support.guides import SIZE, sequences, system


def resnet(iaf_depth: int = 1) -> Pair:
    torch.manual_seed(1)
    model = ResNetVAE((1, 8, 8), layers=(1, 2), channels=2, width=4).double()
    guide = ResNetVAEGuide(model, iaf_depth=iaf_depth, iaf_hidden=(4,), context_channels=3)
    return Pair(model, guide.double())


def images() -> Tensor:
    return torch.rand(4, 2, 1, 8, 8, dtype=torch.float64).round()


def slvm(model: str = "plain") -> Pair:
    return Pair(*system(model, "filtering"))


def scales(program: Callable[..., Any], *arguments: Any, **options: Any) -> dict[str, float]:
    """Of every site of a program that is scaled by a tenth."""
    trace = poutine.trace(KLScale(0.1)(program)).get_trace(*arguments, **options)
    return {name: float(n["scale"]) for name, n in trace.nodes.items() if n["type"] == "sample"}


ELBOS: dict[str, Callable[[], Any]] = {
    "sampled": Trace_ELBO,
    "analytic": TraceMeanField_ELBO,
    "free bits": lambda: FreeBitsELBO(0.5),
}
PAIRS: dict[str, Callable[[], tuple[Pair, Tensor]]] = {
    "resnet": lambda: (resnet(0), images()),
    "resnet with iaf": lambda: (resnet(2), images()),
    "slvm": lambda: (slvm(), sequences()),
}


@pytest.mark.parametrize("elbo", ELBOS)
@pytest.mark.parametrize("pair", PAIRS)
def test_a_tenth_of_the_divergence_counts(elbo: str, pair: str) -> None:
    programs, x = PAIRS[pair]()
    losses = []
    for wrapped in (programs, map(KLScale(0.1), programs)):
        pyro.set_rng_seed(3)
        losses.append(ELBOS[elbo]().loss(*wrapped, x))
    pyro.set_rng_seed(3)
    terms = bound_terms(*programs, x)
    kl = losses[0] + terms.log_likelihood.sum().item()
    if elbo == "sampled":
        assert kl == pytest.approx(terms.kl.sum().item(), rel=1e-9)
    assert losses[1] - losses[0] == pytest.approx(-0.9 * kl, rel=1e-9)


def test_what_is_observed_and_plates_count_fully() -> None:
    pair, x = resnet(), images()
    latents = dict.fromkeys(pair.model.sites, 0.1)
    assert scales(pair.model, x) == {"image": 1.0} | latents | {"x": 1.0}
    assert scales(pair.guide, x) == {"image": 1.0} | latents
    pair, x = slvm(), sequences()
    assert scales(pair.model, x) == {"sequence": 1.0, "z": 0.1, "x": 1.0}
    assert scales(pair.guide, x) == {"sequence": 1.0, "z": 0.1}
    z = pair.guide(x)
    known = poutine.condition(pair.model, {"z": z})
    assert scales(known, x) == {"sequence": 1.0, "z": 1.0, "x": 1.0}


def test_latents_of_the_future_are_latents() -> None:
    """They are in no posterior, unless a guide of the user's own has them."""
    found = scales(slvm().model, sequences(), horizon=2)
    future = {"z_future": 0.1, "x_future": 0.1}
    assert found == {"sequence": 1.0, "z": 0.1, "x": 1.0} | future
    found = scales(slvm("vrnn").model, sequences(), horizon=2)
    assert found["noise_future"] == 0.1
    assert found["z_future"] == found["x_future"] == 1.0  # no more than functions of it
    seen = poutine.condition(slvm().model, {"x_future": torch.zeros(3, 2, SIZE).double()})
    assert scales(seen, sequences(), horizon=2)["x_future"] == 1.0


def test_only_the_sites_that_are_named() -> None:
    def model(x: Tensor) -> None:
        with pyro.plate("sequence", len(x), dim=-1):
            pyro.sample("a", dist.Normal(0.0, 1.0))
            pyro.sample("z", dist.Normal(0.0, 1.0))

    with KLScale(0.5, sites=["a"]), poutine.trace() as traced:
        model(torch.zeros(3))
    nodes = traced.trace.nodes
    assert (nodes["a"]["scale"], nodes["z"]["scale"]) == (0.5, 1.0)
    assert LatentScale is KLScale


def test_fit_warms_up_every_layer() -> None:
    pair, seen = resnet(), []
    forward = pair.model.forward

    def watch(*arguments: Any, **options: Any) -> Any:
        with poutine.trace() as traced:
            result = forward(*arguments, **options)
        seen.append([float(traced.trace.nodes[site]["scale"]) for site in pair.model.sites])
        return result

    pair.model.forward = watch
    fit(*pair, images(), steps=3, batch_size=4, kl_warmup=2, progress=False)
    assert seen == [[0.5] * 3, [1.0] * 3, [1.0] * 3]
