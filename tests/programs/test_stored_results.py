"""Results in the repository: no error bar from fewer than five units or seeds."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pyro_afslvm.metrics.uncertainty import FEWEST

FOLDER = Path(__file__).parents[2] / "benchmarks" / "results"
FILES = sorted(path for path in FOLDER.glob("*.json") if "seeds" in path.read_text())


def found(content: Any, name: str) -> Iterator[Any]:
    """Every value under a name, at any depth."""
    if isinstance(content, dict):
        if name in content:
            yield content[name]
        content = [*content.values()]
    if isinstance(content, list):
        for one in content:
            yield from found(one, name)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_few_seeds_have_a_range(path: Path) -> None:
    content = json.loads(path.read_text())
    models = content.get("models") or content.get("guides") or []
    for model in models:
        seeds, metrics = len(model["seeds"]), {k: v for k, v in model.items() if k != "seeds"}
        errors = [*found(metrics, "error_seeds")]
        assert errors
        if seeds < FEWEST:
            assert {*errors} == {None}
            single = [*found(metrics, "low")]
            assert len(single) == len(errors)


@pytest.mark.parametrize("path", [*FOLDER.glob("video_*.json")], ids=lambda path: path.stem)
def test_windows_of_one_video_have_no_error(path: Path) -> None:
    content = json.loads(path.read_text())
    assert {*found(content, "nats_per_dim_error"), *found(content, "error")} == {None}
