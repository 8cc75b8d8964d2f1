"""The tree of results against a Kalman filter."""

import copy
import json
import math
from typing import Any

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
import xarray as xr
from torch import nn

from pyro_afslvm import ConvConditioner, FlowModel, ResNetVAE, ResNetVAEGuide, TemporalAffine
from pyro_afslvm.data import Protocol
from pyro_afslvm.objectives import bound_terms
from pyro_afslvm.results import infer
from pyro_afslvm.results.particles import evidence as estimate
from tests.support.inferred import PROTOCOL, flow_model, near, vector_pair
from tests.support.kalman import build, evidence, random_guide, sequences, system

# ---- what is in the tree ----


def test_groups_dimensions_and_coordinates() -> None:
    model, guide, x = vector_pair()
    tree = infer(model, guide, x, num_samples=5, num_particles=2, horizon=3, protocol=PROTOCOL)
    draws = {"chain": 1, "draw": 5, "sequence": 3}
    expected = {
        "posterior/z": {**draws, "time": 4, "latent": 3},
        "posterior_predictive/x": {**draws, "time": 4, "feature": 2},
        "posterior_predictive/x_future": {**draws, "time_future": 3, "feature": 2},
        "log_likelihood/x": draws,
        "log_likelihood/x_step": {**draws, "time": 4},
        "sample_stats/lp": draws,
        "sample_stats/log_q": draws,
        "sample_stats/bound": draws,
        "sample_stats/log_evidence": draws,
        "sample_stats/log_evidence_error": draws,
        "observed_data/x": {"sequence": 3, "time": 4, "feature": 2},
        "constant_data/context": {"sequence": 3, "time_context": 2, "feature": 2},
        "constant_data/lengths": {"sequence": 3},
        "constant_data/mask": {"sequence": 3, "time": 4},
    }
    found = {f"{g}/{name}": dict(v.sizes) for g in tree for name, v in tree[g].data_vars.items()}
    assert found == expected
    for group in tree.values():
        assert set(group.coords) == set(group.dims)
        for variable in (*group.data_vars.values(), *group.coords.values()):
            assert variable.attrs["units"] in {"nat", "frame", "1"}
            assert isinstance(variable.data, np.ndarray)
    assert tree["posterior"]["time"].values.tolist() == [2, 3, 4, 5]
    assert tree["constant_data"]["time_context"].values.tolist() == [0, 1]
    assert tree["posterior_predictive"]["time_future"].values.tolist() == [1, 2, 3]
    np.testing.assert_array_equal(tree["observed_data/x"], x[:, 2:])
    np.testing.assert_array_equal(tree["constant_data/context"], x[:, :2])


def test_attributes() -> None:
    model, guide, x = vector_pair()
    tree = infer(model, guide, x, num_samples=2, num_particles=3, protocol=PROTOCOL)
    assert Protocol.from_json(tree.attrs["protocol"]) == PROTOCOL
    assert json.loads(tree.attrs["versions"]).keys() >= {"python", "torch", "xarray"}
    assert (tree.attrs["bound"], tree.attrs["num_particles"]) == ("IWAE", 3)
    bare = infer(model, guide, x, num_samples=2, replicate=False)
    assert bare.attrs["protocol"] == "null"
    assert "posterior_predictive" not in bare


def test_video_has_named_axes() -> None:
    model = FlowModel(TemporalAffine(ConvConditioner(1, hidden=4, depth=1)), (1, 4, 5))
    tree = infer(model, None, torch.rand(2, 6, 1, 4, 5), num_samples=3, horizon=2)
    sizes = tree["posterior_predictive/x_future"].sizes
    assert dict(sizes) == {
        **{"chain": 1, "draw": 3, "sequence": 2, "time_future": 2},
        **{"channel": 1, "height": 4, "width": 5},
    }


def test_latents_of_images_have_dimensions_of_their_own() -> None:
    model = ResNetVAE((1, 8, 8), layers=(1, 1), channels=2, width=4)
    guide = ResNetVAEGuide(model, iaf_hidden=(4,), context_channels=3)
    x = torch.rand(3, 2, 1, 8, 8).round()
    tree = infer(model, guide, x, num_samples=4, horizon=2)
    assert set(tree["posterior"].data_vars) == {"z_2", "z_1"}
    assert dict(tree["posterior/z_1"].sizes) == {
        **{"chain": 1, "draw": 4, "sequence": 3, "time": 2},
        **{"latent_z_1_0": 2, "latent_z_1_1": 4, "latent_z_1_2": 4},
    }
    assert tree["posterior_predictive/x_future"].sizes["time_future"] == 2


