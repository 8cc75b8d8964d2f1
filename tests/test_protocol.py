"""Dequantization, ceilings and protocols: what a reported number means."""

import json
import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch.distributions import Normal

from pyro_afslvm.data import (
    Dequantization,
    GaussianDequantization,
    Protocol,
    UniformDequantization,
    check_ceiling,
    check_unit_range,
    dequantization,
    nats_per_dim,
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
    log_prob = 2.0 * 1000  # 2 nats per dimension in [0, 1] units
    gaussian, uniform = NOISES
    assert nats_per_dim(log_prob, num_dims=1000, noise=gaussian) == pytest.approx(2 - math.log(256))
    assert gaussian.to_report(2.0) == pytest.approx(2 - math.log(256))
    assert uniform.to_report(2.0) == pytest.approx((math.log(256) - 2) / math.log(2))
    assert uniform.to_report(0.0) == pytest.approx(8)  # a uniform density: 8 bits a pixel
    per_sequence = nats_per_dim(torch.tensor([0.0, 1000.0]), num_dims=1000, noise=gaussian)
    torch.testing.assert_close(per_sequence, torch.tensor([0.0, 1.0]) - math.log(256))
    with pytest.raises(ValueError, match="num_dims must be at least 1"):
        nats_per_dim(1.0, num_dims=0, noise=gaussian)


def test_the_best_model_reaches_the_ceiling_and_passes() -> None:
    """A model that knows every pixel, scored on its noise: no better is possible."""
    noise = GaussianDequantization()
    for seed in range(20):
        x = noise(PIXELS, generator=torch.Generator().manual_seed(seed))
        log_prob = float(Normal(PIXELS.double() / 255, 1 / 256).log_prob(x.double()).sum())
        value = nats_per_dim(log_prob, num_dims=len(PIXELS), noise=noise)
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
    for noise in NOISES:
        assert type(dequantization(noise.name)) is type(noise)
    with pytest.raises(ValueError, match="unknown noise 'none': expected one of 'gaussian', 'uni"):
        dequantization("none")


def test_protocol_survives_json() -> None:
    one = protocol(data={"name": "d", "shape": (1, 32, 32), "background": None})
    again = Protocol.from_json(one.to_json())
    assert again == one
    assert again.comparable(one)
    assert json.loads(one.to_json())["data"]["shape"] == [1, 32, 32]


@pytest.mark.parametrize(
    ("changes", "same"),
    [
        ({"noise": "uniform"}, False),
        ({"split": "validation"}, False),
        ({"scored_frames": 9}, False),
        ({"context_frames": 6}, True),
        ({"data": {"name": "moving_digits", "size": 64}}, False),
        ({"seed": 1}, True),
        ({"bound": "exact"}, True),
        ({"num_samples": 10}, True),
        ({"versions": {}}, True),
    ],
)
def test_what_may_share_a_column(changes: dict[str, Any], same: bool) -> None:
    assert protocol().comparable(replace(protocol(), **changes)) is same


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"noise": "none"}, "unknown noise 'none'"),
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


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (torch.tensor([0, 255], dtype=torch.uint8), "got torch.uint8: raw 0..255 pixels"),
        (torch.tensor([1, 2]), "got torch.int64"),
        (torch.tensor([0.0, 255.0]), "got values up to 255: raw 0..255 pixels"),
        (torch.tensor([0.0, -128.0]), "got values up to 128"),
        (torch.tensor([0.0, math.nan]), "got NaN or Inf"),
        (torch.tensor([math.inf, 0.0]), "got NaN or Inf"),
        (torch.tensor([-math.inf, 0.0]), "got NaN or Inf"),
    ],
)
def test_values_no_density_takes(x: torch.Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        check_unit_range(x, name="frames")
    assert str(caught.value).startswith("frames must hold floats near [0, 1]")


def test_values_every_density_takes() -> None:
    check_unit_range(torch.tensor([-0.02, 1.02], requires_grad=True))
    check_unit_range(torch.empty(0))
    for noise in NOISES:
        check_unit_range(noise(PIXELS))
