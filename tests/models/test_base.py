"""What generative models share, and models of the user's own that share it or not."""

import math
from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import Tensor, nn

from pyro_afslvm import SLVM, FlowModel, Pair, fit, rollout
from pyro_afslvm.forecasting.futures import futures
from pyro_afslvm.models.base import SequenceBatch, SequenceModel, context_length, flow_of
from pyro_afslvm.models.param_store import register
from pyro_afslvm.objectives import bound_terms, iwae
from pyro_afslvm.objectives.loss import BoundLoss
from pyro_afslvm.results import infer
from tests.support.guides import GIVEN, SIZE, flow, sequences, system

X = torch.randn(4, 5, 2)


# the base class ---------------------------------------------------------------------------------


def test_a_batch_is_split_and_masked() -> None:
    x = sequences()
    batch = FlowModel(flow().double(), (SIZE,)).batch(x, torch.tensor([5, 8, 6]))
    assert torch.equal(torch.cat([batch.history, batch.targets], 1), x)
    assert batch.history.shape[1] == GIVEN
    assert batch.mask.sum(1).tolist() == [3, 6, 4]
    assert batch.size == 3
    whole = SequenceBatch.of(x, frame_shape=(SIZE,))
    assert (whole.history, whole.mask) == (None, None)
    assert whole.targets.shape == x.shape


@pytest.mark.parametrize("kind", [FlowModel, SLVM])
def test_all_models_say_what_they_are(kind: type) -> None:
    model = system("plain", "filtering").model
    if kind is FlowModel:
        model = FlowModel(model.flow, (SIZE,))
    assert isinstance(model, SequenceModel)
    assert (model.frame_shape, model.context_length) == ((SIZE,), GIVEN)
    assert model.flow is dict(model.named_children())["flow"]
    assert model.sites == (() if kind is FlowModel else ("z",))


def test_old_names_lead_on_with_a_warning() -> None:
    (model, guide), x = system("plain", "filtering"), sequences()
    with pytest.warns(FutureWarning, match=r"^SLVM\.split is now batch$"):
        batch = model.split(x)
    z = guide(x)
    for old, new in (
        ("latents", model.transition_distribution(batch)),
        ("frames", model.emission_distribution(z, batch)),
    ):
        with pytest.warns(FutureWarning, match=f"^SLVM.{old} is now "):
            found = getattr(model, old)(*((z,) if old == "frames" else ()), batch)
        value = z if old == "latents" else batch.targets
        assert torch.equal(found.log_prob(value), new.log_prob(value))
    with pytest.warns(FutureWarning, match=r"^SLVM\.noise is now to_noise$"):
        assert torch.equal(model.noise(batch), model.to_noise(batch))
    with pytest.warns(FutureWarning, match="noise_size is now eps_size"):
        assert model.noise_size == model.eps_size
    with pytest.warns(FutureWarning, match="values is now targets"):
        assert batch.values is batch.targets
    with pytest.warns(FutureWarning, match="batch is now size"):
        assert batch.batch == batch.size


@pytest.mark.parametrize("old", ["frames", "latents", "noise", "split"])
def test_an_override_by_an_old_name_takes_effect(old: str) -> None:
    new = {"frames": "emission_distribution", "latents": "transition_distribution"}
    new |= {"noise": "to_noise", "split": "batch"}
    calls = []

    def override(self: Any, *given: Any) -> Any:
        calls.append(old)
        with pytest.warns(FutureWarning, match=f"{old} is now {new[old]}"):
            return getattr(super(kind, self), old)(*given)  # where there is no override

    with pytest.warns(FutureWarning, match=rf"^Mine\.{old} is now {new[old]}: define that$"):
        kind = type("Mine", (SLVM,), {old: override})
    (model, _), x = system("plain", "filtering"), sequences()
    z = torch.randn(len(x), x.shape[1] - GIVEN, model.latent_size).to(x)

    def value() -> Tensor:
        batch = model.batch(x)
        model.to_noise(batch)
        prior = model.transition_distribution(batch).log_prob(z)
        return prior + model.emission_distribution(z, batch).log_prob(batch.targets)

    expected = value()
    model.__class__ = kind
    assert torch.equal(value(), expected)
    assert calls == [old]

    class Below(kind):  # type: ignore[misc, valid-type]
        pass

    model.__class__ = Below
    assert torch.equal(value(), expected)
    assert calls == [old, old]


def test_an_attribute_may_be_set_by_its_old_name() -> None:
    model, _ = system("plain", "filtering")
    with pytest.warns(FutureWarning, match="noise_size is now eps_size"):
        model.noise_size = 7
    assert model.eps_size == 7


