"""Pyro's JIT objectives are their plain ones: values and gradients, at draws that are fixed."""

from typing import Any

import pyro
import pyro.infer
import pytest
import torch
from torch import Tensor

from pyro_afslvm import Pair
from tests.support.guides import same_updates, sequences, system
from tests.support.pairs import drawn_at_means, parameters

pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")
MEAN_FIELD = "TraceMeanField_ELBO"
CASES = [
    ("plain", "filtering", "Trace_ELBO"),
    ("plain", "filtering", "TraceGraph_ELBO"),
    ("plain", "filtering-iaf", "Trace_ELBO"),
    ("plain", "filtering-iaf", MEAN_FIELD),
    ("plain", "filtering", MEAN_FIELD),
    ("plain", "smoothing", MEAN_FIELD),
    ("plain", "iterative", MEAN_FIELD),
    ("hierarchy", "hierarchy", MEAN_FIELD),
    ("vrnn", "seeing-memory", MEAN_FIELD),
    ("windowed-mixture", "filtering", MEAN_FIELD),
]
LENGTH = 5  # more would only take longer to trace


@pytest.fixture(autouse=True)
def fixed(monkeypatch: pytest.MonkeyPatch) -> Any:
    """No draw is random, and Pyro checks nothing, which a traced program does not either."""
    drawn_at_means(monkeypatch)
    with pyro.validation_enabled(False):
        yield


def loss_and_gradients(elbo: Any, pair: Pair, x: Tensor) -> tuple[float, list[Tensor]]:
    loss = elbo.loss_and_grads(*pair, x)
    gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters(pair)]
    for p in parameters(pair):
        p.grad = None
    return loss, gradients


@pytest.mark.parametrize(("model", "guide", "name"), CASES)
def test_it_agrees_with_the_plain_one(model: str, guide: str, name: str) -> None:
    pair = Pair(*system(model, guide))
    if guide == "iterative":
        pair.guide.draw = same_updates
    jit = getattr(pyro.infer, f"Jit{name}")(ignore_jit_warnings=True)
    plain = getattr(pyro.infer, name)()
    if name == "TraceMeanField_ELBO" and "iaf" in guide:
        with pytest.raises(TypeError, match="no analytic KL"):
            jit.loss_and_grads(*pair, sequences(2, LENGTH))
        return
    for _ in range(2):  # traced with the first; the second has other data and parameters
        x = sequences(2, LENGTH)
        found, expected = (loss_and_gradients(elbo, pair, x) for elbo in (jit, plain))
        assert found[0] == pytest.approx(expected[0], rel=1e-9)
        torch.testing.assert_close(found[1], expected[1], rtol=1e-8, atol=1e-8)
        assert any((g != 0).any() for g in expected[1])
        with torch.no_grad():
            for p in parameters(pair):
                p.add_(0.02 * torch.randn_like(p))
