"""Ceilings and protocols: what a reported number means."""

import json
import math
from typing import Any

import pytest
import torch
from torch.distributions import Normal

from pyro_afslvm.data import (
    Dequantization,
    GaussianDequantization,
    NoDequantization,
    Protocol,
    UniformDequantization,
    check_ceiling,
    software_versions,
)

GAUSSIAN, UNIFORM = GaussianDequantization(), UniformDequantization()
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


# ---- ceilings ----


def test_a_density_of_real_numbers_has_no_ceiling_but_is_finite() -> None:
    check_ceiling(1000.0, dequantization=NoDequantization(), num_values=10)
    for value in (math.inf, math.nan):
        with pytest.raises(ValueError, match="nats/dim is"):
            check_ceiling(value, dequantization=NoDequantization(), num_values=10)


def test_the_best_model_reaches_the_ceiling_and_passes() -> None:
    """A model that knows every pixel, scored on what is added to it: no better is possible."""
    for seed in range(20):
        x = GAUSSIAN(PIXELS, generator=torch.Generator().manual_seed(seed))
        log_prob = float(Normal(PIXELS.double() / 255, 1 / 256).log_prob(x.double()).sum())
        value = GAUSSIAN.to_nats(log_prob / len(PIXELS))
        assert abs(value - GAUSSIAN.ceiling) < 5 * math.sqrt(0.5 / len(PIXELS))
        check_ceiling(value, dequantization=GAUSSIAN, num_values=len(PIXELS))


def test_the_best_model_of_discrete_pixels() -> None:
    assert UNIFORM.ceiling == 0
    assert UNIFORM.to_report(math.log(256)) == 0


@pytest.mark.parametrize("kind", [GAUSSIAN, UNIFORM], ids=lambda kind: kind.name)
def test_above_the_ceiling_is_a_bug(kind: Dequantization) -> None:
    check_ceiling(kind.ceiling, dequantization=kind, num_values=10**6)
    check_ceiling(-5.0, dequantization=kind, num_values=10**6)
    check_ceiling(-math.inf, dequantization=kind, num_values=10**6)
    for value in (kind.ceiling + 0.01, math.inf):
        with pytest.raises(ValueError, match="negative entropy of the dequantization, "):
            check_ceiling(value, dequantization=kind, num_values=10**6)
    with pytest.raises(ValueError, match="NaN"):
        check_ceiling(math.nan, dequantization=kind, num_values=10**6)


def test_a_wrong_jacobian_is_caught() -> None:
    """8-bit units forgotten, or a density of something narrower than was added."""
    for gain in (math.log(256), math.log(2)):
        with pytest.raises(ValueError, match="a bug"):
            check_ceiling(GAUSSIAN.ceiling + gain, dequantization=GAUSSIAN, num_values=1000)


def test_few_values_may_fluctuate() -> None:
    check_ceiling(GAUSSIAN.ceiling + 0.04, dequantization=GAUSSIAN, num_values=10_000 // 2)
    with pytest.raises(ValueError, match="a bug"):
        check_ceiling(GAUSSIAN.ceiling + 0.04, dequantization=GAUSSIAN, num_values=100_000)


def test_the_keyword_of_the_release_before() -> None:
    with pytest.warns(FutureWarning, match=r"^check_ceiling\(noise=\) is now dequantization=$"):
        check_ceiling(GAUSSIAN.ceiling, noise=GAUSSIAN, num_values=1000)
    with pytest.warns(FutureWarning), pytest.raises(ValueError, match="a bug"):
        check_ceiling(0.0, noise=GAUSSIAN, num_values=1000)
    with pytest.raises(TypeError, match="dequantization"):
        check_ceiling(0.0, num_values=1000)


# ---- protocols ----


def test_protocol_survives_json() -> None:
    one = protocol(data={"name": "d", "shape": (1, 32, 32), "background": None})
    again = Protocol.from_json(one.to_json())
    assert again == one
    assert json.loads(one.to_json())["data"]["shape"] == [1, 32, 32]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"noise": "pink"}, "unknown dequantization 'pink'"),
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
