"""Random weights: networks as Pyro modules, drawn once a run and scored with these draws."""

from typing import Any

import pyro
import pyro.distributions as dist
import pyro.poutine as poutine
import pytest
import torch
from pyro.infer import SVI, Predictive, Trace_ELBO
from pyro.infer.autoguide import AutoNormal
from pyro.nn import PyroModule, PyroSample
from pyro.nn.module import to_pyro_module_
from torch import Tensor, nn

from pyro_afslvm import (
    SLVM,
    FilteringGuide,
    FlowModel,
    LSTMConditioner,
    MLPConditioner,
    TemporalAffine,
    TemporalMixture,
)
from pyro_afslvm.networks import MLPDecoder, MLPEncoder


def made_random(module: nn.Module, scale: float = 0.3) -> None:
    """N(0, scale) priors in place of all parameters."""
    for part in list(module.modules()):
        for name, value in list(part.named_parameters(recurse=False)):
            prior = dist.Normal(torch.zeros(value.shape), scale).to_event(value.ndim)
            setattr(part, name, PyroSample(prior))


def flow(kind: str) -> FlowModel:
    transforms: dict[str, Any] = {
        "mlp": lambda: TemporalAffine(PyroModule[MLPConditioner](2, window=1, hidden=(4,))),
        "lstm": lambda: TemporalAffine(PyroModule[LSTMConditioner](2, hidden=4)),
        "mixture": lambda: TemporalMixture(
            PyroModule[MLPConditioner](2, window=1, hidden=(4,), num_parameters=9)
        ),
    }
    model = FlowModel(transforms[kind](), (2,))
    to_pyro_module_(model.flow.conditioner)
    made_random(model.flow.conditioner)
    return model


@pytest.mark.parametrize("kind", ["mlp", "lstm", "mixture"])
def test_weights_are_drawn_once_and_the_likelihood_is_of_these(kind: str) -> None:
    model, x = flow(kind), torch.randn(5, 6, 2)
    trace = poutine.trace(model).get_trace(x)
    trace.compute_log_prob()
    weights = {n: s["value"] for n, s in trace.nodes.items() if s["type"] == "sample"}
    weights = {n: v for n, v in weights.items() if n not in ("x", "sequence")}
    fixed = FlowModel(flow_plain(kind), (2,))
    own = dict(fixed.flow.conditioner.named_parameters())
    assert len(weights) == len(own)
    with torch.no_grad():
        for name, value in weights.items():
            own[name.split("conditioner.")[-1]].copy_(value)
    expected = fixed.log_prob(x).sum(-1)
    torch.testing.assert_close(trace.nodes["x"]["log_prob"], expected)
    again = poutine.trace(model).get_trace(x)
    again.compute_log_prob()
    assert not torch.equal(again.nodes["x"]["log_prob"], trace.nodes["x"]["log_prob"])


def flow_plain(kind: str) -> Any:
    if kind == "lstm":
        return TemporalAffine(LSTMConditioner(2, hidden=4))
    if kind == "mlp":
        return TemporalAffine(MLPConditioner(2, window=1, hidden=(4,)))
    return TemporalMixture(MLPConditioner(2, window=1, hidden=(4,), num_parameters=9))


def test_a_whole_model_is_inferred() -> None:
    model = flow("mlp")
    to_pyro_module_(model)
    guide, x = AutoNormal(model), torch.randn(20, 6, 2).cumsum(1)
    svi = SVI(model, guide, pyro.optim.Adam({"lr": 0.02}), Trace_ELBO())
    losses = [svi.step(x) for _ in range(150)]
    assert sum(losses[-20:]) < 0.9 * sum(losses[:20])
    futures = Predictive(model, guide=guide, num_samples=4)(x, horizon=3)["x_future"]
    assert futures.shape[-3:] == (20, 3, 2) or futures.shape[-2:] == (3, 2)
    assert futures.isfinite().all()


def test_random_weights_of_a_latent_variable_model() -> None:
    model = SLVM(
        (2,),
        3,
        prior=TemporalAffine(LSTMConditioner(3, hidden=4)),
        decoder=MLPDecoder(3, 2),
        flow=TemporalAffine(MLPConditioner(2, window=1, hidden=(4,))),
    )
    guide = FilteringGuide(model, MLPEncoder(2), hidden=8)
    to_pyro_module_(model)
    made_random(model.prior.conditioner)
    made_random(model.decoder)
    x = torch.randn(5, 6, 2)
    weights = AutoNormal(poutine.block(model, hide=["z"]))

    def both(x: Tensor) -> None:
        weights(x)
        guide(x)

    svi = SVI(model, both, pyro.optim.Adam({"lr": 0.01}), Trace_ELBO())
    assert all(svi.step(x) < 1e6 for _ in range(5))
    made_random(model.flow.conditioner)
    with pytest.raises(ValueError, match="expected weights that are not random in flow and memory"):
        guide(x)
