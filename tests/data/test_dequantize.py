"""Dequantization: what it adds to pixels, its units, and whose data it is for."""

import math

import pytest
import torch

from pyro_afslvm.data import (
    Dequantization,
    GaussianDequantization,
    NoDequantization,
    UniformDequantization,
    dequantization,
)

KINDS = [GaussianDequantization(), UniformDequantization()]
PIXELS = torch.arange(256, dtype=torch.uint8).repeat(400)


def test_gaussian() -> None:
    eps = (GaussianDequantization()(PIXELS) - PIXELS / 255) * 256
    assert abs(float(eps.mean())) < 0.02
    assert abs(float(eps.std()) - 1) < 0.02


def test_uniform_stays_in_its_pixel() -> None:
    x = UniformDequantization()(PIXELS)
    assert torch.equal((256 * x).floor(), PIXELS.float())
    u = 256 * x - PIXELS
    assert abs(float(u.mean()) - 0.5) < 0.005
    assert abs(float(u.var()) - 1 / 12) < 0.002


def test_uniform_at_its_largest_stays_in_its_pixel(monkeypatch: pytest.MonkeyPatch) -> None:
    largest = 1 - 2.0**-24
    monkeypatch.setattr(torch, "rand", lambda shape, **_: torch.full(shape, largest))
    x = UniformDequantization()(PIXELS)
    assert torch.equal((256 * x).floor(), PIXELS.float())


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_float32_that_follows_its_generator(kind: Dequantization, float64: None) -> None:
    def draw() -> torch.Tensor:
        return kind(PIXELS.view(2, -1), generator=torch.Generator().manual_seed(3))

    assert draw().dtype == torch.float32
    assert draw().shape == (2, len(PIXELS) // 2)
    assert torch.equal(draw(), draw())
    assert not torch.equal(kind(PIXELS), kind(PIXELS))


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_pixels_only(kind: Dequantization) -> None:
    with pytest.raises(ValueError, match=r"frames must be uint8 pixels 0..255, got torch.float32"):
        kind(torch.rand(3))


def test_units() -> None:
    gaussian, uniform = KINDS
    assert gaussian.to_report(2.0) == pytest.approx(2 - math.log(256))
    assert uniform.to_report(2.0) == pytest.approx((math.log(256) - 2) / math.log(2))
    assert uniform.to_report(0.0) == pytest.approx(8)  # a uniform density: 8 bits a pixel
    assert gaussian.to_nats(2.0) == uniform.to_nats(2.0) == gaussian.to_report(2.0)
    none = NoDequantization()
    assert none.to_report(2.0) == none.to_nats(2.0) == 2.0
    assert len({kind.unit for kind in (*KINDS, none)}) == 3


def test_real_numbers_stay_as_they_are() -> None:
    x = torch.tensor([0.0, -300.0, 1e-3], dtype=torch.float64)
    assert torch.equal(NoDequantization()(x), x.float())
    with pytest.raises(ValueError, match=r"without dequantization, got torch\.uint8"):
        NoDequantization()(PIXELS)


def test_names() -> None:
    for kind in (*KINDS, NoDequantization()):
        assert type(dequantization(kind.name)) is type(kind)
    message = "unknown dequantization 'pink': expected one of 'gaussian', 'uni"
    with pytest.raises(ValueError, match=message):
        dequantization("pink")
