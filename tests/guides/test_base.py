"""Guides: what each latent may see, and that any of them can take another's place."""

import copy

import pyro
import pyro.poutine as poutine
import pytest
import torch
from pyro.infer import Predictive, Trace_ELBO
from torch import Tensor

from pyro_afslvm import (
    SLVM,
    ConvConditioner,
    FilteringGuide,
    InverseAutoregressive,
    IterativeGuide,
    LSTMConditioner,
    Pair,
    SmoothingGuide,
    TemporalAffine,
    rollout,
)
from pyro_afslvm.networks import ConvDecoder, ConvEncoder, MLPDecoder, MLPEncoder
from pyro_afslvm.objectives import bound_terms, log_prob_per_step, smc
from tests.support.guides import (
    EACH,
    GUIDES,
    LATENT,
    MODELS,
    PAIRS,
    SIZE,
    encoder,
    model_of,
    plain,
    same_updates,
    sequences,
    system,
)
from tests.support.pairs import check_training

each = pytest.mark.parametrize(("model", "guide"), PAIRS)
LENGTHS = torch.tensor([5, 8, 6])


# what a latent sees ----------------------------------------------------------------------


def sight(guide: str) -> Tensor:
    """How much the posterior mean of z_t (rows) moves with x_s (columns), z_<t fixed."""
    model, posterior = system("no-flow", guide)
    x, z = sequences(1, 5), torch.randn(1, 5, LATENT, dtype=torch.float64)

    def means(x: Tensor) -> Tensor:
        torch.manual_seed(3)  # of the iterative guide's noise
        transform = posterior.distribution(model.batch(x)).transforms[0]
        return transform.intermediates(z)[0].shift[0]

    with torch.no_grad():  # by differences: the iterative posterior holds the model still
        moved = []
        for s in range(5):
            other = x.clone()
            other[:, s] += 2.0  # beyond the kinks of the encoder
            moved.append((means(other) - means(x)).abs().sum(-1))
    return torch.stack(moved, 1)


@pytest.mark.parametrize("guide", ["filtering", "iterative", "hierarchy"])
def test_filtering_sees_the_present_and_the_past(guide: str):
    seen = sight(guide) > 0
    if guide == "iterative":  # the past comes to it through the latents alone, fixed here
        assert torch.equal(seen, torch.eye(5).bool())
    else:
        assert torch.equal(seen, torch.ones(5, 5).tril().bool())


def test_smoothing_sees_everything():
    assert (sight("smoothing") > 0).all()


def test_iaf_makes_the_posterior_of_a_step_depend_on_its_own_entries():
    model, posterior = system("plain", "filtering-iaf")
    q = posterior.distribution(model.batch(sequences(1)))
    _, iaf = q.transforms
    u = torch.randn(1, 6, LATENT, dtype=torch.float64)
    jacobian = torch.autograd.functional.jacobian(lambda v: iaf(v)[0, 2], u)[:, 0, 2]
    assert (jacobian.tril(-1) != 0).any() or (jacobian.triu(1) != 0).any()
    assert (torch.autograd.functional.jacobian(lambda v: iaf(v)[0, 2], u)[:, 0, 3] == 0).all()


# every guide -----------------------------------------------------------------------------


@each
def test_every_parameter_moves_and_svi_and_torch_agree(model: str, guide: str):
    check_training(Pair(*system(model, guide)), sequences())


@each
def test_the_terms_add_up_to_the_bound(model: str, guide: str):
    pair, x = system(model, guide), sequences()
    pyro.set_rng_seed(2)
    terms = bound_terms(*pair, x)
    pyro.set_rng_seed(2)
    assert -terms.bound.sum().item() == pytest.approx(Trace_ELBO().loss(*pair, x), rel=1e-10)


@each
def test_vectorised_particles_are_single_ones(model: str, guide: str):
    """The densities of many particles in one run, and of each of them alone."""
    pair, x, size = system(model, guide), sequences(), 4
    with pyro.plate("particles", size, dim=-2):
        many = poutine.trace(pair.guide).get_trace(x)
    q = many.nodes["z"]["fn"]
    z = many.nodes["z"]["value"]
    together = q.log_prob(z)
    assert together.shape == (size, len(x))
    # through the same transforms, which hold the noise of the iterative guide's updates
    alone = poutine.trace(pair.guide).get_trace(x).nodes["z"]["fn"]
    alone.transforms = q.transforms
    for i in range(size):
        torch.testing.assert_close(alone.log_prob(z[i]), together[i], rtol=1e-9, atol=1e-9)
        one_by_one = poutine.condition(pair.model, {"z": z[i]})
        given = poutine.trace(one_by_one).get_trace(x)
        both = poutine.trace(poutine.condition(pair.model, {"z": z}))
        with pyro.plate("particles", size, dim=-2):
            joint = both.get_trace(x)
        for site in ("x", "z"):
            one = given.nodes[site]["fn"].log_prob(given.nodes[site]["value"])
            torch.testing.assert_close(
                joint.nodes[site]["fn"].log_prob(joint.nodes[site]["value"])[i], one
            )


