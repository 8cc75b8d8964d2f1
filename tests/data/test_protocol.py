"""Dequantization, ceilings and protocols: what a reported number means."""

import json
import math
from typing import Any

import numpy as np
import pytest
import torch
from torch.distributions import Normal

from pyro_afslvm.data import (
    Arrays,
    Dequantization,
    GaussianDequantization,
    MovingDigits,
    NoDequantization,
    Protocol,
    UniformDequantization,
    check_ceiling,
    choose_noise,
    dequantization,
    software_versions,
)

NOISES = [GaussianDequantization(), UniformDequantization()]
PIXELS = torch.arange(256, dtype=torch.uint8).repeat(400)


def protocol(**changes: Any) -> Protocol:
    fields: dict[str, Any] = {
        "data": {"name": "moving_digits", "size": 32},
        "split": "test",
        "context_frames": 3,
        "scored_frames": 10,
        "noise": "gaussian",
        "num_samples": 1,
        "bound": "ELBO",
        "seed": 0,
        "versions": {"python": "3.11.0"},
    }
    return Protocol(**(fields | changes))


def test_gaussian_noise() -> None:
    x = GaussianDequantization()(PIXELS)
    noise = (x - PIXELS / 255) * 256
    assert abs(float(noise.mean())) < 0.02
    assert abs(float(noise.std()) - 1) < 0.02


def test_uniform_noise_stays_in_its_pixel() -> None:
    x = UniformDequantization()(PIXELS)
    assert torch.equal((256 * x).floor(), PIXELS.float())
    u = 256 * x - PIXELS
    assert abs(float(u.mean()) - 0.5) < 0.005
    assert abs(float(u.var()) - 1 / 12) < 0.002


def test_uniform_noise_at_its_largest_stays_in_its_pixel(monkeypatch: pytest.MonkeyPatch) -> None:
    largest = 1 - 2.0**-24
    monkeypatch.setattr(torch, "rand", lambda shape, **_: torch.full(shape, largest))
    x = UniformDequantization()(PIXELS)
    assert torch.equal((256 * x).floor(), PIXELS.float())


