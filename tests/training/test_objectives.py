"""Objectives of Pyro's in `fit`, what they refuse, and padding that is NaN."""

import pyro
import pyro.distributions as dist
import pyro.infer
import pytest
import torch
from torch import Tensor, nn

from pyro_afslvm import fit, rollout
from pyro_afslvm.models.pair import Pair
from pyro_afslvm.objectives import bound_terms, iwae
from pyro_afslvm.objectives.loss import BoundLoss
from pyro_afslvm.results import infer
from pyro_afslvm.training.errors import TrainingError
from tests.support.guides import LATENT, sequences, system

OBJECTIVES = {
    "wake": lambda: pyro.infer.ReweightedWakeSleep(num_particles=2),
    "tail-adaptive": lambda: pyro.infer.TraceTailAdaptive_ELBO(
        num_particles=3, vectorize_particles=True
    ),
    "renyi": lambda: pyro.infer.RenyiELBO(num_particles=2),
    "graph": lambda: pyro.infer.TraceGraph_ELBO(),
}


@pytest.mark.parametrize("name", OBJECTIVES)
def test_objectives_of_pyro_train(name: str) -> None:
    model, guide = system("plain", "filtering", dtype=torch.float32)
    before = [p.detach().clone() for part in (model, guide) for p in part.parameters()]
    found = fit(
        model,
        guide,
        sequences(6).float(),
        steps=40,
        learning_rate=1e-2,
        progress=False,
        elbo=OBJECTIVES[name](),
    )
    assert found.bound.isfinite().all()
    assert found.bound[-5:].mean() > found.bound[:5].mean()
    after = [p for part in (model, guide) for p in part.parameters()]
    assert not any(map(torch.equal, before, after))


def test_the_tail_adaptive_bound_and_its_gradients_are_pyros(float64: None) -> None:
    pair = Pair(*system("plain", "filtering"))
    x, elbo = sequences(), OBJECTIVES["tail-adaptive"]()
    elbo.loss_and_grads(*pair, x)  # guesses the number of plates
    for part in pair:
        part.zero_grad()
    pyro.set_rng_seed(1)
    elbo.loss_and_grads(*pair, x)
    expected = [p.grad.clone() for part in pair for p in part.parameters()]
    for part in pair:
        part.zero_grad()
    pyro.set_rng_seed(1)
    loss = BoundLoss(pair, elbo)(x)
    loss.backward()
    frames = x.shape[0] * (x.shape[1] - pair.model.context_length)
    for p, grad in zip((p for part in pair for p in part.parameters()), expected, strict=True):
        torch.testing.assert_close(frames * p.grad, grad)
    pyro.set_rng_seed(1)
    plain = pyro.infer.Trace_ELBO(num_particles=3, vectorize_particles=True)
    plain.max_plate_nesting = elbo.max_plate_nesting
    assert frames * loss.item() == pytest.approx(plain.loss(*pair, x))


def refused(message: str, kind: type[Exception] = ValueError, **options: object) -> None:
    pair = system("plain", "filtering", dtype=torch.float32)
    with pytest.raises(kind, match=message) as error:
        fit(*pair, sequences(6).float(), steps=2, progress=False, **options)
    assert "\n" not in str(error.value)


def test_objectives_that_cannot() -> None:
    sleep = pyro.infer.ReweightedWakeSleep(num_particles=2, insomnia=0.5)
    refused(r"no sleep phase \(insomnia=0.5\).*insomnia=1.0", elbo=sleep)
    distance = pyro.infer.EnergyDistance()
    refused("got EnergyDistance, which has neither", TypeError, elbo=distance)


@pytest.mark.parametrize("case", ["scale", "shape", "support"])
def test_errors_that_no_learning_rate_mends(case: str) -> None:
    model, _ = system("plain", "filtering", dtype=torch.float32)
    x = sequences(6).float()

    def guide(x: Tensor, **_: object) -> None:
        steps = x.shape[1] - model.context_length + (case == "shape")
        scale = torch.tensor(-1.0 if case == "scale" else 1.0)
        with model.plate(x):
            pyro.sample("z", dist.Normal(torch.zeros(steps, LATENT), scale).to_event(2))

    class Program(nn.Module):
        def forward(self, x: Tensor, **_: object) -> None:
            with pyro.plate("sequence", len(x)):
                pyro.sample("x", dist.Bernoulli(logits=x).to_event(2), obs=x)

    pair = (Program(), None) if case == "support" else (model, guide)
    message = "made for another model" if case == "shape" else "found invalid values$"
    with pytest.raises(ValueError, match=message) as error:
        fit(*pair, x, steps=2, progress=False)
    assert "learning rate" not in str(error.value)
    assert "\n" not in str(error.value)


def test_a_scale_that_turned_nan_is_a_matter_of_the_learning_rate() -> None:
    class Program(nn.Module):
        def forward(self, x: Tensor, **_: object) -> None:
            with pyro.plate("sequence", len(x)):
                scale = torch.full(x.shape[1:], torch.nan)
                pyro.sample("x", dist.Normal(0.0, scale).to_event(2), obs=x)

    with pytest.raises(TrainingError, match="lower the learning rate"):
        fit(Program(), None, sequences().float(), steps=1, progress=False)


# ---- padding that is NaN ----

LENGTHS = torch.tensor([8, 5, 7])


def padded(fill: float) -> Tensor:
    torch.manual_seed(0)
    x = sequences()
    x[torch.arange(8) >= LENGTHS[:, None]] = fill
    return x


FUNCTIONS = {
    "iwae": lambda pair, x: iwae(*pair, x, num_particles=3, lengths=LENGTHS).log_evidence,
    "infer": lambda pair, x: torch.as_tensor(
        infer(*pair, x, num_samples=3, lengths=LENGTHS)["log_likelihood/x"].values
    ),
    "terms": lambda pair, x: bound_terms(*pair, x, lengths=LENGTHS).bound,
    "fit": lambda pair, x: fit(*pair, x, lengths=LENGTHS, steps=3, progress=False).bound,
    "rollout": lambda pair, x: torch.as_tensor(
        rollout(*pair, x, lengths=LENGTHS, horizon=2, num_samples=2)["x_future"].values
    ),
    "log_prob": lambda pair, x: (
        -pyro.infer.Trace_ELBO().differentiable_loss(*pair, x, lengths=LENGTHS)
    ),
}


@pytest.mark.parametrize("guide", ["filtering", "smoothing-iaf"])
@pytest.mark.parametrize("name", FUNCTIONS)
def test_with_lengths_it_is_as_zeros(name: str, guide: str) -> None:
    found = []
    for fill in (0.0, torch.nan):
        pair = Pair(*system("plain", guide))
        pyro.set_rng_seed(2)
        found.append(FUNCTIONS[name](pair, padded(fill)))
    assert torch.equal(*found)
    assert found[0].isfinite().all()


def test_without_lengths_it_is_called_padding() -> None:
    pair = system("plain", "filtering")
    for call in (lambda x: fit(*pair, x, steps=1), lambda x: iwae(*pair, x), pair.model):
        with pytest.raises(ValueError, match="2 of 3 sequences are NaN, which looks like padding"):
            call(padded(torch.nan))


def test_nan_elsewhere_is_not() -> None:
    x = padded(torch.nan)
    x[0, 3, 1] = torch.nan
    with pytest.raises(ValueError, match=r"expected finite values$"):
        system("plain", "filtering").model(x)
    with pytest.raises(ValueError, match=r"expected finite values$"):
        system("plain", "filtering").model(x, lengths=LENGTHS)
