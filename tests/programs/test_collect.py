"""Runs in one table: differences are paired by sequence, of one protocol only."""

import json
from pathlib import Path

import pytest

from inference import collect
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


def test_of_few_sequences_there_is_no_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pair = [evaluated(tmp_path / name, [a, a - 1]) for name, a in (("one", -1.0), ("two", -2.0))]
    (found,) = differences(pair)
    assert found["error"] is None
    monkeypatch.setattr(collect, "table_text", lambda paths: "")
    monkeypatch.setattr(collect, "summary", lambda runs: {})
    monkeypatch.setattr(Run, "open", lambda path: Run(Path(path)))
    out = tmp_path / "found.json"
    assert collect.main([*(str(run.path) for run in pair), "--json", str(out)]) == 0
    assert json.loads(out.read_text())["differences"] == [found]
    printed = capsys.readouterr().out
    assert "+1.0000" in printed
    assert "±" not in printed
    assert "nan" not in printed
