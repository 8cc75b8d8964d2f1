"""The mixture map: tails in single precision, its inverse, and what it can say."""

import math

import pytest
import scipy.special
import torch
from torch import Tensor
from torch.distributions import Categorical, MixtureSameFamily, Normal

from pyro_afslvm import FlowModel, MLPConditioner, TemporalMixture
from pyro_afslvm.transforms.moments import moments
from pyro_afslvm.transforms.univariate import Mixture, MixtureMap
from pyro_afslvm.transforms.univariate.tails import log_ndtri

FAMILIES = ["gaussian", "logistic"]
each_family = pytest.mark.parametrize("family", FAMILIES)


def some(family: str = "gaussian", dtype: torch.dtype = torch.float64) -> Mixture:
    """Three components far apart, of very different scales."""
    weights = torch.tensor([0.2, 0.7, 0.1], dtype=dtype).log()
    locations = torch.tensor([-1.0, 0.1, 2.0], dtype=dtype)
    scales = torch.tensor([0.004, 0.3, 0.02], dtype=dtype).log()
    return Mixture(weights, locations, scales, family=family)


@pytest.mark.filterwarnings("ignore:There is a performance drop because")
def test_inverse_of_the_normal_log_cdf_is_scipys() -> None:
    for dtype, tolerance in ((torch.float32, 3e-7), (torch.float64, 2e-12)):
        log_p = torch.cat([torch.linspace(-0.1, -20.0, 400), -torch.logspace(1, 6, 400)]).to(dtype)
        expected = torch.tensor(scipy.special.ndtri_exp(log_p.double().numpy()))
        torch.testing.assert_close(
            log_ndtri(log_p).double(), expected, rtol=tolerance, atol=tolerance
        )
    log_p = torch.linspace(-0.3, -400.0, 20, dtype=torch.float64).requires_grad_()
    assert torch.autograd.gradcheck(log_ndtri, log_p)
    per_entry = torch.vmap(torch.func.grad(log_ndtri))(log_p.detach())
    (expected,) = torch.autograd.grad(log_ndtri(log_p).sum(), log_p)
    torch.testing.assert_close(per_entry, expected)


def test_density_is_torchs() -> None:
    mixture = some()
    x = torch.linspace(-3.0, 4.0, 500, dtype=torch.float64)
    expected = MixtureSameFamily(
        Categorical(logits=mixture.log_weights),
        Normal(mixture.locations, mixture.log_scales.exp()),
    ).log_prob(x)
    y = mixture.inv(x)
    found = Normal(0.0, 1.0).log_prob(y) - mixture.log_abs_det_jacobian(y, x)
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)


@each_family
def test_tails_in_single_precision(family: str) -> None:
    """To 30 standard deviations of the outer components, and of the noise."""
    x = torch.cat([torch.linspace(-13.0, 13.0, 400), torch.linspace(-1.2, -0.8, 200)])
    single, double = some(family, torch.float32), some(family)
    y, exact = single.inv(x), double.inv(x.double())
    torch.testing.assert_close(y.double(), exact, rtol=3e-6, atol=3e-6)
    log_det = single.log_abs_det_jacobian(y, x)
    expected = double.log_abs_det_jacobian(exact, x.double())
    torch.testing.assert_close(log_det.double(), expected, rtol=1e-5, atol=2e-4)
    noise = torch.linspace(-30.0, 30.0, 601)
    frames = single(noise)
    assert (frames.diff() >= 0).all()
    assert frames.isfinite().all()
    torch.testing.assert_close(frames.double(), double(noise.double()), rtol=1e-5, atol=2e-5)


@each_family
def test_inverse_is_found_to_single_precision(family: str) -> None:
    mixture = some(family)
    noise = torch.linspace(-12.0, 12.0, 2001, dtype=torch.float64)
    torch.testing.assert_close(mixture.inv(mixture(noise)), noise, rtol=1e-9, atol=1e-9)


@each_family
def test_gradients_of_samples_are_those_of_the_implicit_function(family: str) -> None:
    parameters = torch.randn(9, 6, dtype=torch.float64)
    noise = torch.randn(9, dtype=torch.float64)

    def sample(parameters: Tensor, noise: Tensor) -> Tensor:
        mapping = MixtureMap([0.0, 1.0], scale=0.5, min_scale=0.01, family=family).double()
        return mapping(parameters)(noise)

    inputs = parameters.requires_grad_(), noise.requires_grad_()
    assert torch.autograd.gradcheck(sample, inputs, atol=1e-5)


