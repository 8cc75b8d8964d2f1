"""Covariates that are known in advance: through models, guides, objectives, rollouts, streams."""

import math
from collections.abc import Callable

import pyro
import pytest
import torch
from pyro.infer import Predictive, Trace_ELBO
from torch import Tensor

from pyro_afslvm import (
    SLVM,
    AttentionConditioner,
    ConvConditioner,
    DilatedConditioner,
    FilteringGuide,
    FlowModel,
    HistoryEncoder,
    IterativeGuide,
    LSTMConditioner,
    MLPConditioner,
    Pair,
    SmoothingGuide,
    StreamingFilter,
    TemporalAffine,
    TemporalChain,
    TemporalMixture,
    fit,
    rollout,
)
from pyro_afslvm.models.base import simulate
from pyro_afslvm.networks import MLPDecoder, MLPEncoder
from pyro_afslvm.objectives import bound_terms, iwae, smc
from pyro_afslvm.results import infer
from tests.support.registry import perturb

D, F, Z, T = 3, 2, 4, 8


def mlp(**options: int) -> MLPConditioner:
    return MLPConditioner(D, hidden=(8,), window=2, context_features=F, **options)


def slvm(*, with_flow: bool = False, memory: bool = False) -> SLVM:
    kept = HistoryEncoder(MLPEncoder(D, features=5), hidden=4) if memory else None
    seen = F + (4 if memory else 0)
    return SLVM(
        (D,),
        Z,
        prior=TemporalAffine(LSTMConditioner(Z, hidden=6, context_features=seen)),
        decoder=MLPDecoder(Z + seen, D),
        flow=TemporalAffine(mlp()) if with_flow else None,
        memory=kept,
        decode_memory=True,
        context_features=F,
    )


FLOWS: dict[str, Callable[[], FlowModel]] = {
    "mlp": lambda: FlowModel(TemporalAffine(mlp()), (D,), context_features=F),
    "mixture": lambda: FlowModel(
        TemporalMixture(mlp(num_parameters=6), centres=("last", 0.0)), (D,), context_features=F
    ),
    "lstm": lambda: FlowModel(
        TemporalAffine(LSTMConditioner(D, hidden=6, context_features=F)), (D,), context_features=F
    ),
    "dilated": lambda: FlowModel(
        TemporalAffine(DilatedConditioner(D, hidden=6, context_features=F)),
        (D,),
        context_features=F,
    ),
    "attention": lambda: FlowModel(
        TemporalAffine(AttentionConditioner(D, hidden=8, heads=2, context_features=F)),
        (D,),
        context_features=F,
    ),
    "chain": lambda: FlowModel(
        TemporalChain([TemporalAffine(mlp()), TemporalAffine(mlp())]), (D,), context_features=F
    ),
}
SLVMS: dict[str, Callable[[], SLVM]] = {
    "slvm": slvm,
    "slvm-flow": lambda: slvm(with_flow=True),
    "slvm-flow-memory": lambda: slvm(with_flow=True, memory=True),
}
MODELS = FLOWS | SLVMS
each = pytest.mark.parametrize("name", MODELS)


def made(name: str) -> FlowModel | SLVM:
    torch.manual_seed(0)
    model = MODELS[name]().double().eval()
    perturb(model)
    return model


def guide_of(model: FlowModel | SLVM) -> FilteringGuide | None:
    if isinstance(model, FlowModel):
        return None
    torch.manual_seed(1)
    return FilteringGuide(model, MLPEncoder(D, features=6), hidden=5).double().eval()


def data(horizon: int = 0) -> tuple[Tensor, Tensor]:
    torch.manual_seed(2)
    x = torch.randn(3, T, D, dtype=torch.float64)
    return x, torch.randn(3, T + horizon, F, dtype=torch.float64)


def log_prob(model: FlowModel | SLVM, x: Tensor, context: Tensor) -> Tensor:
    if isinstance(model, FlowModel):
        return model.log_prob(x, context=context)
    torch.manual_seed(3)
    z = torch.randn(len(x), T - model.context_length, Z, dtype=torch.float64)
    batch = model.batch(x, context=context)
    # both densities see covariates
    of_z = model.transition_distribution(batch)
    behind = of_z.transforms[0].inv(z).square().sum(-1) if of_z.transforms else 0.0
    return model.log_prob(x, z, context=context) - 0.5 * behind


