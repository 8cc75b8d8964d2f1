"""The streaming filter is the batch computation, at a constant cost per frame."""

import math

import pytest
import torch
from torch import Tensor, nn

from pyro_afslvm import (
    ConvConditioner,
    FlowModel,
    StreamingFilter,
    TemporalAffine,
    TemporalChain,
    fit,
)
from pyro_afslvm.forecasting.streaming import FilterUpdate
from pyro_afslvm.objectives import smc
from pyro_afslvm.transforms import LastFrame
from tests.support.guides import (
    GIVEN,
    LATENT,
    PAIRS,
    SIZE,
    same_updates,
    sequences,
    system,
    video,
)
from tests.support.registry import calls, perturb

FILTERS = [pair for pair in PAIRS if "smoothing" not in pair[1]]


def run(stream: StreamingFilter, x: Tensor) -> list[FilterUpdate]:
    return [stream.update(frame) for frame in x.unbind(1)]


@pytest.mark.parametrize(
    ("model", "guide", "size"), [*((*pair, 6) for pair in FILTERS), ("vrnn", "filtering", 1)]
)
def test_it_is_the_batch_filter(model: str, guide: str, size: int):
    pair, x = system(model, guide), sequences()
    if guide == "iterative":  # draws for its updates in another order
        pair.guide.draw = same_updates
    batch = torch.Generator().manual_seed(3)
    with torch.no_grad():
        expected = smc(*pair, x, num_particles=size, generator=batch)
    stream = StreamingFilter(*pair, num_particles=size, generator=torch.Generator().manual_seed(3))
    updates = run(stream, x)
    given = pair.model.context_length
    for update in updates[:given]:
        assert update.log_likelihood.isnan().all()
        assert update.z is None
    found = torch.stack([update.log_likelihood for update in updates[given:]], 1)
    torch.testing.assert_close(found, expected.log_likelihood, rtol=1e-10, atol=1e-10)
    assert updates[-1].z.shape == (size, len(x), LATENT)
    torch.testing.assert_close(updates[-1].weights.sum(0), torch.ones(len(x)).double())


def flows() -> dict[str, FlowModel]:
    torch.manual_seed(0)
    frame = (1, 8, 8)

    def part(window: int, initial: str | None = None) -> TemporalAffine:
        network = ConvConditioner(1, hidden=4, depth=1, window=window, residual=True)
        return TemporalAffine(network, initial=initial)

    found = {
        "1-AF": FlowModel(part(3), frame),
        "2-AF": FlowModel(TemporalChain([part(2), part(3)]), frame),
        "learned start": FlowModel(part(2, "learned"), frame),
        "longer context": FlowModel(part(1), frame, context_length=4),
    }
    for model in found.values():
        model.double().eval()
        perturb(model)
    return found


@pytest.mark.parametrize("name", flows())
def test_a_flow_is_exact(name: str):
    model = flows()[name]
    x = torch.rand(2, 9, 1, 8, 8, dtype=torch.float64)
    updates = run(StreamingFilter(model), x)
    given = model.context_length
    found = torch.stack([update.log_likelihood for update in updates[given:]], 1)
    with torch.no_grad():
        torch.testing.assert_close(found, model.log_prob(x), rtol=1e-10, atol=1e-10)
        means = torch.stack([u.forecast.mean for u in updates[max(given, 1) - 1 : -1]], 1)
        expected = model.predictive_mean(x)[:, 0 if given else 1 :]
        torch.testing.assert_close(means, expected, rtol=1e-10, atol=1e-10)
    assert [u.forecast is None for u in updates[:given]] == [True] * (given - 1) + [False] * (
        given > 0
    )


