"""Runs of one name are told apart."""

import json
from pathlib import Path

import pytest

from pyro_afslvm.report.labels import load_runs


def labels(folder: Path, *runs: tuple[str, str]) -> list[str]:
    """Of runs in these folders with these names."""
    for place, name in runs:
        (folder / place).mkdir(parents=True)
        results = {"name": name, "nats_per_dim": -3.0, "protocol": {}}
        (folder / place / "results.json").write_text(json.dumps(results))
    return [run.label for run in load_runs([folder / place for place, _ in runs])]


def test_names_folders_and_numbers(tmp_path: Path) -> None:
    assert labels(tmp_path, ("a", "AF"), ("b", "SLVM")) == ["AF", "SLVM"]
    runs = [("0", "SLVM"), ("1", "SLVM"), ("x/1", "SLVM"), ("y", "AF")]
    assert labels(tmp_path / "more", *runs) == ["SLVM (0)", "SLVM (1) #1", "SLVM (1) #2", "AF"]


def test_no_runs_is_an_error() -> None:
    with pytest.raises(ValueError, match="expected at least one run folder, got none"):
        load_runs([])
