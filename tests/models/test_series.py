"""Series: they start as random walks, in units of the data, and trajectories are finite."""

from importlib import import_module
from itertools import pairwise
from pathlib import Path

import pyro
import pytest
import torch
from torch import Tensor
from torch.distributions import MultivariateNormal

from pyro_afslvm import LinearConditioner, MLPConditioner, Pair, rollout
from pyro_afslvm.models.noise import JointStudentT
from pyro_afslvm.models.series import estimate_from, estimate_series, series_model
from pyro_afslvm.training.series import crops, score, train_series
from pyro_afslvm.transforms.least_squares import LARGEST_ROOT, _largest_root, estimate_linear

RECIPES = sorted(path.stem for path in (Path(__file__).parents[2] / "models/series").glob("*.py"))


def walk(steps: int = 200, size: int = 2, *, scale: float = 1.0) -> Tensor:
    """A random walk with drift, far from zero; (T, D)."""
    generator = torch.Generator().manual_seed(0)
    changes = 0.3 + torch.randn(steps, size, generator=generator)
    return scale * (50 + changes.cumsum(0))


def autoregression(steps: int = 2000) -> tuple[Tensor, Tensor]:
    """x_t = A x_{t-1} + e_t with correlated errors: frames (T, 2), and A."""
    generator = torch.Generator().manual_seed(1)
    matrix = torch.tensor([[0.8, 0.15], [-0.3, 0.5]])
    factor = torch.tensor([[1.0, 0.0], [0.7, 0.5]])
    frames = [torch.zeros(2)]
    for error in torch.randn(steps, 2, generator=generator):
        frames.append(matrix @ frames[-1] + factor @ error)
    return torch.stack(frames[1:]), matrix


def linear_of(model: torch.nn.Module) -> LinearConditioner:
    return next(part for part in model.modules() if isinstance(part, LinearConditioner))


# where they start -----------------------------------------------------------------------


def test_a_fresh_model_is_the_random_walk_whatever_its_network() -> None:
    x = torch.randn(3, 9, 2).cumsum(1)
    network = MLPConditioner(4, window=1, hidden=(8,))
    found = series_model((2,), network=network).log_prob(x)
    expected = torch.distributions.Normal(x[:, 1:-1], 1.0).log_prob(x[:, 2:]).sum(-1)
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("recipe", RECIPES)
def test_the_first_step_is_no_worse_than_the_random_walk(recipe: str) -> None:
    """Where nothing but the walk is to be found; latents may cost their divergence."""
    train, held = walk(400), walk(600)[400:]
    pair = import_module(f"models.series.{recipe}").build((2,))
    estimate_series(pair.model, [(train, None)], [(held, None)])
    changes = train.diff(dim=0)
    normal = MultivariateNormal(changes.mean(0), changes.T.cov())
    expected = float(normal.log_prob(held.diff(dim=0)[47:]).mean())
    if pair.guide is None:
        assert score(pair, [(held, None)], skip=48) > expected - 0.05


def test_likelihoods_are_in_the_units_of_the_data() -> None:
    """Of numbers a thousand times as large, log p is smaller by log 1000 for each of them."""
    found = []
    for scale in (1.0, 1000.0):
        pyro.set_rng_seed(0)
        x = walk(scale=scale)
        model = series_model((2,), lags=3, base=JointStudentT(2))
        estimate_series(model, [(x[:150], None)], [(x[150:], None)])
        found.append(float(model.log_prob(x[None]).mean().detach()))
    assert found[0] - found[1] == pytest.approx(2 * 6.9077553, abs=2e-3)


# the closed form ------------------------------------------------------------------------


def test_an_autoregression_is_found() -> None:
    x, matrix = autoregression()
    model = series_model((2,), lags=3)
    estimate_series(model, [(x[:1500], None)], [(x[1500:], None)])
    one = torch.eye(2)
    # from the level alone: all earlier frames are the same
    ahead = torch.stack([model.predictive_mean(e.expand(1, 4, 2))[0, 0] for e in one])
    zero = model.predictive_mean(torch.zeros(1, 4, 2))[0, 0]
    torch.testing.assert_close((ahead - zero).T, matrix, atol=0.06, rtol=0)
    errors = model.flow.condition(history=x[None, :3]).inv(x[None, 3:])[0]
    torch.testing.assert_close(errors.T.cov(), one, atol=0.06, rtol=0)


