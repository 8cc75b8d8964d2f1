"""Whole models in half precision and on the meta device: every guide, and the VAEs."""

from collections.abc import Callable
from typing import Any

import pyro
import pytest
import torch
from pyro.infer import SVI, Trace_ELBO
from torch import Tensor

from pyro_afslvm import Pair, fit, rollout
from pyro_afslvm.objectives import UnwatchedELBO, bound_terms, iwae, smc
from pyro_afslvm.objectives.loss import BoundLoss
from pyro_afslvm.results import infer
from tests.models import test_resnet_vae, test_vae
from tests.support.guides import PAIRS, sequences, system
from tests.support.pairs import drawn_at_means


def _of_sequences(model: str, guide: str) -> Callable[[], tuple[Pair, Tensor]]:
    return lambda: (Pair(*system(model, guide, dtype=torch.float32)), sequences().float())


def _of_images(module: Any) -> Callable[[], tuple[Pair, Tensor]]:
    return lambda: (module.make().to(torch.float32), module.images().float())


WHOLE = {f"{model}-{guide}": _of_sequences(model, guide) for model, guide in dict.fromkeys(PAIRS)}
WHOLE |= {"vae": _of_images(test_vae), "resnet-vae": _of_images(test_resnet_vae)}
DONE: dict[str, Callable[[Pair, Tensor], Any]] = {
    "iwae": lambda pair, x: iwae(*pair, x, num_particles=2).log_evidence,
    "infer": lambda pair, x: infer(*pair, x, num_samples=2)["log_likelihood/x"].values,
    "terms": lambda pair, x: bound_terms(*pair, x).bound,
    "fit": lambda pair, x: fit(*pair, x, steps=2, progress=False).bound,
    "svi": lambda pair, x: SVI(*pair, pyro.optim.Adam({"lr": 1e-3}), Trace_ELBO()).step(x),
}
ONLINE: dict[str, Callable[[Pair, Tensor], Any]] = {
    "smc": lambda pair, x: smc(*pair, x, num_particles=2).log_evidence,
    "rollout": lambda pair, x: rollout(*pair, x, horizon=2, num_samples=2)["x_future"].values,
}
ROUGH = 0.1  # relative; eight bits of a network's weights and of what goes into it


FEW = [  # of all kinds, the filtering guide is in the other tests
    "plain-filtering-iaf",
    "vrnn-smoothing-iaf",
    "no-flow-filtering-iaf",
    "windowed-mixture-filtering",
    "vae",
    "resnet-vae",
]


@pytest.mark.parametrize("name", WHOLE)
def test_bounds_in_half_precision(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn_at_means(monkeypatch)
    pair, x = WHOLE[name]()
    with torch.no_grad():
        exact = float(bound_terms(*pair, x).bound.double().sum(-1).mean())
        rough = float(bound_terms(*pair.to(torch.bfloat16), x).bound.double().sum(-1).mean())
    assert rough == pytest.approx(exact, rel=ROUGH)
    assert rough != exact


@pytest.mark.parametrize("name", FEW)
def test_half_precision_in_all_there_is(name: str) -> None:
    pair, x = WHOLE[name]()
    pair.to(torch.bfloat16)
    done = DONE if "vae" in name else DONE | ONLINE
    if "smoothing" in name:  # sees the future, which a particle filter has not
        done = {key: function for key, function in done.items() if key != "smc"}
    for function in done.values():
        assert torch.as_tensor(function(pair, x)).isfinite().all()
    assert {p.dtype for part in pair.parts for p in part.parameters()} == {torch.bfloat16}


@pytest.mark.parametrize("name", WHOLE)
def test_on_the_meta_device(name: str) -> None:
    """Nothing is computed; what is left on another device, or asks for a value, is an error."""
    pair, x = WHOLE[name]()
    pair.to("meta")
    with pyro.validation_enabled(False):
        BoundLoss(pair, UnwatchedELBO())(x.to("meta")).backward()
    assert all(p.grad is not None for part in pair.parts for p in part.parameters())