@pytest.mark.parametrize("noise", NOISES, ids=lambda noise: noise.name)
def test_noise_is_float32_and_follows_its_generator(noise: Dequantization, float64: None) -> None:
    def draw() -> torch.Tensor:
        return noise(PIXELS.view(2, -1), generator=torch.Generator().manual_seed(3))

    assert draw().dtype == torch.float32
    assert draw().shape == (2, len(PIXELS) // 2)
    assert torch.equal(draw(), draw())
    assert not torch.equal(noise(PIXELS), noise(PIXELS))


@pytest.mark.parametrize("noise", NOISES, ids=lambda noise: noise.name)
def test_noise_takes_pixels_only(noise: Dequantization) -> None:
    with pytest.raises(ValueError, match=r"frames must be uint8 pixels 0..255, got torch.float32"):
        noise(torch.rand(3))


def test_units() -> None:
    gaussian, uniform = NOISES
    assert gaussian.to_report(2.0) == pytest.approx(2 - math.log(256))
    assert uniform.to_report(2.0) == pytest.approx((math.log(256) - 2) / math.log(2))
    assert uniform.to_report(0.0) == pytest.approx(8)  # a uniform density: 8 bits a pixel
    assert gaussian.to_nats(2.0) == uniform.to_nats(2.0) == gaussian.to_report(2.0)
    none = NoDequantization()
    assert none.to_report(2.0) == none.to_nats(2.0) == 2.0
    assert len({noise.unit for noise in (*NOISES, none)}) == 3


def test_without_noise_real_numbers_stay_as_they_are() -> None:
    x = torch.tensor([0.0, -300.0, 1e-3], dtype=torch.float64)
    assert torch.equal(NoDequantization()(x), x.float())
    with pytest.raises(ValueError, match=r"floating point without noise, got torch\.uint8"):
        NoDequantization()(PIXELS)


def test_a_density_of_real_numbers_has_no_ceiling_but_is_finite() -> None:
    check_ceiling(1000.0, noise=NoDequantization(), num_values=10)
    for value in (math.inf, math.nan):
        with pytest.raises(ValueError, match="nats/dim is"):
            check_ceiling(value, noise=NoDequantization(), num_values=10)


def test_noise_follows_the_data_unless_it_is_asked_for() -> None:
    pictures = MovingDigits(size=16)
    numbers = Arrays.from_array(np.random.default_rng(0).normal(size=(50, 2)))
    assert choose_noise(None, pictures).name == "gaussian"
    assert choose_noise("uniform", pictures).name == "uniform"
    assert choose_noise(None, numbers).name == "none"
    with pytest.raises(ValueError, match="'none' is for real numbers, but moving_digits holds"):
        choose_noise("none", pictures)
    for name in ("gaussian", "uniform"):
        with pytest.raises(ValueError, match=f"'{name}' is for 8-bit pixels, but arrays holds"):
            choose_noise(name, numbers)


def test_the_best_model_reaches_the_ceiling_and_passes() -> None:
    """A model that knows every pixel, scored on its noise: no better is possible."""
    noise = GaussianDequantization()
    for seed in range(20):
        x = noise(PIXELS, generator=torch.Generator().manual_seed(seed))
        log_prob = float(Normal(PIXELS.double() / 255, 1 / 256).log_prob(x.double()).sum())
        value = noise.to_nats(log_prob / len(PIXELS))
        assert abs(value - noise.ceiling) < 5 * math.sqrt(0.5 / len(PIXELS))
        check_ceiling(value, noise=noise, num_values=len(PIXELS))


def test_the_best_model_under_uniform_noise() -> None:
    assert UniformDequantization().ceiling == 0
    assert UniformDequantization().to_report(math.log(256)) == 0


@pytest.mark.parametrize("noise", NOISES, ids=lambda noise: noise.name)
def test_above_the_ceiling_is_a_bug(noise: Dequantization) -> None:
    check_ceiling(noise.ceiling, noise=noise, num_values=10**6)
    check_ceiling(-5.0, noise=noise, num_values=10**6)
    check_ceiling(-math.inf, noise=noise, num_values=10**6)
    for value in (noise.ceiling + 0.01, math.inf):
        with pytest.raises(ValueError, match="negative entropy of the dequantization noise"):
            check_ceiling(value, noise=noise, num_values=10**6)
    with pytest.raises(ValueError, match="NaN"):
        check_ceiling(math.nan, noise=noise, num_values=10**6)


def test_a_wrong_jacobian_is_caught() -> None:
    """8-bit units forgotten, or a density of narrower noise than was added."""
    noise = GaussianDequantization()
    with pytest.raises(ValueError, match="a bug"):
        check_ceiling(noise.ceiling + math.log(256), noise=noise, num_values=1000)
    with pytest.raises(ValueError, match="a bug"):
        check_ceiling(noise.ceiling + math.log(2), noise=noise, num_values=1000)


def test_few_values_may_fluctuate() -> None:
    noise = GaussianDequantization()
    check_ceiling(noise.ceiling + 0.04, noise=noise, num_values=10_000 // 2)
    with pytest.raises(ValueError, match="a bug"):
        check_ceiling(noise.ceiling + 0.04, noise=noise, num_values=100_000)


def test_names() -> None:
    for noise in (*NOISES, NoDequantization()):
        assert type(dequantization(noise.name)) is type(noise)
    with pytest.raises(ValueError, match="unknown noise 'pink': expected one of 'gaussian', 'uni"):
        dequantization("pink")


def test_protocol_survives_json() -> None:
    one = protocol(data={"name": "d", "shape": (1, 32, 32), "background": None})
    again = Protocol.from_json(one.to_json())
    assert again == one
    assert json.loads(one.to_json())["data"]["shape"] == [1, 32, 32]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"noise": "pink"}, "unknown noise 'pink'"),
        ({"split": "dev"}, "unknown split 'dev'"),
        ({"context_frames": -1}, "context_frames must be an integer of at least 0"),
        ({"scored_frames": 0}, "scored_frames must be an integer of at least 1"),
        ({"num_samples": "3"}, "num_samples must be an integer of at least 1, got '3'"),
        ({"data": {"x": object()}}, "data must hold JSON values only"),
        ({"data": {"x": math.nan}}, "data must hold JSON values only"),
    ],
)
def test_bad_protocols(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        protocol(**changes)


@pytest.mark.parametrize("text", ["", "[1]", "{}", '{"data": {}}'])
def test_bad_json(text: str) -> None:
    with pytest.raises(ValueError, match="expected a protocol with the fields bound, context"):
        Protocol.from_json(text)


def test_versions() -> None:
    versions = software_versions()
    assert versions["torch"] == torch.__version__
    assert {"python", "pyro-ppl", "numpy"} <= set(versions)
