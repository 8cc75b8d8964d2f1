"""Pairs that are loaded from run folders and saved into them."""

from pathlib import Path

import numpy as np
import pytest
import torch

from pyro_afslvm import Pair, rollout
from pyro_afslvm.cli.main import main
from pyro_afslvm.data import Arrays
from pyro_afslvm.data.standardization import Standardization
from pyro_afslvm.evaluation.metrics import evaluate
from pyro_afslvm.runs.errors import RunError
from pyro_afslvm.runs.recipe import RecipeError

RECIPE = """
from pyro_afslvm import FlowModel, Pair, TemporalAffine
from pyro_afslvm.transforms import LastFrame

NAME = "walk"
BATCH_SIZE = 2

def build(frame_shape):
    flow = TemporalAffine(LastFrame(len(frame_shape), learned_scale=True))
    return Pair(FlowModel(flow, frame_shape, context_length=3), None)
"""


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run of two steps."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    Path("walk.py").write_text(RECIPE)
    steps = np.random.default_rng(0).normal(size=(12, 20, 3))
    np.save("walks.npy", np.add(steps.cumsum(1), [0, 50, 1000]))
    data = ("--data", "walks.npy", "--data.standardize", "true")
    assert main(["train", "walk.py", *data, "--steps", "2", "--validate_every", "2"]) == 0
    return Path("runs/walk")


def same_weights(a: Pair, b: Pair) -> bool:
    pairs = zip(a.model.state_dict().values(), b.model.state_dict().values(), strict=True)
    return all(torch.equal(x, y) for x, y in pairs)


def test_a_loaded_pair_knows_its_run(run: Path) -> None:
    pair = Pair.load(run)
    model, guide = pair
    assert guide is None
    assert not model.training
    assert pair.name == "walk"
    assert pair.source_settings["arguments"]["path"] == "walks.npy"
    assert isinstance(pair.standardization, Standardization)
    of_data = Arrays(path="walks.npy", standardize=True).standardization
    assert of_data is not None
    assert pair.standardization.to_json() == of_data.to_json()


def test_it_is_evaluated_and_rolled_out(run: Path) -> None:
    pair = Pair.load(run)
    result = evaluate(pair, Arrays(path="walks.npy"), scored_frames=10)
    assert main(["evaluate", str(run)]) == 0
    assert result["nats_per_dim"] == pytest.approx(pair.run.read_results()["nats_per_dim"])
    futures = rollout(*pair, torch.zeros(1, 4, 3), horizon=2, num_samples=2)
    assert futures.sizes["sample"] == 2


def test_what_is_saved_is_loaded(run: Path) -> None:
    pair = Pair.load(run)
    pair.save("copy")
    again = Pair.load("copy")
    assert same_weights(pair, again)
    assert again.standardization.to_json() == pair.standardization.to_json()
    assert main(["evaluate", "copy"]) == 0


def test_a_pair_of_ones_own_is_saved_with_its_recipe(run: Path) -> None:
    own = Pair(*Pair.load(run))
    with pytest.raises(RunError, match="recipe=FILE"):
        own.save("own")
    own.save("own", recipe="walk.py", source=Arrays(path="walks.npy"))
    assert same_weights(own, Pair.load("own"))
    Path("other.py").write_text(RECIPE.replace("learned_scale=True", "learned_scale=False"))
    with pytest.raises(RunError, match="does not fit the recipe"):
        own.save("other", recipe="other.py", source=Arrays(path="walks.npy"))
    assert not Path("other").exists()


def test_code_of_others_is_not_run_untrusted(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", "another")
    with pytest.raises(RecipeError, match="not run here before"):
        Pair.load(run)
    assert same_weights(Pair.load(run, trust=True), Pair.load(run, recipe="walk.py"))
