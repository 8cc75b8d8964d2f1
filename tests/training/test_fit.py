"""Fitting in one call: it comes near the optimum, and stops before it breaks anything."""

import copy
import math
import re
from collections.abc import Callable
from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import Trace_ELBO, TraceMeanField_ELBO
from torch import Tensor, nn

from pyro_afslvm import (
    SLVM,
    ConvConditioner,
    FilteringGuide,
    FlowModel,
    LSTMConditioner,
    MLPConditioner,
    Pair,
    TemporalAffine,
    TemporalChain,
    TemporalDifference,
    fit,
)
from pyro_afslvm.networks import MLPDecoder, MLPEncoder
from pyro_afslvm.objectives import bound_terms, iwae
from pyro_afslvm.training.errors import TrainingError
from pyro_afslvm.training.fit import FitResult
from tests.support.guides import sequences, system

SIZE = 2
ROTATION = 0.95 * torch.tensor([[math.cos(0.5), -math.sin(0.5)], [math.sin(0.5), math.cos(0.5)]])
NOISE = 0.3


def autoregression(num_sequences: int = 400, num_frames: int = 12, seed: int = 0) -> Tensor:
    """x_t = A x_{t-1} + 0.3 N(0, I), from its stationary distribution."""
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(num_frames + 1, num_sequences, SIZE, generator=generator)
    x = noise[0] * NOISE / math.sqrt(1 - 0.95**2)
    frames = []
    for w in noise[1:]:
        x = x @ ROTATION.T + NOISE * w
        frames.append(x)
    return torch.stack(frames, 1)


def best(x: Tensor, given: int) -> float:
    """Log-likelihood of the truth, in nats per scored frame."""
    prediction = dist.Normal(x[:, given - 1 : -1] @ ROTATION.T, NOISE)
    return float(prediction.log_prob(x[:, given:]).sum(-1).mean())


def flow_model() -> FlowModel:
    pyro.set_rng_seed(1)
    return FlowModel(TemporalAffine(MLPConditioner(SIZE, hidden=(32,), window=1)), (SIZE,))


def slvm(size: int = SIZE) -> Pair:
    pyro.set_rng_seed(1)
    model = SLVM(
        (size,),
        2,
        prior=TemporalAffine(LSTMConditioner(2, hidden=16)),
        decoder=MLPDecoder(2, size, hidden=(32,)),
    )
    return Pair(model, FilteringGuide(model, MLPEncoder(size, features=16), hidden=16))


def state(*modules: nn.Module) -> dict[str, Tensor]:
    return {f"{i}.{k}": v.clone() for i, m in enumerate(modules) for k, v in m.state_dict().items()}


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


# ---- it learns ----


def test_fit_comes_near_the_truth() -> None:
    model, data, test = flow_model(), autoregression(), autoregression(seed=1)
    optimum = best(data, 1)
    result = fit(model, None, data, steps=500, learning_rate=1e-2, progress=False)
    assert isinstance(result, FitResult)
    assert result._fields == ("bound", "seconds")
    assert result.bound.shape == result.seconds.shape == (500,)
    assert result.bound[:5].mean() < optimum - 0.5
    assert result.bound[-100:].mean() == pytest.approx(optimum, abs=0.06)
    assert (result.seconds.diff() >= 0).all()
    with torch.no_grad():
        fresh = float(model.log_prob(test).mean())
    assert best(test, 1) - 0.08 < fresh < best(test, 1) + 0.01


def test_the_bound_is_in_nats_per_sequence_and_scored_frame() -> None:
    model, data = flow_model(), autoregression(num_sequences=8)
    with torch.no_grad():
        expected = float(model.log_prob(data).mean())
    result = fit(model, None, data, steps=1, batch_size=8, progress=False)
    assert float(result.bound[0]) == pytest.approx(expected, rel=1e-5)


def observed(seed: int = 0) -> tuple[Tensor, float]:
    """Four noisy views of a hidden autoregression, and the truth's nats per frame."""
    z = autoregression(seed=seed)
    views = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.7, 0.7], [0.7, -0.7]])
    x = z @ views.T + 0.2 * torch.randn(*z.shape[:2], 4)
    steps, variance = x.shape[1], NOISE**2 / (1 - 0.95**2)
    powers = [torch.linalg.matrix_power(ROTATION, i) for i in range(steps)]
    of_z = [
        torch.cat([powers[t - s] if t >= s else powers[s - t].T for s in range(steps)], 1)
        for t in range(steps)
    ]
    emission = torch.block_diag(*[views] * steps)
    covariance = variance * emission @ torch.cat(of_z) @ emission.T + 0.04 * torch.eye(4 * steps)
    truth = dist.MultivariateNormal(torch.zeros(4 * steps), covariance)
    return x, float(truth.log_prob(x.flatten(1)).mean()) / steps


