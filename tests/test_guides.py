"""Guides: what each latent may see, and that any of them can take another's place."""

import pyro
import pytest
import torch
from pyro.infer import SVI, Predictive, Trace_ELBO
from torch import Tensor

from pyro_afslvm import (
    SLVM,
    ConvConditioner,
    FilteringGuide,
    LSTMConditioner,
    SmoothingGuide,
    TemporalAffine,
)
from pyro_afslvm.networks import ConvDecoder, ConvEncoder

FRAME, LATENT, GIVEN = (1, 16, 16), 3, 2


def build(guide: type[FilteringGuide], *, flow: bool = True) -> tuple[SLVM, FilteringGuide]:
    torch.manual_seed(0)
    network = ConvConditioner(1, hidden=4, depth=1, window=GIVEN)
    model = SLVM(
        FRAME,
        LATENT,
        prior=TemporalAffine(LSTMConditioner(LATENT, hidden=5)),
        decoder=ConvDecoder(LATENT, FRAME, width=4),
        flow=TemporalAffine(network) if flow else None,
    ).double()
    options = {"summary": 4} if guide is SmoothingGuide else {}
    encoder = ConvEncoder(FRAME, features=6, width=4)
    return model, guide(model, encoder, hidden=5, **options).double()


def frames(length: int = 8, batch: int = 3) -> Tensor:
    return torch.rand(batch, length, *FRAME, dtype=torch.float64)


each = pytest.mark.parametrize("guide", [FilteringGuide, SmoothingGuide])


def sight(guide: type[FilteringGuide]) -> Tensor:
    """How much the posterior mean of z_t (rows) moves with x_s (columns), z_<t fixed."""
    model, posterior = build(guide, flow=False)
    x, z = frames(5, 1), torch.randn(1, 5, LATENT, dtype=torch.float64)

    def means(x: Tensor) -> Tensor:
        transform = posterior.distribution(model.split(x)).transforms[0]
        return transform.levels(z)[0].shift[0]

    matrix = torch.autograd.functional.jacobian(means, x)  # (T, Z, 1, T, C, H, W)
    return matrix.abs().sum((1, 2, 4, 5, 6))


def test_filtering_sees_the_present_and_the_past():
    seen = sight(FilteringGuide) > 0
    assert torch.equal(seen, torch.ones(5, 5).tril().bool())


def test_smoothing_sees_everything():
    assert (sight(SmoothingGuide) > 0).all()


@each
def test_every_parameter_moves(guide):
    model, posterior = build(guide)
    before = {k: p.clone() for k, p in posterior.named_parameters()}
    before |= {f"model.{k}": p.clone() for k, p in model.named_parameters()}
    SVI(model, posterior, pyro.optim.Adam({"lr": 1e-3}), Trace_ELBO()).step(frames())
    after = dict(posterior.named_parameters())
    after |= {f"model.{k}": p for k, p in model.named_parameters()}
    for name, value in before.items():
        assert not torch.equal(value, after[name]), name


def test_guides_are_swapped_by_one_line():
    model, filtering = build(FilteringGuide)
    smoothing = SmoothingGuide(model, ConvEncoder(FRAME, features=6, width=4), summary=4).double()
    x = frames()
    for guide in (filtering, smoothing):
        future = Predictive(model, guide=guide, num_samples=2)(x, horizon=3)["x_future"]
        assert future.shape == (2, 3, 3, *FRAME)
        assert Trace_ELBO().loss(model, guide, x) > 0


@each
def test_a_ragged_batch_is_its_sequences_one_by_one(guide):
    model, posterior = build(guide)
    x, lengths = frames(), torch.tensor([5, 8, 6])
    whole = posterior.distribution(model.split(x, lengths)).transforms[0]
    z = torch.randn(3, 6, LATENT, dtype=torch.float64)
    for i, length in enumerate(lengths.tolist()):
        alone = posterior.distribution(model.split(x[i : i + 1, :length])).transforms[0]
        expected = alone.inv(z[i : i + 1, : length - GIVEN])
        found = whole.inv(z)[i : i + 1, : length - GIVEN]
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)


@each
def test_padding_does_not_matter(guide):
    model, posterior = build(guide)
    x, lengths = frames(), torch.tensor([5, 8, 6])
    other = x.clone()
    other[0, 5:] = 0.7
    losses = []
    for batch in (x, other):
        pyro.set_rng_seed(1)
        losses.append(Trace_ELBO().loss(model, posterior, batch, lengths=lengths))
    assert losses[0] == losses[1]