@each
def test_step_by_step_is_the_distribution(model: str, guide: str):
    pair, x = system(model, guide), sequences()
    batch = pair.model.batch(x)
    context = pair.guide.context(batch)
    pair.guide.context = lambda _: context  # one draw of the iterative guide's noise
    q = pair.guide.distribution(batch)
    state, zs, log_probs = pair.guide.initial_state((len(x),)), [], []
    for t in range(context.shape[1]):
        eps = torch.randn(len(x), LATENT, dtype=torch.float64)
        z, log_prob, state = pair.guide.step(eps, state, context=context[:, t])
        zs.append(z)
        log_probs.append(log_prob)
    z = torch.stack(zs, 1)
    expected = log_prob_per_step(q, z)
    torch.testing.assert_close(torch.stack(log_probs, 1), expected, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(q.log_prob(z), expected.sum(-1), rtol=1e-9, atol=1e-9)


@each
def test_the_posterior_goes_on_after_given_latents(model: str, guide: str):
    pair, x = system(model, guide), sequences()
    context = pair.guide.context(pair.model.batch(x))
    eps = torch.randn(len(x), context.shape[1], LATENT, dtype=torch.float64)
    whole = pair.guide.posterior.condition(context=context)
    z = whole(eps)
    for known in (1, 3):
        rest = pair.guide.posterior.condition(context=context, history=z[:, :known])
        torch.testing.assert_close(rest(eps[:, known:]), z[:, known:], rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(rest.inv(z[:, known:]), eps[:, known:], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("parallel", [True, False])
def test_predictive_rolls_out(model: str, parallel: bool):
    pair, x = system(model, "filtering"), sequences()
    predictive = Predictive(pair.model, guide=pair.guide, num_samples=2, parallel=parallel)
    found = predictive(x, horizon=3)
    assert found["x_future"].shape == (2, 3, 3, SIZE)
    assert found["z_future"].shape == (2, 3, 3, LATENT)
    assert found["x_future"].std(0).min() > 0


@each
def test_a_ragged_batch_is_its_sequences_one_by_one(model: str, guide: str):
    pair, x = system(model, guide), sequences()
    if guide == "iterative":  # the same updates for both
        pair.guide.draw = same_updates
    whole = pair.guide.distribution(pair.model.batch(x, LENGTHS))
    z = whole.sample()
    of_q = log_prob_per_step(whole, z)
    of_x = pair.model.log_prob(x, z, lengths=LENGTHS)
    for i, length in enumerate(LENGTHS.tolist()):
        steps = length - pair.model.context_length
        alone = pair.guide.distribution(pair.model.batch(x[i : i + 1, :length]))
        expected = log_prob_per_step(alone, z[i : i + 1, :steps])[0]
        torch.testing.assert_close(of_q[i, :steps], expected, rtol=1e-9, atol=1e-9)
        expected = pair.model.log_prob(x[i : i + 1, :length], z[i : i + 1, :steps])[0]
        torch.testing.assert_close(of_x[i, :steps], expected, rtol=1e-9, atol=1e-9)
        assert (of_x[i, steps:] == 0).all()


@each
def test_padding_does_not_matter(model: str, guide: str):
    pair, x = system(model, guide), sequences()
    other = x.clone()
    other[0, 5:] = 0.7
    found = []
    for batch in (x, other):
        pyro.set_rng_seed(1)
        loss = Trace_ELBO().differentiable_loss(*pair, batch, lengths=LENGTHS)
        parameters = [p for part in pair for p in part.parameters()]
        found.append((loss, *torch.autograd.grad(loss, parameters)))
    for one, two in zip(*found, strict=True):
        torch.testing.assert_close(one, two, rtol=1e-12, atol=1e-12)


def test_guides_are_swapped_by_one_line():
    torch.manual_seed(0)
    frame = (1, 16, 16)
    model = SLVM(
        frame,
        3,
        prior=TemporalAffine(LSTMConditioner(3, hidden=5)),
        decoder=ConvDecoder(3, frame, width=4),
        flow=TemporalAffine(ConvConditioner(1, hidden=4, depth=1, window=2)),
    )
    encoder = ConvEncoder(frame, features=6, width=4)
    x = torch.rand(3, 8, *frame)
    for guide in (
        FilteringGuide(model, encoder),
        FilteringGuide(model, encoder, iaf=InverseAutoregressive(3, context_features=6)),
        SmoothingGuide(model, encoder),
        IterativeGuide(model),
    ):
        future = Predictive(model, guide=guide, num_samples=2)(x, horizon=3)["x_future"]
        assert future.shape == (2, 3, 3, *frame)
        assert Trace_ELBO().loss(model, guide, x) > 0


# what a user may get wrong -------------------------------------------------------------------


def test_a_guide_of_another_model():
    other, guide = system("plain", "filtering")
    decoder = MLPDecoder(2, SIZE)
    model = SLVM((SIZE,), 2, prior=TemporalAffine(LSTMConditioner(2)), decoder=decoder)
    model.flow, model.context_length = other.flow, other.context_length
    with pytest.raises(ValueError, match="made for another model"):
        Trace_ELBO().loss(model, guide, sequences())


def test_an_encoder_for_another_size_of_frames():
    model = SLVM(
        (1, 16, 16),
        2,
        prior=TemporalAffine(LSTMConditioner(2)),
        decoder=ConvDecoder(2, (1, 16, 16)),
    )
    small = ConvEncoder((1, 8, 8), features=5, width=4)
    for guide in (FilteringGuide(model, small), SmoothingGuide(model, small)):
        with pytest.raises(ValueError, match=r"expected an encoder of frames \(1, 16, 16\)"):
            guide.context(model.batch(torch.rand(1, 4, 1, 16, 16)))
    model = plain(with_flow=False)
    for guide in (FilteringGuide(model, MLPEncoder(5)), SmoothingGuide(model, MLPEncoder(5))):
        with pytest.raises(ValueError, match=r"expected an encoder of frames \(3,\)"):
            guide.context(model.batch(sequences().float()))


def test_parts_of_another_size():
    decoder = MLPDecoder(LATENT, SIZE)
    with pytest.raises(ValueError, match="expected the prior to be of 9 latents, got one of 4"):
        SLVM((SIZE,), 9, prior=plain().prior, decoder=decoder)
    wrong = TemporalAffine(LSTMConditioner(5, context_features=6))
    with pytest.raises(ValueError, match="expected the posterior to be of 4 latents, got one of 5"):
        FilteringGuide(plain(), encoder(), posterior=wrong)
    with pytest.raises(ValueError, match="the posterior must be a transform of vectors"):
        FilteringGuide(plain(), encoder(), posterior=TemporalAffine(ConvConditioner(1)))
    model = SLVM((SIZE,), LATENT, prior=plain().prior, decoder=MLPDecoder(LATENT, 1))
    with pytest.raises(ValueError, match=r"expected a decoder of frames \(3,\), got \(3, 8, 1\)"):
        model.log_prob(sequences().float(), torch.zeros(3, 8, LATENT))


def test_an_iaf_of_another_size():
    with pytest.raises(ValueError, match="an IAF of 4 latents, as the model has, got one of 5"):
        FilteringGuide(plain(), encoder(), iaf=InverseAutoregressive(5, context_features=6))


@pytest.mark.parametrize("guide", GUIDES)
def test_a_copy_of_the_pair_stays_a_pair(guide: str):
    pair, x = system(model_of(guide), guide), sequences()
    Trace_ELBO().loss(*pair, x)
    other = copy.deepcopy(Pair(*pair))
    assert other.guide.model is other.model
    assert other.model is not pair.model
    with torch.no_grad():
        for p in pair.model.parameters():
            p.zero_()
    pyro.set_rng_seed(0)
    changed = Trace_ELBO().loss(*other, x)
    fresh = system(model_of(guide), guide)
    pyro.set_rng_seed(0)
    assert changed == Trace_ELBO().loss(*fresh, x)


@pytest.mark.parametrize(("model", "guide"), EACH)
def test_state_dicts(model: str, guide: str):
    pair, other, x = system(model, guide), system(model, guide, seed=1), sequences()
    for mine, theirs in zip(pair, other, strict=True):
        theirs.load_state_dict(mine.state_dict())
    losses = []
    for each_pair in (pair, other):
        pyro.set_rng_seed(0)
        losses.append(Trace_ELBO().loss(*each_pair, x))
    assert losses[0] == losses[1]


@pytest.mark.parametrize("guide", GUIDES)
def test_a_guide_holds_nothing_of_its_model(guide: str):
    model, posterior = system(model_of(guide), guide)
    of_model = {id(p) for p in model.parameters()}
    assert not of_model & {id(p) for p in posterior.parameters()}


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@each
def test_on_cuda(model: str, guide: str):
    pair, x = system(model, guide), sequences()
    here = [part.cuda() for part in pair]
    terms = bound_terms(*here, x.cuda(), lengths=LENGTHS)
    assert terms.bound.device.type == "cuda"
    found = smc(*here, x.cuda(), num_particles=3, lengths=LENGTHS)
    assert found.log_evidence.isfinite().all()
    assert rollout(*here, x.cuda(), horizon=2, num_samples=2).x_future.shape[0] == 2