def test_fit_raises_the_bound_of_model_and_guide() -> None:
    (model, guide), (data, truth) = slvm(4), observed()
    before = state(model, guide)
    result = fit(model, guide, data, steps=400, learning_rate=1e-2, progress=False)
    assert result.bound[-50:].mean() > result.bound[:10].mean() + 3.0
    assert truth - 1.0 < result.bound[-50:].mean() < truth + 0.1
    after = state(model, guide)
    assert [k for k in before if torch.equal(before[k], after[k])] == []


def test_a_second_model_in_the_same_process_trains_as_the_first_did() -> None:
    data = autoregression()
    results, models = [], []
    for _ in range(2):
        models.append(flow_model())
        results.append(fit(models[-1], None, data, steps=60, learning_rate=1e-2, progress=False))
    assert torch.equal(results[0].bound, results[1].bound)
    assert same(state(models[0]), state(models[1]))
    assert results[1].bound[-10:].mean() > results[1].bound[:5].mean() + 0.3


def test_training_goes_on_where_it_ended() -> None:
    model, data = flow_model(), autoregression()
    first = fit(model, None, data, steps=100, learning_rate=1e-2, progress=False)
    second = fit(model, None, data, steps=100, learning_rate=1e-2, progress=False)
    assert second.bound[:5].mean() > first.bound[:20].mean() + 0.3


def test_the_same_seeds_give_the_same_run() -> None:
    data = autoregression(num_sequences=40)

    def run(seed: int) -> tuple[FitResult, dict[str, Tensor]]:
        model, guide = slvm()
        pyro.set_rng_seed(2)
        result = fit(model, guide, data, steps=8, seed=seed, progress=False)
        return result, state(model, guide)

    (first, weights), (again, same_weights), (other, _) = run(0), run(0), run(1)
    assert torch.equal(first.bound, again.bound)
    assert same(weights, same_weights)
    assert not torch.equal(first.bound, other.bound)


def test_every_sequence_is_drawn_once_an_epoch() -> None:
    data = torch.arange(12.0).reshape(12, 1, 1).expand(12, 3, 1)
    seen: list[float] = []
    model = FlowModel(TemporalAffine(MLPConditioner(1, hidden=(2,), window=1)), (1,))
    forward = model.forward
    model.forward = lambda x, **given: (seen.extend(x[:, 0, 0].tolist()), forward(x, **given))[1]
    fit(model, None, data, steps=6, batch_size=4, progress=False)
    assert sorted(seen[:12]) == sorted(seen[12:]) == list(map(float, range(12)))
    assert seen[:12] != seen[12:]


def test_another_objective_and_a_plain_guide() -> None:
    (model, guide), data = slvm(), autoregression(num_sequences=20)
    result = fit(model, guide, data, steps=3, elbo=TraceMeanField_ELBO(), progress=False)
    assert result.bound.isfinite().all()
    several = Trace_ELBO(num_particles=4, vectorize_particles=True, max_plate_nesting=1)
    assert fit(model, guide, data, steps=3, elbo=several, progress=False).bound.isfinite().all()

    def mean_field(x: Tensor, **_: object) -> None:
        loc = pyro.param("loc", torch.zeros(x.shape[1], 2))
        with pyro.plate("sequence", len(x), dim=-1):
            pyro.sample("z", dist.Normal(loc, 0.1).to_event(2))

    fit(model, mean_field, data, steps=3, progress=False)
    assert pyro.param("loc").all()


@pytest.mark.parametrize("name", ["AutoNormal", "AutoDelta", "AutoDiagonalNormal", "own"])
def test_a_guide_with_latents_of_each_sequence_takes_all_of_them(name: str) -> None:
    (model, _), data = slvm(), autoregression(num_sequences=12)

    def own(x: Tensor, **_: object) -> None:
        with pyro.plate("sequence", len(x), dim=-1):
            loc = pyro.param("loc_of_each", torch.zeros(len(x), x.shape[1], 2))
            pyro.sample("z", dist.Normal(loc, 0.1).to_event(2))

    def guide() -> object:
        pyro.clear_param_store()
        return own if name == "own" else getattr(pyro.infer.autoguide, name)(model)

    for size in (5, 11) if name == "own" else (1, 5, 11):
        with pytest.raises(ValueError, match="the guide has latents of its own for each sequence"):
            fit(model, guide(), data, steps=3, batch_size=size, progress=False)
    assert fit(model, guide(), data, steps=3, batch_size=12, progress=False).bound.isfinite().all()


