"""The recipes: the paper's sizes, and that every parameter of every one of them learns."""

from importlib import import_module
from itertools import chain
from pathlib import Path

import pyro
import pyro.optim
import pytest
import torch
from pyro.infer import SVI, Trace_ELBO
from torch import Tensor, nn

from pyro_afslvm import Pair
from pyro_afslvm.data import BAIR, KTH, MovingMNIST
from pyro_afslvm.models.programs import no_guide
from pyro_afslvm.models.vae import ImageModel
from pyro_afslvm.networks.layers import StepBatchNorm
from pyro_afslvm.runs.settings import TrainSettings

ROOT = Path(__file__).parents[2]
PAPER = {
    # parameters for grey and for colour frames
    "models.af1": (335_042, 338_502),
    "models.af2": (670_084, 677_004),
    "models.slvm": (11_293_186, 11_299_334),
    "models.slvm_af1": (10_574_532, 10_584_140),
    "models.slvm_af2": (10_574_532 + 335_042, 10_584_140 + 338_502),
}
RECIPES = sorted(
    ".".join(file.relative_to(ROOT).with_suffix("").parts)
    for file in (ROOT / "models").rglob("*.py")
    if file.stem not in ("__init__", "motivating_example")  # the latter has no parameters
)
LEARNED = [  # by gradients, not in closed form
    recipe for recipe in RECIPES if not hasattr(import_module(recipe), "estimate")
]


def build(recipe: str, *frame_shape: tuple[int, ...]) -> Pair:
    pyro.set_rng_seed(1)
    if "vector" in recipe or "series" in recipe:
        frame_shape = ()  # its own, for it takes no pictures
    return import_module(recipe).build(*frame_shape)


def modules(pair: Pair) -> list[nn.Module]:
    return [pair.model] if pair.guide is None else [pair.model, pair.guide]


def parameters(pair: Pair) -> list[nn.Parameter]:
    return list(chain.from_iterable(module.parameters() for module in modules(pair)))


def names(pair: Pair) -> list[str]:
    return [name for module in modules(pair) for name, _ in module.named_parameters()]


def values(pair: Pair) -> list[Tensor]:
    return [p.detach().clone() for p in parameters(pair)]


def unmoved(pair: Pair, before: list[Tensor]) -> list[str]:
    pairs = zip(names(pair), parameters(pair), before, strict=True)
    return [name for name, p, old in pairs if torch.equal(p, old)]


def batch(pair: Pair) -> Tensor:
    """2 sequences with two frames to be scored; the noise is always the same."""
    length = pair.model.context_length + 2
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(2, length, *pair.model.frame_shape, generator=generator)
    x = x.round() if isinstance(pair.model, ImageModel) else x  # of binary pixels
    return x.to(parameters(pair)[0].dtype)


def svi_step(pair: Pair) -> float:
    adam = pyro.optim.Adam({"lr": 1e-3})
    return SVI(pair.model, pair.guide or no_guide, adam, Trace_ELBO()).step(batch(pair))


# ---- the paper's sizes ----


def test_every_recipe_of_the_issue_is_there() -> None:
    assert set(PAPER) <= set(RECIPES)
    assert len(RECIPES) >= 10


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("recipe", PAPER)
def test_parameter_counts_of_the_paper(recipe: str, channels: int) -> None:
    pair = import_module(recipe).build((channels, 64, 64))
    distinct = {id(p): p.numel() for p in parameters(pair) if p.requires_grad}
    assert sum(distinct.values()) == PAPER[recipe][channels == 3]


@pytest.mark.parametrize("recipe", PAPER)
def test_iterations_and_batches_of_the_paper(recipe: str) -> None:
    """100,000 on Moving MNIST with a flow, 200,000 without; as many for all on BAIR and KTH."""
    on_digits = 200_000 if recipe == "models.slvm" else 100_000
    expected = {"moving_mnist": (on_digits, 16), "bair": (200_000, 8), "kth": (90_000, 8)}
    for data, numbers in (expected | {"videos": (on_digits, 16)}).items():
        constants = vars(import_module(recipe))
        found = TrainSettings().resolved(constants, dequantization="gaussian", data=data)
        assert (found.steps, found.batch_size) == numbers
        assert found.learning_rate == 1e-4
    names = {MovingMNIST.name, BAIR.name, KTH.name}
    assert names == expected.keys() == import_module(recipe).STEPS.keys()


@pytest.mark.parametrize("recipe", PAPER)
def test_statistics_of_each_step_are_an_option(recipe: str) -> None:
    shape, default = (1, 64, 64), import_module(recipe).build()
    chosen = import_module(recipe).build(shape, norm="batch_per_step")
    kinds = {type(m) for part in modules(chosen) for m in part.modules()}
    assert StepBatchNorm in kinds
    assert nn.BatchNorm2d not in kinds
    assert StepBatchNorm not in {type(m) for part in modules(default) for m in part.modules()}
    for one, other in zip(modules(default), modules(chosen), strict=True):
        other.load_state_dict(one.state_dict())  # weights of either fit the other


@pytest.mark.parametrize("recipe", RECIPES)
def test_model_and_guide_own_each_tensor_once(recipe: str) -> None:
    pair = build(recipe)
    states = [module.state_dict() for module in modules(pair)]
    keys = list(chain.from_iterable(states))
    pointers = [t.data_ptr() for state in states for t in state.values()]
    assert len(set(keys)) == len(keys)
    assert len(set(pointers)) == len(pointers)
    assert len({id(p) for p in parameters(pair)}) == len(parameters(pair))


# ---- every parameter learns ----


@pytest.mark.parametrize("recipe", LEARNED)
def test_every_parameter_moves_in_one_step_of_svi(recipe: str) -> None:
    pair = build(recipe)
    before = values(pair)
    svi_step(pair)
    assert unmoved(pair, before) == []
    assert all(p.isfinite().all() for p in parameters(pair))


@pytest.mark.parametrize("recipe", LEARNED)
def test_svi_and_torch_get_the_same_gradients(recipe: str, float64: None) -> None:
    pair = build(recipe, (1, 16, 16))
    guide, x = pair.guide or no_guide, batch(pair)
    pyro.set_rng_seed(2)
    loss = Trace_ELBO().loss_and_grads(pair.model, guide, x)
    by_svi = [p.grad.clone() for p in parameters(pair)]
    for module in modules(pair):
        module.zero_grad()
    pyro.set_rng_seed(2)
    differentiable = Trace_ELBO().differentiable_loss(pair.model, guide, x)
    differentiable.backward()
    assert differentiable.item() == pytest.approx(loss, rel=1e-12)
    # the bias before a batch norm has gradient zero, up to rounding of the others
    floor = 1e-12 * max(float(g.abs().max()) for g in by_svi)
    for name, p, expected in zip(names(pair), parameters(pair), by_svi, strict=True):
        torch.testing.assert_close(p.grad, expected, rtol=1e-8, atol=floor, msg=name)