@pytest.mark.parametrize("model", ["plain", "hierarchy", "vrnn", "no-flow"])
def test_the_forecast_has_the_moments_of_the_future(model: str):
    pair, x, n = system(model, "filtering"), sequences(1), 20_000
    stream = StreamingFilter(*pair, num_particles=n)
    forecast = run(stream, x)[-1].forecast
    particles = stream._latents.particles
    given = pair.model.given(x)
    state = pair.model.initial_state(torch.Size([n, 1]), given=given)
    state = state._replace(prior=particles.prior)
    eps = torch.randn(n, 1, pair.model.eps_size, dtype=torch.float64)
    with torch.no_grad():
        frames = pair.model.step(eps, state)[0].x
    weights = particles.log_weights.exp()[..., None]
    mean = (weights * frames).sum(0)
    squares = (frames - forecast.mean).square()
    error, error_of_squares = (v.std(0) / (n / 4) ** 0.5 for v in (frames, squares))
    assert ((forecast.mean - mean).abs() < 6 * error).all()
    variance = (weights * squares).sum(0)
    assert ((forecast.scale.square() - variance).abs() < 6 * error_of_squares).all()


def numbers(thing: object) -> int:
    """Numbers held by nested tuples and objects."""
    if isinstance(thing, Tensor):
        return thing.numel()
    if isinstance(thing, (tuple, list)):
        return sum(numbers(part) for part in thing)
    return 0


def test_time_and_memory_per_frame_are_constant():
    model, guide = video()
    stream = StreamingFilter(model, guide, num_particles=5)
    network: nn.Module = model.flow.conditioner.encoder
    seen, held = [], []
    for frame in torch.rand(40, 2, 1, 16, 16):
        with (
            calls(network) as flow,
            calls(guide.encoder.network) as encoder,
            calls(model.decoder.network) as decoder,
        ):
            stream.update(frame)
        seen.append((flow.frames, encoder.frames, decoder.frames))
        held.append(sum(numbers(v) for v in vars(stream).values()))
    assert seen[:3] == [(0, 0, 0), (0, 0, 0), (6, 0, 10)]  # the context, and a forecast
    assert seen[3:] == [(2, 2, 20)] * 37  # no frame twice: the particles are decoded twice
    assert len(set(held[3:])) == 1


def test_no_graph_is_kept():
    model, guide = video()
    stream = StreamingFilter(model, guide, num_particles=2)
    for frame in torch.rand(5, 2, 1, 16, 16):
        update = stream.update(frame)
    assert not update.log_likelihood.requires_grad
    assert not update.forecast.mean.requires_grad


def test_an_odd_frame_stands_out():
    model = FlowModel(TemporalAffine(LastFrame(1, learned_scale=True)), (2,))
    x = 0.1 * torch.randn(1, 12, 2).cumsum(1)
    fit(model, None, x, steps=300, learning_rate=0.05, progress=False)
    x[:, 8:] += 3.0
    scores = [-u.log_likelihood.item() for u in run(StreamingFilter(model), x)]
    assert max(range(12), key=lambda t: scores[t]) == 8


# what a user may get wrong -------------------------------------------------------------------


@pytest.mark.parametrize("guide", ["smoothing", "smoothing-iaf"])
def test_a_smoothing_guide_is_refused(guide: str):
    with pytest.raises(TypeError, match="got SmoothingGuide, which sees later frames"):
        StreamingFilter(*system("plain", guide))
    with pytest.raises(TypeError, match="got SmoothingGuide, which sees later frames"):
        system("plain", guide).guide.frame_context(torch.zeros(1, SIZE))


def test_what_does_not_fit():
    pair = system("plain", "filtering")
    with pytest.raises(TypeError, match="expected no guide, for a flow has no latents; got one"):
        StreamingFilter(flows()["1-AF"], pair.guide)
    with pytest.raises(TypeError, match="expected an SLVM and a guide"):
        StreamingFilter(pair.model, None)
    with pytest.raises(ValueError, match="at least 1 particle"):
        StreamingFilter(*pair, num_particles=0)
    stream = StreamingFilter(*pair)
    with pytest.raises(ValueError, match=r"expected x of shape"):
        stream.update(torch.zeros(2, SIZE + 1))
    with pytest.raises(ValueError, match="NaN or Inf"):
        stream.update(torch.full((2, SIZE), math.nan))
    for _ in range(GIVEN + 2):
        stream.update(torch.zeros(2, SIZE, dtype=torch.float64))
        with pytest.raises(ValueError, match=r"frames of 2 streams as before, got 3"):
            stream.update(torch.zeros(3, SIZE, dtype=torch.float64))