# ---- the numbers ----


def test_densities_are_those_of_the_draws() -> None:
    model, guide, x = vector_pair()
    tree = infer(model, guide, x, num_samples=7, chunk=3)
    z = torch.as_tensor(tree["posterior/z"].values[0])
    step = model.log_prob(x, z).detach()
    np.testing.assert_allclose(tree["log_likelihood/x_step"][0], step, rtol=1e-5, atol=1e-5)
    batch = model.batch(x)
    joint = step.sum(-1) + model.transition_distribution(batch).log_prob(z).detach()
    np.testing.assert_allclose(tree["sample_stats/lp"][0], joint, rtol=1e-5, atol=1e-5)
    log_q = guide.distribution(batch).log_prob(z).detach()
    np.testing.assert_allclose(tree["sample_stats/log_q"][0], log_q, rtol=1e-5, atol=1e-5)
    bound = tree["sample_stats/lp"] - tree["sample_stats/log_q"]
    np.testing.assert_allclose(tree["sample_stats/bound"], bound)
    pooled = np.logaddexp.reduce(bound.values[0], 0) - math.log(7)
    np.testing.assert_allclose(tree["sample_stats/log_evidence"][0, 0], pooled)


@pytest.mark.parametrize("flow", [False, True])
@pytest.mark.parametrize("num_particles", [1, 3])
def test_exact_posterior_gives_the_evidence(flow: bool, num_particles: int, float64: None) -> None:
    model = build(flow=flow)
    x = sequences(model)
    guide = near(model, x, wider=1.0)
    tree = infer(model, guide, x, num_samples=4, num_particles=num_particles)
    truth = evidence(model, x).detach().numpy()
    np.testing.assert_allclose(tree["sample_stats/log_evidence"][0, 0], truth, atol=1e-8)
    np.testing.assert_allclose(tree["log_likelihood/x"][0], np.tile(truth, (4, 1)), atol=1e-8)
    assert tree["sample_stats/log_evidence_error"].max() < 1e-8


def test_more_particles_come_closer_to_the_evidence(float64: None) -> None:
    model = build()
    x = sequences(model, 40)
    guide, truth = near(model, x, wider=1.5), evidence(model, x).detach().numpy()
    gaps = []
    for particles in (1, 30):
        tree = infer(model, guide, x, num_samples=3, num_particles=particles, chunk=3)
        gaps.append((truth - tree["sample_stats/log_evidence"][0, 0]).mean().item())
    assert 0 < gaps[1] < gaps[0] / 3


def test_standard_error_is_that_of_repetition(float64: None) -> None:
    model = build()
    x = sequences(model)
    guide = near(model, x)
    runs = [infer(model, guide, x, num_samples=200, chunk=200)["sample_stats"] for _ in range(60)]
    spread = np.std([run["log_evidence"].values for run in runs], 0, ddof=1)
    said = np.median([run["log_evidence_error"].values for run in runs], 0)
    np.testing.assert_allclose(said, spread, rtol=0.4)


def test_estimates_leave_out_the_draw_itself() -> None:
    rounds = torch.randn(3, 6, 2, dtype=torch.float64)  # particles of a draw, draws, batch
    found = estimate(*rounds)
    for s in range(6):
        others = torch.cat([rounds[:, :s], rounds[:, s + 1 :]], 1).exp().mean((0, 1)).log()
        torch.testing.assert_close(found.others[s], others)
    torch.testing.assert_close(found.log_evidence, rounds.exp().mean((0, 1)).log())


def test_leaving_out_the_heaviest_cancels_nothing() -> None:
    weights = torch.tensor([[0.0], [900.0], [1.0]], dtype=torch.float64)
    others = estimate(weights).others[:, 0]
    expected = math.log((1 + math.e) / 2)
    torch.testing.assert_close(others[1].item(), expected)
    torch.testing.assert_close(others[0].item(), 900 - math.log(2))
    single = estimate(weights[:1])
    assert single.others[0, 0] == weights[0, 0] == single.log_evidence[0]
    assert single.error.isnan().all()


