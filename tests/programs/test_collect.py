"""Runs in one table: differences are paired by sequence, of one protocol only."""

import json
from pathlib import Path

import pytest

from inference.collect import differences
from pyro_afslvm.runs.run import Run


def evaluated(folder: Path, values: list[float], **protocol: object) -> Run:
    folder.mkdir()
    mean = sum(values) / len(values)
    results = {
        "name": folder.name,
        "nats_per_dim": mean,
        "protocol": {"split": "test", "versions": {"torch": folder.name}, **protocol},
        "per_sequence": {"nats_per_dim": values, "unit": list(range(len(values)))},
    }
    (folder / "results.json").write_text(json.dumps(results))
    return Run(folder)


def test_differences_are_paired_by_sequence(tmp_path: Path) -> None:
    values = [-1.0, -2.0, -3.0, -4.0, -5.0, -6.0]
    better = evaluated(tmp_path / "better", [v + 0.5 for v in values])
    found = differences([better, evaluated(tmp_path / "worse", values)])
    assert found == [{"of": "better", "less": "worse", "mean": 0.5, "error": pytest.approx(0.0)}]
    other = evaluated(tmp_path / "other", values, split="validation")
    with pytest.raises(ValueError, match="better and other have different protocols"):
        differences([better, other])
