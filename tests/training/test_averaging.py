"""The average of the parameters over training, which is what is validated and kept."""

from pathlib import Path
from typing import Any

import pytest
import torch

from pyro_afslvm.data import MovingDigits
from pyro_afslvm.runs.checkpoint import load_checkpoint
from pyro_afslvm.runs.recipe import build_pair, load_recipe
from pyro_afslvm.runs.settings import TrainSettings
from pyro_afslvm.training.run import train

RECIPE = """
from pyro_afslvm import ConvConditioner, FlowModel, Pair, TemporalAffine
LEARNING_RATE, BATCH_SIZE = 1e-2, 4
def build(frame_shape):
    return Pair(FlowModel(TemporalAffine(ConvConditioner(1, hidden=4, depth=1)), frame_shape), None)
"""
SOURCE = MovingDigits(size=16)


@pytest.mark.parametrize("average", [0.0, 0.9])
def test_the_average_of_the_parameters_is_what_is_kept(average: float, tmp_path: Path) -> None:
    """Of every step's parameters, also where the training was interrupted."""
    (tmp_path / "small.py").write_text(RECIPE)
    recipe = load_recipe(tmp_path / "small.py")
    seen: list[list[torch.Tensor]] = []

    def note(training: Any) -> None:
        seen.append([p.detach().clone() for p in training.loss.parameters()])

    options = {"average": average, "validate_every": 2, "validation_sequences": 2}
    whole = train(
        recipe, SOURCE, tmp_path / "whole", TrainSettings(steps=4, **options), report=note
    )
    for steps in (2, 4):
        settings = TrainSettings(steps=steps, **options)
        parts = train(recipe, SOURCE, tmp_path / "parts", settings, resume=steps == 4)
    kept, again = load_checkpoint(whole.last), load_checkpoint(parts.last)
    expected = seen[0]
    for n, values in enumerate(seen, 1):
        decay = min(average, (n - 1) / (n + 8))
        pairs = zip(expected, values, strict=True)
        expected = [decay * old + (1 - decay) * new for old, new in pairs]
    names = [name for name, _ in build_pair(recipe, (1, 16, 16)).model.named_parameters()]
    for name, value in zip(names, expected, strict=True):
        torch.testing.assert_close(kept["model"][name], value)
        assert torch.equal(kept["model"][name], again["model"][name])
    assert (kept["trained"] is None) == (average == 0)
    if average:
        for value, last in zip(kept["trained"], seen[-1], strict=True):
            assert torch.equal(value, last)


def test_an_average_out_of_range() -> None:
    with pytest.raises(ValueError, match=r"average must be at least 0 and below 1, got 1\.0"):
        TrainSettings(average=1.0)
