"""Settings of a training: what a recipe says of several data sets."""

import pytest

from pyro_afslvm.runs.recipe import load_recipe
from pyro_afslvm.runs.settings import TrainSettings
from tests.support.processes import ROOT


def test_a_recipe_has_values_for_several_data_sets() -> None:
    constants = {"STEPS": {"moving_mnist": 100, "kth": 90}, "BATCH_SIZE": {"bair": 8}}
    for data, steps in (("moving_mnist", 100), ("kth", 90), ("videos", 100), ("", 100)):
        found = TrainSettings().resolved(constants, dequantization="gaussian", data=data)
        assert (found.steps, found.batch_size) == (steps, 8)
    given = TrainSettings(steps=7).resolved(constants, dequantization="gaussian", data="kth")
    assert given.steps == 7


@pytest.mark.parametrize("name", ["af1", "af2", "slvm", "slvm_af1", "slvm_af2"])
def test_iterations_of_the_paper(name: str) -> None:
    constants = load_recipe(ROOT / f"models/{name}.py").constants
    expected = {
        "moving_mnist": (200_000 if name == "slvm" else 100_000, 16),
        "kth": (90_000, 8),
        "bair": (200_000, 8),
    }
    for data, values in expected.items():
        found = TrainSettings().resolved(constants, dequantization="gaussian", data=data)
        assert (found.steps, found.batch_size) == values
