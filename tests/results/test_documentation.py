"""The page on results names what there is, and nothing else."""

import inspect
import re
from pathlib import Path

import torch

from pyro_afslvm.results import infer, to_arviz
from tests.support.guides import sequences, system

PAGE = Path(__file__).parents[2] / "docs" / "runs.md"


def test_the_table_of_results_is_what_there_is() -> None:
    section = PAGE.read_text().partition("## Results for ArviZ")[2]
    options = {*re.findall(r"`?\b(\w+)=", section)}
    known = {*inspect.signature(infer).parameters, *inspect.signature(to_arviz).parameters}
    assert options == {
        "num_samples",
        "num_chains",
        "replicate",
        "horizon",
        "entries",
        "lengths",
    }
    assert options <= known
    named = re.findall(r"`(\w+)/(\w+)`", section)
    pair = system("plain", "filtering")
    options_used = {"num_samples": 2, "num_chains": 2, "lengths": torch.tensor([8, 5, 3])}
    tree = infer(*pair, sequences(), **options_used)
    future = infer(*pair, sequences(), num_samples=2, horizon=2, replicate=False)
    for group, variable in named:
        assert variable in (future if "future" in variable else tree)[group]
    assert "log_evidence_error" in tree["sample_stats"]
    assert "x" not in future["posterior_predictive"]
    assert tree["observed_data/x"].isnull().any()
    assert not tree["observed_data/x"].isel(sequence=0).isnull().any()
