"""Rollouts: the model's own samples, a few at a time, each frame looked at once."""

import numpy as np
import pyro
import pytest
import torch
from pyro.distributions import Normal
from pyro.infer import Predictive

from pyro_afslvm import (
    SLVM,
    ConvConditioner,
    FlowModel,
    InverseAutoregressive,
    LSTMConditioner,
    StreamingFilter,
    TemporalAffine,
    rollout,
)
from pyro_afslvm.guides import FilteringGuide
from pyro_afslvm.models.base import simulate
from pyro_afslvm.models.noise import MixtureNoise
from pyro_afslvm.networks import ConvDecoder, ConvEncoder
from pyro_afslvm.objectives import iwae
from tests.support.guides import (
    GIVEN,
    LATENT,
    MODELS,
    PAIRS,
    SIZE,
    encoder,
    flow,
    sequences,
    system,
    video,
)
from tests.support.processes import run_python
from tests.support.registry import calls, perturb

each = pytest.mark.parametrize("model", MODELS)


# the samples ---------------------------------------------------------------------------------


def normal_behind(model: SLVM, y: torch.Tensor, parameters: tuple[torch.Tensor, ...]):
    """The N(0, 1) draws behind y, of which a mixture has the inverse in closed form."""
    if isinstance(model.noise_model, MixtureNoise):
        return model.noise_model(*parameters).transforms[0].inv(y)
    location, scale = parameters
    return (y - location) / scale


@each
def test_the_noise_behind_a_future_is_what_it_was_made_of(model: str):
    """Steps are the inverse of the densities: of prior, decoder, flow, memory together."""
    pair, x, s, h = system(model, "filtering"), sequences(), 4, 5
    model_, given = pair.model, pair.model.context_length
    z = torch.randn(s, len(x), x.shape[1] - given, LATENT, dtype=torch.float64)
    eps = torch.randn(s, len(x), h, model_.eps_size, dtype=torch.float64)
    with torch.no_grad():
        state = model_.initial_state(torch.Size((s, len(x))), given=model_.given(x), z=z)
        future = simulate(model_, eps, state)
        whole_z = torch.cat([z, future.z], 2)
        for i in range(s):
            batch = model_.batch(torch.cat([x, future.x[i]], 1))
            behind = model_.transition_distribution(batch).transforms[0].inv(whole_z[i])[:, -h:]
            torch.testing.assert_close(behind, eps[i, ..., :LATENT], rtol=1e-6, atol=1e-6)
            parameters = model_.decode(whole_z[i], model_.past(batch))
            behind = normal_behind(model_, model_.to_noise(batch), parameters)[:, -h:]
            torch.testing.assert_close(behind, eps[i, ..., LATENT:], rtol=1e-6, atol=1e-6)