@each
def test_a_frame_depends_on_its_own_covariates_and_none_to_come(name: str):
    model, (x, context) = made(name), data()
    before = log_prob(model, x, context)
    other = context.clone()
    other[:, 5] += 1.0
    changed = (log_prob(model, x, other) != before).all(0)
    first = 5 - model.context_length
    assert changed[first]
    assert not changed[:first].any()


@each
def test_rollouts_are_the_inverse_of_densities(name: str):
    model, (x, context), h = made(name), data(horizon=4), 4
    given = model.context_length
    z = torch.randn(2, 3, T - given, Z, dtype=torch.float64) if isinstance(model, SLVM) else None
    eps = torch.randn(2, 3, h, model.eps_size, dtype=torch.float64)
    with torch.no_grad():
        kept = model.given(x, context[:, :T])
        if isinstance(model, FlowModel):  # futures share what they follow
            state = model.initial_state(torch.Size((2, 3)), given=kept)
        else:
            state = model.initial_state(torch.Size((2, 3)), given=kept, z=z)
        future = simulate(model, eps, state, context[:, T:])
        for i in range(2):
            batch = model.batch(torch.cat([x, future.x[i]], 1), context=context)
            if z is None:
                y = model.emission_distribution(batch).transforms[0].inv(batch.targets)
                torch.testing.assert_close(y[:, -h:], eps[i], rtol=1e-6, atol=1e-6)
                continue
            latents = torch.cat([z[i], future.z[i]], 1)
            prior = model.transition_distribution(batch).transforms[0]
            torch.testing.assert_close(prior.inv(latents)[:, -h:], eps[i, ..., :Z])
            location, scale = model.decode(latents, model.past(batch))
            behind = ((model.to_noise(batch) - location) / scale)[:, -h:]
            torch.testing.assert_close(behind, eps[i, ..., Z:], rtol=1e-6, atol=1e-6)


@each
def test_every_way_through(name: str):
    model, (x, context) = made(name), data(horizon=3)
    guide, past = guide_of(model), context[:, :T]
    pyro.set_rng_seed(0)
    found = iwae(model, guide, x, num_particles=3, context=past)
    assert found.log_evidence.isfinite().all()
    terms = bound_terms(model, guide, x, context=past)
    assert terms.bound.shape[1:] == (3, T - model.context_length)
    if guide is None:
        expected = model.log_prob(x, context=past)
        torch.testing.assert_close(terms.bound[0], expected)
        torch.testing.assert_close(found.log_evidence, expected.sum(1))
    else:
        loss = Trace_ELBO().loss(model, guide, x, covariates=past)
        assert math.isfinite(loss)
        assert smc(model, guide, x, num_particles=2, context=past).log_evidence.isfinite().all()
    futures = rollout(model, guide, x, horizon=3, num_samples=2, context=context)
    assert futures["x_future"].shape == (2, 3, 3, D)
    lengths = torch.tensor([6, 8, 7])
    ragged = rollout(
        model, guide, x, horizon=3, num_samples=1, context=context, lengths=lengths, temperature=0.0
    )
    if guide is None:
        alone = rollout(
            model, None, x[:1, :6], horizon=3, num_samples=1, context=context[:1, :9], temperature=0
        )
        both = (torch.as_tensor(a["x_future"].values[0, 0]) for a in (ragged, alone))
        torch.testing.assert_close(*both, rtol=1e-5, atol=1e-5)
    tree = infer(model, guide, x, num_samples=2, horizon=3, context=context)
    assert tree["posterior_predictive/x_future"].sizes["time_future"] == 3
    drawn = Predictive(model, guide=guide, num_samples=2)(x, horizon=3, covariates=context)
    assert drawn["x_future"].shape[-3:] == (3, 3, D)


@each
def test_a_stream_is_the_batch(name: str):
    model, (x, context) = made(name), data()
    if isinstance(model, SLVM):
        stream = StreamingFilter(model, guide_of(model), num_particles=4)
    else:
        stream, expected = StreamingFilter(model), model.log_prob(x, context=context)
    mean = None if isinstance(model, SLVM) else model.predictive_mean(x, context=context)
    for t in range(T):
        if mean is not None and t >= model.context_length > 0:
            found = stream.forecast(context[:, t]).mean
            torch.testing.assert_close(found, mean[:, t - model.context_length])
        update = stream.update(x[:, t], context[:, t])
        assert update.forecast is None
        if mean is not None and t >= model.context_length:
            scored = expected[:, t - model.context_length]
            torch.testing.assert_close(update.log_likelihood, scored)
    assert stream.forecast(context[:, 0]).mean.shape == (3, D)