def test_each_future_follows_its_own_draw(float64: None) -> None:
    model = build()
    x = sequences(model, 2)
    tree = infer(model, random_guide(model, 3), x, num_samples=400, chunk=150, horizon=1)
    s = system(model)
    last = tree["posterior/z"].values[0, :, :, -1]
    expected = last @ (s.C @ s.A).detach().numpy().T
    future = tree["posterior_predictive/x_future"].values[0, :, :, 0]
    noise_of_step = np.diag((s.C @ s.Q @ s.C.T + s.R).detach().numpy())
    own = (future - expected).var(0)
    other = (future - np.roll(expected, 1, 0)).var(0)
    np.testing.assert_allclose(own, np.tile(noise_of_step, (2, 1)), rtol=0.35)
    assert (other > 1.2 * own).any()
    np.testing.assert_allclose((future - expected).mean(0), 0, atol=0.3)


def test_chunks_bound_the_draws_at_a_time() -> None:
    model, guide, x = vector_pair()
    sizes = []
    forward = guide.forward

    def watch(*arguments: Any, **options: Any) -> Any:
        z = forward(*arguments, **options)
        sizes.append(len(z))
        return z

    guide.forward = watch  # type: ignore[method-assign]
    tree = infer(model, guide, x, num_samples=7, num_particles=2, chunk=3, horizon=2)
    assert sizes == [3, 3, 1] * 2
    assert tree["posterior_predictive/x_future"].notnull().all()
    assert len(np.unique(tree["posterior/z"].values[0, :, 0, 0, 0])) == 7


def test_without_latents_everything_is_exact() -> None:
    model, x = flow_model(), torch.randn(4, 8, 2)
    tree = infer(model, None, x, num_samples=3, horizon=2)
    exact = model.log_prob(x).detach()
    np.testing.assert_allclose(tree["log_likelihood/x_step"][0, 1], exact, rtol=1e-6)
    np.testing.assert_allclose(tree["log_likelihood/x"][0, 2], exact.sum(-1), rtol=1e-6)
    np.testing.assert_allclose(tree["sample_stats/log_evidence"][0, 0], exact.sum(-1), rtol=1e-6)
    assert (tree["sample_stats/log_evidence_error"] == 0).all()
    assert "posterior" not in tree
    assert tree.attrs["bound"] == "exact"
    assert len(np.unique(tree["posterior_predictive/x_future"][0, :, 0, 0, 0])) == 3


def test_nothing_that_is_learned_moves() -> None:
    model, guide, x = vector_pair()
    guide.encoder = nn.Sequential(guide.encoder, Norm(4))
    guide.encoder.features = 4
    guide.encoder.eval()[0].train()
    before = copy.deepcopy([*model.state_dict().values(), *guide.state_dict().values()])
    modes = [module.training for part in (model, guide) for module in part.modules()]
    assert len(set(modes)) == 2
    infer(model, guide, x, num_samples=2, horizon=1)
    after = [*model.state_dict().values(), *guide.state_dict().values()]
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))
    assert [m.training for part in (model, guide) for m in part.modules()] == modes
    guide.train()
    infer(model, guide, x, num_samples=2)
    assert guide.encoder[1].norm.num_batches_tracked == 0
    assert guide.encoder[1].training