class Walk(SequenceModel):
    """A random walk with one learned scale, of the user's own: what is sampled, and no steps."""

    def __init__(self, size: int) -> None:
        super().__init__((size,), context_length=1)
        self.log_scale = nn.Parameter(torch.zeros(()))

    def joint(self, batch: SequenceBatch) -> None:
        before = torch.cat([batch.history, batch.targets[:, :-1]], 1)
        x = dist.Normal(before, self.log_scale.exp()).to_event(2)
        pyro.sample("x", x, obs=batch.targets)

    def future(self, x: Tensor | None, z: Tensor | None, horizon: int) -> Tensor:
        shape = (horizon, *self.frame_shape)
        move = dist.Normal(torch.zeros(shape), self.log_scale.exp()).to_event(2)
        moves = pyro.sample("moves", move)
        return pyro.deterministic("x_future", x[:, -1:] + moves.cumsum(-2), event_dim=2)


def test_a_sequence_model_of_the_users_own() -> None:
    model = Walk(2)
    exact = dist.Normal(X[:, :-1], 1.0).log_prob(X[:, 1:]).sum((1, 2)).detach()
    torch.testing.assert_close(iwae(model, None, X).log_evidence.float(), exact)
    tree = infer(model, None, X, num_samples=3, horizon=4)
    assert tree["posterior_predictive/x_future"].sizes["time_future"] == 4
    assert BoundLoss(Pair(model, None))(X).item() == pytest.approx(-exact.mean().item() / 4)
    fit(model, None, 3 * X, steps=5, learning_rate=0.1, progress=False)
    assert model.log_scale > 0.3
    with pytest.raises(ValueError, match="expected more than 1 frames"):
        model(X[:, :1])
    with pytest.raises(TypeError, match="expected a FlowModel or an SLVM, got Walk"):
        rollout(model, None, X, horizon=2)
    with pytest.raises(TypeError, match="expected a model with steps, such as SLVM; got Walk"):
        model.given(X)


# a program that knows nothing of this library ---------------------------------------------------


class Plain(nn.Module):
    """x_t ~ N(z_t, 1), z_t ~ N(0, 1): the evidence is that of N(0, 2)."""

    def __init__(self) -> None:
        super().__init__()
        self.loc = nn.Parameter(torch.zeros(()))

    def forward(self, x: Tensor, horizon: int = 0, lengths: Any = None) -> None:
        pyro.module("plain", self)
        with pyro.plate("sequence", len(x), dim=-1):
            z = pyro.sample("z", dist.Normal(torch.zeros(x.shape[1:]), 1.0).to_event(2))
            pyro.sample("x", dist.Normal(self.loc + z, 1.0).to_event(2), obs=x)
            if horizon:
                last = z[..., -1:, :].expand(*z.shape[:-2], horizon, z.shape[-1])
                pyro.sample("x_future", dist.Normal(last, 1.0).to_event(2))


def exact_posterior(x: Tensor, horizon: int = 0, lengths: Any = None) -> None:
    with pyro.plate("sequence", len(x), dim=-1):
        pyro.sample("z", dist.Normal(x / 2, math.sqrt(0.5)).to_event(2))


def test_a_pyro_program_of_the_users_own() -> None:
    model = Plain()
    evidence = dist.Normal(0.0, math.sqrt(2)).log_prob(X).sum((1, 2))
    found = iwae(model, exact_posterior, X, num_particles=3)
    torch.testing.assert_close(found.log_evidence.float(), evidence)
    terms = bound_terms(model, exact_posterior, X)
    torch.testing.assert_close(terms.bound[0].sum(-1), evidence)
    tree = infer(model, exact_posterior, X, num_samples=400, chunk=100, horizon=2)
    torch.testing.assert_close(
        torch.from_numpy(tree["sample_stats/log_evidence"][0, 0].values).float(), evidence
    )
    future = torch.from_numpy(tree["posterior_predictive/x_future"].values[0])
    last = torch.from_numpy(tree["posterior/z"].values[0, :, :, -1:])
    assert ((future - last).mean(0).abs() < 0.3).all()  # each follows its own draw
    assert ((future - last).var(0) - 1).abs().max() < 0.5
    loss = BoundLoss(Pair(model, None))
    loss.guide = exact_posterior
    assert loss(X).item() == pytest.approx(-evidence.mean().item() / 5)
    fit(model, exact_posterior, X + 3, steps=5, learning_rate=0.1, progress=False)
    assert model.loc > 0.2


def test_frames_given_to_a_program_of_the_users_own() -> None:
    model = Plain()
    assert context_length(model) == context_length(exact_posterior) == 0
    assert flow_of(model) is flow_of(exact_posterior) is None
    model.context_length = 2
    assert context_length(model) == 2


def test_latents_that_are_missing_are_not_made_up() -> None:
    model, x = system("plain", "filtering").model, sequences()
    found = futures(model, lambda *_: lambda _: {}, x, horizon=2, num_samples=1, chunk=1)
    with pytest.raises(ValueError, match=r"expected latents \('z',\) of the model, got \(\)"):
        next(found)


def test_registration_is_all_a_module_needs() -> None:
    module = nn.Linear(2, 2)
    register(module)
    names = list(pyro.get_param_store())
    assert len({name.partition(".")[0] for name in names}) == 1
    assert [name.partition(".")[2] for name in names] == ["weight", "bias"]