def test_all_sequences_keep_their_order() -> None:
    data = torch.arange(12.0).reshape(12, 1, 1).expand(12, 3, 1)
    seen: list[float] = []
    model = FlowModel(TemporalAffine(MLPConditioner(1, hidden=(2,), window=1)), (1,))
    forward = model.forward
    model.forward = lambda x, **given: (seen.extend(x[:, 0, 0].tolist()), forward(x, **given))[1]
    fit(model, None, data, steps=2, batch_size=16, progress=False)
    assert seen == 2 * list(map(float, range(12)))


def test_ragged_sequences_count_their_own_frames() -> None:
    data = autoregression(num_sequences=6)
    lengths = torch.tensor([12, 3, 7, 2, 9, 5])
    model, other = flow_model(), flow_model()
    padded = data.clone()
    for row, length in zip(padded, lengths, strict=True):
        row[length:] = 77.0  # whatever is there
    options = {"steps": 1, "batch_size": 6, "progress": False}
    result = fit(model, None, padded, lengths=lengths, **options)
    alone = [other.log_prob(data[i : i + 1, :n]).sum() for i, n in enumerate(lengths)]
    expected = torch.stack(alone).sum() / (lengths - 1).sum()
    torch.testing.assert_close(result.bound[0], expected.detach())
    expected.neg().backward()
    torch.nn.utils.clip_grad_norm_(other.parameters(), 1.0)
    torch.optim.Adam(other.parameters(), 1e-3).step()
    for one, two in zip(model.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(one, two, rtol=1e-4, atol=1e-5)


def test_ragged_sequences_with_latents_and_batches() -> None:
    (model, guide), data = slvm(), autoregression(num_sequences=20)
    lengths = torch.randint(1, 13, (20,))
    result = fit(model, guide, data, lengths=lengths, steps=5, batch_size=4, progress=False)
    assert result.bound.isfinite().all()
    for wrong in (lengths[:5], torch.zeros(20, dtype=torch.long), torch.full((20,), 13)):
        with pytest.raises(ValueError, match="lengths"):
            fit(model, guide, data, lengths=wrong, steps=1, progress=False)


def test_a_batch_larger_than_the_data_is_all_of_it() -> None:
    result = fit(flow_model(), None, autoregression(num_sequences=3), steps=4, progress=False)
    assert result.bound.isfinite().all()


def test_the_progress_bar_is_written(capsys: pytest.CaptureFixture[str]) -> None:
    fit(flow_model(), None, autoregression(num_sequences=20), steps=5)
    out = capsys.readouterr().out
    assert "SVI" in out
    assert "5/5" in out
    assert "bound -" in out
    fit(flow_model(), None, autoregression(num_sequences=20), steps=5, progress=False)
    assert capsys.readouterr().out == ""


def test_a_model_without_parameters_has_nothing_to_learn() -> None:
    model = FlowModel(TemporalChain([TemporalDifference(), TemporalDifference()]), (SIZE,))
    data = autoregression(num_sequences=20)
    result = fit(model, None, data, steps=2, batch_size=20, progress=False)
    assert float(result.bound[0]) == pytest.approx(float(model.log_prob(data).mean()), rel=1e-5)


# ---- it refuses ----


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_data_that_is_not_finite_is_refused_before_the_first_step(bad: float) -> None:
    model, data = flow_model(), autoregression()
    data[-1, 3, 0] = bad
    before = state(model)
    with pytest.raises(ValueError, match="x holds NaN or Inf; expected finite values") as error:
        fit(model, None, data, steps=1, progress=False)
    assert "\n" not in str(error.value)
    assert same(before, state(model))


REFUSED = {
    "rank": (torch.zeros(5, 2), "expected x of shape (batch, time, 2), got (5, 2)"),
    "frame": (torch.zeros(5, 4, 3), "expected x of shape (batch, time, 2), got (5, 4, 3)"),
    "nothing": (torch.zeros(0, 4, 2), "expected at least 1 sequence"),
    "no time": (torch.zeros(5, 0, 2), "expected more than 1 frames"),
    "only the context": (torch.zeros(5, 1, 2), "expected more than 1 frames"),
    "integers": (torch.zeros(5, 4, 2, dtype=torch.uint8), "expected frames as floating point"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_data_of_another_shape_is_refused(case: str) -> None:
    data, message = REFUSED[case]
    with pytest.raises(ValueError, match=re.escape(message)) as error:
        fit(flow_model(), None, data, steps=1, progress=False)
    assert "\n" not in str(error.value)


def test_a_bound_that_turns_nan_leaves_the_parameters_as_they_were() -> None:
    model, data = flow_model(), autoregression(num_sequences=16)
    data[0, -1] = 1e25  # its square is infinite
    before = state(model)
    with pytest.raises(TrainingError, match="at step 0: lower the learning rate") as error:
        fit(model, None, data, steps=3, batch_size=16, progress=False)
    assert "\n" not in str(error.value)
    assert same(before, state(model))


def test_a_bound_that_turns_nan_later_leaves_the_last_good_parameters() -> None:
    model = flow_model()
    good = autoregression(num_sequences=4)
    data = torch.cat([good, torch.full_like(good[:1], 1e25)])
    reference = copy.deepcopy(model)
    seen: list[Tensor] = []
    forward = reference.forward
    reference.forward = lambda x, **given: (seen.append(x), forward(x, **given))[1]
    with pytest.raises(TrainingError, match="at step") as error:
        fit(reference, None, data, steps=5, batch_size=1, seed=3, progress=False)
    step = int(str(error.value).split("at step ")[1].split(":")[0])
    assert 0 < step == len(seen) - 1
    fit(model, None, data, steps=step, batch_size=1, seed=3, progress=False)
    assert same(state(model), state(reference))


def test_fit_leaves_the_modes_as_they_were():
    pair, seen = system("plain", "filtering", dtype=torch.float32), []
    pair.model.register_forward_pre_hook(lambda module, _: seen.append(module.training))
    fit(*pair, sequences().float(), steps=2, progress=False)
    assert seen == [True, True]
    assert not pair.model.training
    assert not pair.guide.training


def test_latents_without_a_guide_are_refused() -> None:
    (model, _), data = slvm(), autoregression(num_sequences=5)
    with pytest.raises(ValueError, match="expected a guide for the latents z, got none"):
        fit(model, None, data, steps=1, progress=False)
    for estimate in (iwae, bound_terms):
        with pytest.raises(ValueError, match="expected a guide with the model's latents z"):
            estimate(model, None, data)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (torch.full((4, 5, 1, 8, 8), 0.5), "the data are constant"),
        (torch.randint(256, (4, 5, 1, 8, 8)) / 255, "8-bit pixels without noise"),
    ],
)
def test_data_without_an_upper_bound_are_named(data: Tensor, message: str) -> None:
    model = FlowModel(TemporalAffine(ConvConditioner(1, hidden=4, window=1)), (1, 8, 8))
    with pytest.warns(UserWarning, match=message):
        fit(model, None, data, steps=1, progress=False)


def others(x: Tensor) -> None:
    pyro.sample("w", dist.Normal(pyro.param("loc", torch.zeros(())), 1.0))


LEFT_OUT = [(others, "w"), (lambda x: None, "none")]
OBJECTIVES = [
    pyro.infer.Trace_ELBO,
    pyro.infer.TraceMeanField_ELBO,
    lambda: pyro.infer.Trace_ELBO(num_particles=2, vectorize_particles=True),
    pyro.infer.TraceGraph_ELBO,
    lambda: pyro.infer.RenyiELBO(num_particles=2),
    lambda: pyro.infer.ReweightedWakeSleep(insomnia=1.0),
]


@pytest.mark.parametrize("validated", [False, True])
@pytest.mark.parametrize("elbo", OBJECTIVES)
def test_a_guide_without_the_models_latents_is_refused(
    elbo: Callable[[], Any], validated: bool
) -> None:
    (model, _), data = slvm(), autoregression(num_sequences=5)
    before = copy.deepcopy(model.state_dict())
    for guide, sites in LEFT_OUT:
        for size in (2, 5):
            expected = rf"^expected a guide with the model's latents z, got one with {sites}$"
            with pyro.validation_enabled(validated), pytest.raises(ValueError, match=expected):
                fit(model, guide, data, steps=1, batch_size=size, elbo=elbo(), progress=False)
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name])


def test_it_is_known_by_the_first_step_alone() -> None:
    (model, guide), data = slvm(), autoregression(num_sequences=5)
    calls = []

    def counted(x: Tensor) -> Any:
        calls.append(len(x))
        return guide(x)

    fit(model, counted, data, steps=3, batch_size=5, progress=False)
    assert calls == [5, 5, 5]