@each_family
def test_moments(family: str) -> None:
    mixture = some(family)
    noise = Normal(torch.zeros((), dtype=torch.float64), torch.ones((), dtype=torch.float64))
    mean, scale = moments(mixture, noise)
    drawn = mixture(torch.randn(30_000, dtype=torch.float64))
    assert abs(drawn.mean() - mean) < 4 * scale / 30_000**0.5
    assert abs(drawn.std() / scale - 1) < 0.01
    other = moments(mixture, Normal(noise.loc + 0.5, noise.scale * 0.8))  # by quadrature
    drawn = mixture(0.5 + 0.8 * torch.randn(30_000, dtype=torch.float64))
    assert abs(drawn.mean() - other.mean) < 0.01
    assert abs(drawn.std() - other.scale) < 0.02


def test_no_component_is_narrower_than_the_least_scale() -> None:
    mapping = MixtureMap(["last", 0.0], scale=0.1, min_scale=1 / 270)
    narrow = torch.tensor([0.0, 0.0, 0.0, 0.0, -50.0, -50.0])
    mixture = mapping(narrow, torch.zeros(1))
    torch.testing.assert_close(mixture.log_scales.exp(), torch.full((2,), 1 / 270))


@pytest.mark.parametrize("family", ["gaussian", "logistic"])
def test_parameters_far_off_give_numbers(family: str) -> None:
    """A network may say anything for a few steps; its gradients bring it back."""
    torch.manual_seed(0)
    mixture = MixtureMap(["predicted", "last", 0.0, 1.0], scale=0.02, family=family)
    parameters = (300 * torch.randn(1000, mixture.num_parameters)).requires_grad_()
    x = torch.rand(1000)
    transform = mixture(parameters, torch.rand(1000, 1))
    y = transform.inv(x)
    loss = 0.5 * y.square() + transform.log_abs_det_jacobian(y, x)
    loss.sum().backward()
    assert y.isfinite().all()
    assert loss.isfinite().all()
    assert parameters.grad.isfinite().all()


def test_centres_are_what_they_are_called() -> None:
    mapping = MixtureMap(["linear", 0.7, "predicted", "last", "predicted"], scale=0.1)
    assert mapping.num_parameters == 17
    parameters = torch.zeros(17)
    parameters[15:] = torch.tensor([5.0, 6.0])
    mixture = mapping(parameters, torch.tensor([1.0, 3.0]))
    torch.testing.assert_close(mixture.locations, torch.tensor([5.0, 0.7, 5.0, 3.0, 6.0]))


def test_components_of_one_centre_start_apart() -> None:
    mixture = MixtureMap(["last"] * 3, scale=0.1)(torch.zeros(9), torch.zeros(1))
    scales = mixture.log_scales.exp()
    torch.testing.assert_close(scales[1:] / scales[:-1], torch.full((2,), 4.0), rtol=2e-3, atol=0)


def test_half_precision_keeps_the_density_in_single() -> None:
    mapping = MixtureMap([0.0, 1.0], scale=0.1)
    parameters, x = torch.randn(50, 6), torch.rand(50)
    rough = mapping(parameters.bfloat16())
    exact = mapping(parameters.bfloat16().float())
    assert rough.log_density(x).dtype == torch.float32
    torch.testing.assert_close(rough.log_density(x), exact.log_density(x))


@pytest.mark.parametrize(
    "options",
    [
        {"centres": []},
        {"centres": ["first"]},
        {"min_scale": 0.2},
        {"min_scale": 0.0},
        {"family": "cauchy"},
    ],
    ids=str,
)
def test_what_makes_no_mixture(options: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="expected"):
        MixtureMap(**options)  # type: ignore[arg-type]


def test_a_process_of_two_modes_is_learnt() -> None:
    """A walk that steps up or down by one, with noise: its log-density is known."""
    scale = 0.1

    def walks(count: int) -> Tensor:
        steps = torch.randint(2, (count, 20, 1)) * 2.0 - 1.0 + scale * torch.randn(count, 20, 1)
        return steps.cumsum(1)

    model = FlowModel(
        TemporalMixture(
            MLPConditioner(1, window=1, hidden=(16,), num_parameters=6),
            centres=["last", "last"],
            scale=0.3,
        ),
        (1,),
    )
    adam = torch.optim.Adam(model.parameters(), 0.02)
    for step in range(1000):
        for group in adam.param_groups:
            group["lr"] = 0.02 * (1 - step / 1000)
        adam.zero_grad()
        (-model.log_prob(walks(128)).mean()).backward()
        adam.step()
    x = walks(500)
    with torch.no_grad():
        found = model.log_prob(x)
    change = x[:, 1:] - x[:, :-1]
    both = torch.stack([Normal(m, scale).log_prob(change) for m in (-1.0, 1.0)])
    exact = (both.logsumexp(0) - math.log(2)).squeeze(-1)
    assert (exact - found).mean() < 0.01