class Norm(nn.Module):
    """Batch normalization of the last dimension."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(features)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        flat: torch.Tensor = self.norm(x.flatten(0, -2))
        return flat.reshape(x.shape)


# ---- ragged ----


def test_ended_sequences_are_missing_not_zero() -> None:
    model, guide, x = vector_pair()
    lengths = torch.tensor([6, 3, 5])
    tree = infer(model, guide, x, num_samples=2, lengths=lengths, horizon=2)
    mask = tree["constant_data/mask"]
    assert mask.sum("time").values.tolist() == [4, 1, 3]
    for name in ("posterior/z", "log_likelihood/x_step", "observed_data/x"):
        values = tree[name]
        np.testing.assert_array_equal(
            values.isnull(), xr.broadcast(~mask, values)[0].transpose(*values.dims)
        )
    for name in ("log_likelihood/x", "sample_stats/lp", "posterior_predictive/x_future"):
        assert tree[name].notnull().all()


def test_ragged_equals_one_by_one() -> None:
    model, x = flow_model(context_length=2), torch.randn(3, 6, 2)
    lengths = torch.tensor([6, 3, 5])
    tree = infer(model, None, x, num_samples=2, lengths=lengths)
    for n, length in enumerate(lengths.tolist()):
        one = infer(model, None, x[n : n + 1, :length], num_samples=2)
        together = tree["log_likelihood"].to_dataset().isel(sequence=n, time=slice(length - 2))
        apart = one["log_likelihood"].to_dataset().isel(sequence=0)
        np.testing.assert_allclose(together["x"], apart["x"], rtol=1e-6)
        np.testing.assert_allclose(together["x_step"], apart["x_step"], rtol=1e-5)


def test_padding_has_no_say_in_anything() -> None:
    model, guide, x = vector_pair()
    lengths = torch.tensor([6, 3, 5])
    trees = []
    for padding in (0.0, 9.0):
        padded = torch.where((torch.arange(6) < lengths[:, None])[..., None], x, padding)
        pyro.set_rng_seed(3)
        trees.append(infer(model, guide, padded, num_samples=2, lengths=lengths, horizon=2))
    xr.testing.assert_identical(trees[0], trees[1])


# ---- bad input ----


@pytest.mark.parametrize("name", ["num_samples", "num_particles", "chunk"])
@pytest.mark.parametrize("count", [0, -1])
def test_counts_below_one(name: str, count: int) -> None:
    with pytest.raises(ValueError, match=f"^{name} must be at least 1, got {count}$"):
        infer(flow_model(), None, torch.randn(3, 6, 2), **{name: count})


def test_horizon_below_zero() -> None:
    with pytest.raises(ValueError, match=r"^expected horizon >= 0, got -1$"):
        infer(flow_model(), None, torch.randn(3, 6, 2), horizon=-1)


@pytest.mark.parametrize("lengths", [[6, 6, 7], [6, 2, 6]])
def test_lengths_out_of_range(lengths: list[int]) -> None:
    model, guide, x = vector_pair()
    with pytest.raises(ValueError, match=r"^lengths must lie in 3\.\.6"):
        infer(model, guide, x, lengths=torch.tensor(lengths))


# ---- latents of several shapes ----


def several(x: Any, lengths: Any = None, **_: Any) -> None:
    """Latents of a sequence, a number, a vector and a matrix, and one of each frame."""
    batch, steps = x.shape[:2]
    with pyro.plate("sequence", batch):
        speed = pyro.sample("speed", dist.Normal(torch.zeros(()), 1.0))
        start = pyro.sample("start", dist.Normal(torch.zeros(4), 1.0).to_event(1))
        turn = pyro.sample("turn", dist.Normal(torch.zeros(2, 2), 1.0).to_event(2))
        level = pyro.sample("level", dist.Normal(torch.zeros(steps), 1.0).to_event(1))
        mean = (turn @ torch.ones(2))[..., None, :] + speed[..., None, None]
        mean = mean + level[..., None] + start.sum(-1)[..., None, None]
        pyro.sample("x", dist.Normal(mean, 1.0).to_event(2), obs=x)


def of_several(x: Any, lengths: Any = None, **_: Any) -> None:
    steps = x.shape[1]
    shapes = {"speed": (), "start": (4,), "turn": (2, 2), "level": (steps,)}
    with pyro.plate("sequence", len(x)):
        for site, shape in shapes.items():
            pyro.sample(site, dist.Normal(torch.zeros(shape), 1.0).to_event(len(shape)))


def test_latents_of_a_sequence_have_no_time() -> None:
    tree = infer(several, of_several, torch.randn(3, 4, 2), num_samples=5, num_chains=2)
    draws = {"chain": 2, "draw": 5, "sequence": 3}
    assert {name: dict(v.sizes) for name, v in tree["posterior"].data_vars.items()} == {
        "speed": draws,
        "start": {**draws, "latent_start": 4},  # as many as there are frames
        "turn": {**draws, "latent_turn_0": 2, "latent_turn_1": 2},
        "level": {**draws, "time": 4},
    }


def test_a_latent_of_a_sequence_has_no_terms_step_by_step() -> None:
    with pytest.raises(TypeError, match=r"no terms step by step: .*'speed'"):
        bound_terms(several, of_several, torch.randn(3, 4, 2))