def test_an_iterative_guide_sees_them():
    model, (x, context) = made("slvm-flow-memory"), data()
    guide = IterativeGuide(model, iterations=1, hidden=(8,)).double()
    assert math.isfinite(Trace_ELBO().loss(model, guide, x, covariates=context))


def test_a_smoothing_guide_goes_with_them():
    model, (x, context) = made("slvm-flow-memory"), data()
    guide = SmoothingGuide(model, MLPEncoder(D, features=6), summary=4, hidden=5).double()
    assert math.isfinite(Trace_ELBO().loss(model, guide, x, covariates=context))
    assert bool(
        iwae(model, guide, x, num_particles=2, context=context).log_evidence.isfinite().all()
    )


def test_a_regression_is_learned_from_batches_of_its_own_covariates():
    """x_t = 2 c_t + 0.1 N(0, 1): the rows of both go together."""
    torch.manual_seed(0)
    context = torch.randn(64, 6, 1)
    x = 2 * context + 0.1 * torch.randn(64, 6, 1)
    conditioner = MLPConditioner(1, window=1, hidden=(16,), context_features=1)
    model = FlowModel(TemporalAffine(conditioner), (1,), context_features=1)
    options = {"steps": 400, "batch_size": 16, "learning_rate": 1e-2, "progress": False}
    fit(model, None, x, context=context, **options)
    truth = torch.distributions.Normal(2 * context, 0.1).log_prob(x)[:, 1:].mean()
    found = model.log_prob(x, context=context).mean()
    assert float(found.detach()) > float(truth) - 0.15


def test_frames_of_pictures_have_covariates():
    torch.manual_seed(0)
    conditioner = ConvConditioner(1, hidden=4, window=2, context_features=F)
    model = FlowModel(TemporalAffine(conditioner), (1, 8, 8), context_features=F)
    x, context = torch.rand(2, 5, 1, 8, 8), torch.randn(2, 7, F)
    before = model.log_prob(x, context=context[:, :5])
    other = context.clone()
    other[:, 4] += 1.0
    after = model.log_prob(x, context=other[:, :5])
    assert torch.equal(before[:, :2], after[:, :2])
    assert (before[:, 2] != after[:, 2]).all()
    assert rollout(model, None, x, horizon=2, num_samples=1, context=context)["x_future"].size


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: None, "expected a context of 2 covariates of every frame, got none"),
        (lambda c: c[:, :-1], r"expected a context \(3, 8, 2\), .* got \(3, 7, 2\)"),
        (lambda c: c[..., :1], r"expected a context \(3, 8, 2\), .* got \(3, 8, 1\)"),
        (lambda c: c.log(), "the context has values that are not finite"),
    ],
)
def test_contexts_that_do_not_fit(change: Callable[[Tensor], Tensor | None], message: str):
    model, (x, context) = made("mlp"), data()
    with pytest.raises(ValueError, match=message):
        model.log_prob(x, context=change(context))


def test_a_model_without_covariates_refuses_them():
    model = FlowModel(TemporalAffine(MLPConditioner(D, window=1)), (D,))
    x, context = data()
    for call in (model.log_prob, lambda x, context: fit(model, None, x, context=context, steps=1)):
        with pytest.raises(ValueError, match="expected no context, for this model takes none"):
            call(x.float(), context=context.float())
    with pytest.raises(ValueError, match="expected a flow that takes 2 covariates, got one whose"):
        FlowModel(TemporalAffine(MLPConditioner(D, window=1)), (D,), context_features=2)
    with pytest.raises(ValueError, match="must not be negative"):
        FlowModel(TemporalAffine(mlp()), (D,), context_features=-1)


def test_one_calendar_is_that_of_all_sequences():
    model, (x, context) = made("lstm"), data()
    shared = model.log_prob(x, context=context[0])
    torch.testing.assert_close(shared, model.log_prob(x, context=context[:1].expand(3, -1, -1)))
    assert Pair(model, None)