def moments(samples: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and error of frames, their squares and neighbouring products."""
    flat = samples.flatten(2).double()  # (S, N, H * D)
    features = torch.cat([flat, flat.square(), flat[..., :-1] * flat[..., 1:]], -1)
    return features.mean(0), features.std(0) / len(features) ** 0.5


@pytest.mark.parametrize("model", ["plain", "no-flow", "hierarchy", "vrnn"])
@pytest.mark.parametrize("start", ["given", "from nothing"])
def test_every_way_to_sample_agrees_in_distribution(model: str, start: str):
    if start == "from nothing" and model not in ("no-flow", "vrnn-no-flow-no-lstm"):
        model = {"plain": "no-flow", "vrnn": "vrnn-no-flow-no-lstm"}.get(model, "no-flow")
    pair, n = system(model, "filtering"), 3000
    x = sequences(2) if start == "given" else None
    found = []
    for parallel in (True, False):
        size = n if parallel else n // 6
        predictive = Predictive(pair.model, guide=pair.guide, num_samples=size, parallel=parallel)
        with torch.no_grad():
            found.append(predictive(x, horizon=3)["x_future"])
    dataset = rollout(*pair, x, horizon=3, num_samples=n, chunk=1000)
    found.append(torch.from_numpy(dataset.x_future.values))
    (mean, error), *others = [
        moments(samples.reshape(len(samples), -1, 3, SIZE)) for samples in found
    ]
    for other, its_error in others:
        z = (mean - other) / (error**2 + its_error**2).sqrt()
        assert z.abs().max() < 5


@each
def test_temperature_scales_the_noise(model: str):
    pair, x = system(model, "filtering"), sequences()
    still = rollout(*pair, x, horizon=4, num_samples=3, temperature=0.0, seed=1).x_future
    warm = rollout(*pair, x, horizon=4, num_samples=3, temperature=1.0, seed=1).x_future
    cool = rollout(*pair, x, horizon=4, num_samples=3, temperature=0.1, seed=1).x_future
    # without noise what is left is the uncertainty of the posterior
    assert float(abs(cool - still).mean()) < 0.5 * float(abs(warm - still).mean())


def test_temperature_is_exactly_the_scale_of_the_noise():
    """The noise behind a future at temperature 0.3 is 0.3 times that of the same seed at 1."""
    model = system("no-flow", "filtering").model
    noises = []
    for temperature in (1.0, 0.3):
        found = rollout(model, None, None, horizon=5, temperature=temperature, seed=3)
        x, z = (torch.from_numpy(found[k].values[:, 0]).double() for k in ("x_future", "z_future"))
        with torch.no_grad():
            location, scale = model.decode(z)
            of_y = (x - location) / scale
            noises.append(torch.cat([model.prior.condition().inv(z), of_y], -1))
    torch.testing.assert_close(noises[1], 0.3 * noises[0], rtol=1e-4, atol=1e-4)


def test_temperature_zero_is_the_mean_of_the_next_frame():
    model = FlowModel(flow().double(), (SIZE,))
    x = sequences()
    still = rollout(model, None, x, horizon=1, num_samples=1, temperature=0.0)
    again = torch.cat([x, torch.from_numpy(still.x_future.values[0]).double()], 1)
    with torch.no_grad():
        expected = model.predictive_mean(again)[:, -1].float().numpy()
    np.testing.assert_allclose(still.x_future.values[0, :, 0], expected, rtol=1e-5, atol=1e-6)


def test_a_seed_repeats_and_chunks_do_not_matter_to_the_shape():
    pair, x = system("plain", "filtering"), sequences()
    one = rollout(*pair, x, horizon=4, num_samples=7, chunk=3, seed=5)
    two = rollout(*pair, x, horizon=4, num_samples=7, chunk=3, seed=5)
    assert one.identical(two)
    assert one.x_future.dims == ("sample", "sequence", "time_future", "feature")
    assert dict(one.sizes) == {
        "sample": 7, "sequence": 3, "time_future": 4, "feature": SIZE, "latent": LATENT
    }  # fmt: skip
    assert one.time_future.values.tolist() == [1, 2, 3, 4]
    assert one.x_future.dtype == np.float32


@pytest.mark.parametrize(("model", "guide"), PAIRS)
def test_ragged_sequences_one_by_one(model: str, guide: str):
    pair, x = system(model, guide), sequences()
    lengths = torch.tensor([6, 8, 5])
    together = rollout(*pair, x, horizon=4, num_samples=5, chunk=2, lengths=lengths, seed=0)
    pyro.set_rng_seed(0)
    for length, i in sorted((length, i) for i, length in enumerate(lengths.tolist())):
        alone = rollout(*pair, x[i : i + 1, :length], horizon=4, num_samples=5, chunk=2)
        for name in ("x_future", "z_future"):
            np.testing.assert_allclose(
                together[name].values[:, i], alone[name].values[:, 0], rtol=1e-5, atol=1e-6
            )


def test_padding_does_not_matter():
    pair, x = system("vrnn", "filtering"), sequences()
    other, lengths = x.clone(), torch.tensor([6, 8, 5])
    other[0, 6:], other[2, 5:] = 7.0, 8.0
    found = [
        rollout(*pair, v, horizon=3, num_samples=4, lengths=lengths, seed=0) for v in (x, other)
    ]
    assert found[0].identical(found[1])


def test_a_guide_of_the_users_own():
    pair, x = system("plain", "filtering"), sequences()

    def noisy(x, **_):
        """With a site of its own, so that it must run for every chunk."""
        shift = pyro.sample("shift", Normal(0.0, 1.0))
        with pyro.plate("sequence", len(x), dim=-1):
            q = Normal(shift.double()[..., None, None], 1.0).expand([*shift.shape, 6, LATENT])
            pyro.sample("z", q.to_event(2))

    futures = rollout(pair.model, noisy, x, horizon=3, num_samples=5, chunk=5)
    assert futures.x_future.shape == (5, 3, 3, SIZE)
    assert (futures.x_future.std("sample") > 0).all()


# the cost ------------------------------------------------------------------------------------


def test_every_frame_is_encoded_once():
    model, guide = video()
    horizon, samples, chunk = 6, 20, 5
    network = model.flow.conditioner.encoder
    counts = []
    for size in (samples, 2 * samples):
        x = torch.rand(2, 8, 1, 16, 16)
        with (
            calls(network) as frames,
            calls(guide.encoder.network) as seen,
            calls(model.decoder.network) as decoded,
        ):
            rollout(model, guide, x, horizon=horizon, num_samples=size, chunk=chunk)
        # the frames that are given: for their own density, and the window before the future
        given = 2 * 7 + 2 * 3
        assert frames.frames == given + size * 2 * (horizon - 1)
        assert seen.frames == 2 * 5  # by the guide, however many samples there are
        assert decoded.frames == size * 2 * horizon
        counts.append(decoded.count)
    assert counts[1] == 2 * counts[0] == 2 * horizon * samples // chunk


@pytest.mark.slow
def test_memory_is_flat_in_the_samples():
    program = """
import resource, sys, torch
from tests.support.guides import video
from pyro_afslvm import rollout
torch.set_num_threads(1)
model, guide = video()
x = torch.rand(2, 8, 1, 16, 16)
rollout(model, guide, x, horizon=30, num_samples=20, chunk=10)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
found = rollout(model, guide, x, horizon=30, num_samples=1000, chunk=10)
after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print((after - before) * 1024, found.x_future.nbytes + found.z_future.nbytes)
"""
    growth, result = map(int, run_python("-c", program).stdout.split())
    assert result > 50e6
    assert growth < result + 20e6  # the result itself, and no more


# what a user may get wrong -------------------------------------------------------------------


def test_bad_requests():
    pair, x = system("plain", "filtering"), sequences()

    def refused(match: str, **changed):
        options = {"horizon": 2, "num_samples": 2} | changed
        prefix = options.pop("x", x)
        guide = options.pop("guide", pair.guide)
        with pytest.raises(ValueError, match=match) as caught:
            rollout(pair.model, guide, prefix, **options)
        assert "\n" not in str(caught.value)

    refused("horizon of at least 1 frame, got 0", horizon=0)
    refused("horizon of at least 1 frame, got -1", horizon=-1, x=None)
    refused("at least 1 sample, got 0", num_samples=0)
    refused("at least 1 sample, got 2 in chunks of 0", chunk=0)
    refused("temperature of at least 0, got -1", temperature=-1.0)
    refused("temperature of at least 0, got nan", temperature=float("nan"))
    refused("lengths must lie in 2..8, got 1..8", lengths=torch.tensor([1, 8, 8]))
    refused("lengths must lie in 2..8, got 8..9", lengths=torch.tensor([8, 9, 8]))
    refused("expected 3 whole lengths", lengths=torch.tensor([8, 8]))
    refused("expected no lengths without x", x=None, lengths=torch.tensor([8]))
    refused("expected a guide, for this model has latents; got none", guide=None)
    refused("expected a guide with a site z, got sites", guide=lambda x: None)
    refused("made for another model", guide=system("plain", "filtering").guide)
    refused("temperature of at least 0, got inf", temperature=float("inf"))
    refused("x holds NaN or Inf", x=torch.full_like(x, float("nan")))
    refused("floating point numbers, got torch.int64", x=x.long())
    refused("2 frames", x=x[:, : GIVEN - 1])
    refused(r"expected x of shape", x=x[..., :1])
    refused("2 frames of history are needed", x=None)


def test_a_flow_takes_no_guide_and_short_sequences():
    model, x = FlowModel(flow().double(), (SIZE,)), sequences()
    with pytest.raises(ValueError, match="expected no guide, for a flow has no latents; got one"):
        rollout(model, system("plain", "filtering").guide, x, horizon=2)
    lengths = torch.tensor([GIVEN, 8, 5])
    assert rollout(model, None, x, horizon=2, lengths=lengths).x_future.shape[1] == 3


def test_statistics_of_batch_norm_do_not_move():
    torch.manual_seed(0)
    frame = (1, 16, 16)
    front = TemporalAffine(ConvConditioner(1, hidden=4, depth=1, window=2, norm="batch"))
    latents = TemporalAffine(LSTMConditioner(3, hidden=5))
    decoder = ConvDecoder(3, frame, width=4, norm="batch")
    model = SLVM(frame, 3, prior=latents, decoder=decoder, flow=front).train()
    guide = FilteringGuide(model, ConvEncoder(frame, features=6, width=4, norm="batch")).train()
    x = torch.rand(3, 6, *frame)
    before = [b.clone() for part in (model, guide) for b in part.buffers()]
    rollout(model, guide, x, horizon=2, num_samples=2)
    iwae(model, guide, x, num_particles=2)
    stream = StreamingFilter(model, guide, num_particles=2)
    for image in x.unbind(1):
        stream.update(image)
    after = [b for part in (model, guide) for b in part.buffers()]
    assert all(torch.equal(one, two) for one, two in zip(before, after, strict=True))
    assert model.training
    assert guide.training


def test_iaf_and_flow_from_nothing():
    torch.manual_seed(0)
    model = system("no-flow", "filtering").model
    iaf = InverseAutoregressive(LATENT, context_features=6, hidden=(8,))
    guide = FilteringGuide(model, encoder(), iaf=iaf).double()
    found = rollout(model, guide, None, horizon=4, num_samples=6)
    assert found.x_future.shape == (6, 1, 4, SIZE)
    front = flow()
    front = type(front)(front.conditioner, initial="learned").double()
    perturb(front)
    found = rollout(FlowModel(front, (SIZE,)), None, None, horizon=4, num_samples=6)
    assert found.x_future.shape == (6, 1, 4, SIZE)
    assert "z_future" not in found
