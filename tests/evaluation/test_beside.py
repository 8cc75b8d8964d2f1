"""Simple models beside a figure: the closed form against the recipe, and what is said of it."""

import math

import numpy as np
import pytest
import torch

from models.small import copy_last_frame as recipe
from pyro_afslvm.data import Arrays, MovingDigits, dequantization
from pyro_afslvm.evaluation.beside import simple_models
from pyro_afslvm.evaluation.bounds import likelihood
from pyro_afslvm.evaluation.metrics import evaluate
from pyro_afslvm.metrics.beside import COPY

PIXELS = dequantization("gaussian")


def test_copy_is_the_recipe_of_that_name():
    source = MovingDigits(size=16, test_size=8)
    held, train = (source.dataset(split, num_frames=13) for split in ("test", "train"))
    pair = recipe.build((1, 16, 16))
    with torch.no_grad():
        recipe.estimate(pair, [PIXELS(train[k])[None] for k in range(200)])
    exact = likelihood(pair, held, dequantization=PIXELS, scored_frames=10)
    found = simple_models(source, held, dequantization=PIXELS, scored_frames=10)
    assert [*found] == [COPY]
    assert found[COPY] == pytest.approx(PIXELS.to_nats(exact.mean), abs=0.03)
    assert evaluate(pair, source)["baselines"] == found


def walks(scale: float = 1.0) -> Arrays:
    values = np.random.default_rng(0).normal(size=(20, 60, 2)).cumsum(1)
    return Arrays.from_array((scale * values).astype(np.float32))


def test_of_series_as_many_as_there_are_and_in_units_of_the_data():
    real = dequantization("none")
    one, ten = (
        simple_models(
            source, source.dataset("test", num_frames=13), dequantization=real, scored_frames=10
        )
        for source in (walks(), walks(10.0))
    )
    assert {COPY, "random walk, full"} < {*one}
    assert any(name.startswith("VAR") for name in one)
    assert one[COPY] == pytest.approx(-0.5 * math.log(2 * math.pi * math.e), abs=0.1)
    assert ten[COPY] == pytest.approx(one[COPY] - math.log(10), abs=1e-3)


def test_nothing_where_frames_have_no_past():
    source = MovingDigits(size=16, test_size=4)
    held = source.dataset("test", num_frames=3)
    assert simple_models(source, held, dequantization=PIXELS, scored_frames=3) == {}