def test_what_explodes_is_not_taken() -> None:
    """A series that doubles: its regression has a root of two, and is no candidate."""
    generator = torch.Generator().manual_seed(0)
    growth = 2.0 ** torch.arange(20.0).unsqueeze(-1)
    x = growth * (1 + 1e-3 * torch.randn(20, 1, generator=generator))
    conditioner = LinearConditioner(1, lags=2)
    estimate_linear(conditioner, [(x, None)])
    assert _largest_root(conditioner, conditioner.weight.detach().double()) <= LARGEST_ROOT


def test_covariates_are_used() -> None:
    x, _ = autoregression(600)
    known = torch.randn(600, 1, generator=torch.Generator().manual_seed(2))
    series = [(x + 5 * known, known)]
    without, given = series_model((2,)), series_model((2,), context_features=1)
    estimate_series(without, [(x + 5 * known, None)])
    estimate_series(given, series)
    gain = given.log_prob((x + 5 * known)[None], context=known[None]).mean()
    assert gain > without.log_prob((x + 5 * known)[None]).mean() + 1.0


def test_degrees_of_freedom_are_found() -> None:
    generator = torch.Generator().manual_seed(0)
    pyro.set_rng_seed(0)
    heavy = torch.distributions.StudentT(3.0).sample((2000, 1))
    light = torch.randn(2000, 1, generator=generator)
    found = []
    for changes in (heavy, light):
        base = JointStudentT(1)
        estimate_series(series_model((1,), base=base), [(changes.cumsum(0), None)])
        found.append(float(base.df.detach()))
    assert found[0] < 5 < 20 <= found[1]


def test_a_constant_entry_is_refused_in_one_line() -> None:
    x = torch.cat([walk(50, 1), torch.ones(50, 1)], 1)
    with pytest.raises(ValueError, match=r"entry 1 of the series never changes: leave it out"):
        estimate_series(series_model((2,)), [(x, None)])


def test_short_series_are_refused_in_one_line() -> None:
    with pytest.raises(ValueError, match="expected series of more than 4 frames, got 3 at most"):
        estimate_series(series_model((2,), lags=4), [(walk(3), None)])


# training -------------------------------------------------------------------------------


def test_series_of_every_length_are_trained_on_whole() -> None:
    series = [(walk(length), None) for length in (4, 7, 30)]
    seen = set()
    for batch, _ in zip(
        crops(series, context=2, frames=10, batch_size=8, seed=0), range(20), strict=False
    ):
        assert batch.x.shape[1] <= 12
        seen |= set(batch.lengths.tolist())
    assert seen == {4, 7, 12}


def test_training_keeps_the_best_and_never_less_than_the_start() -> None:
    pyro.set_rng_seed(0)
    x, _ = autoregression(300)
    model = series_model((2,), network=MLPConditioner(4, window=1, hidden=(8,)))
    train, held = [(x[:200], None)], [(x[200:], None)]
    found = train_series(Pair(model, None), train, held, skip=5, steps=30, seconds=60)
    scores = [p.validation for p in found.curve]
    assert found.score == max(scores) >= scores[0]
    assert found.curve[-1].step == 30
    again = score(Pair(model, None), held, skip=5) / 2
    assert again == pytest.approx(found.score, abs=1e-5)
    steps = [p.step for p in found.curve]
    assert all(late > early for early, late in pairwise(steps))


# trajectories ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("recipe", "trained"), [*((recipe, True) for recipe in RECIPES), ("series_t", False)]
)
def test_a_thousand_trajectories_of_500_steps_are_finite(recipe: str, trained: bool) -> None:
    """From exactly as many frames as the model needs; trained in great strides."""
    pyro.set_rng_seed(0)
    pair = import_module(f"models.series.{recipe}").build((2,))
    x = walk(120)
    estimate_from(pair.model, [x.unfold(0, 60, 20).mT.contiguous()])
    if trained:
        train_series(
            pair, [(x, None)], [(x, None)], skip=48, steps=3, seconds=60, learning_rate=0.1
        )
    given = x[None, -max(1, pair.model.context_length) :]
    # attention to all of the past costs its square: fewer of these
    count = 30 if recipe == "series_attention" else 1000
    future = rollout(pair.model, pair.guide, given, horizon=500, num_samples=count, chunk=count)
    paths = torch.as_tensor(future["x_future"].values)
    assert paths.shape == (count, 1, 500, 2)
    assert paths.isfinite().all()
    far = (paths - x[-1]).abs().max() / x.diff(dim=0).std()
    assert far < 500 * 20  # changes of twenty deviations at every step would be needed
