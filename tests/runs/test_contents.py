"""Files of a run folder: what is read of them, and errors of one line."""

import json
from pathlib import Path

import numpy as np
import pytest

from pyro_afslvm.runs.contents import COLUMNS, read_contents, read_json
from pyro_afslvm.runs.errors import RunError

RESULTS = {"name": "A", "nats_per_dim": -3.0, "protocol": {"noise": "gaussian"}}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A finished run."""
    (tmp_path / "results.json").write_text(json.dumps(RESULTS | {"parameters": 7}))
    (tmp_path / "settings.json").write_text('{"format": 1}')
    (tmp_path / "metrics.csv").write_text(",".join(COLUMNS) + "\n2,0.5,-4.0,\n4,1.0,-3.5,-3.25\n")
    np.savez(tmp_path / "pictures.npz", frames=np.zeros((2, 3)))
    return tmp_path


def test_a_finished_run(folder: Path) -> None:
    found = read_contents(folder)
    assert found.label == "A"
    assert found.protocol == {"noise": "gaussian"}
    assert found.protocol_bits is None
    assert found.number("parameters") == 7.0
    assert found.number("bits_per_dim") is None
    assert found.settings == {"format": 1}
    assert found.curves["step"].tolist() == [2.0, 4.0]
    np.testing.assert_array_equal(found.curves["validation_nats_per_dim"], [np.nan, -3.25])
    assert found.pictures["frames"].shape == (2, 3)


def test_results_alone_are_enough(folder: Path) -> None:
    for name in ("settings.json", "metrics.csv", "pictures.npz"):
        (folder / name).unlink()
    found = read_contents(folder)
    assert found.settings == found.curves == found.pictures == {}


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("results.json", None, "there is no such file; was the run evaluated?"),
        ("results.json", "{", "not valid JSON"),
        ("results.json", b"\xff{}", "not valid JSON"),
        ("results.json", "[]", "expected a JSON object, got list"),
        ("results.json", '{"name": 3}', "'name' must be a string"),
        ("results.json", '{"name": "A"}', "'nats_per_dim' must be a finite number, got None"),
        ("results.json", '{"name": "A", "nats_per_dim": NaN}', "finite number, got nan"),
        ("results.json", '{"name": "A", "nats_per_dim": true}', "finite number, got True"),
        ("results.json", '{"name": "A", "nats_per_dim": -3}', "'protocol' must be an object"),
        ("settings.json", "{", "not valid JSON"),
        ("settings.json", "3", "expected a JSON object, got int"),
        ("metrics.csv", "step,seconds\n1,2\n", "expected numbers in columns"),
        ("metrics.csv", ",".join(COLUMNS) + "\n1,2,3,four\n", "expected numbers in columns"),
        ("pictures.npz", "no archive", "expected an archive of plain arrays"),
        ("pictures.npz", "", "expected an archive of plain arrays"),
    ],
)
def test_a_bad_file_is_named_in_one_line(
    folder: Path, name: str, content: str | bytes | None, message: str
) -> None:
    (folder / name).unlink()
    if content is not None:
        text = content if isinstance(content, bytes) else content.encode()
        (folder / name).write_bytes(text)
    with pytest.raises(RunError) as caught:
        read_contents(folder)
    assert str(caught.value).startswith(f"{folder / name}: ")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("correlation_x", "high", "'correlation_x' must be a finite number, got 'high'"),
        ("train_seconds", float("inf"), "'train_seconds' must be a finite number, got inf"),
        ("bits_per_dim", 3.0, "'bits_per_dim' needs a 'protocol_bits' object, got None"),
        ("protocol_bits", "none", "'bits_per_dim' needs a 'protocol_bits' object, got 'none'"),
    ],
)
def test_a_bad_value_is_named(folder: Path, key: str, value: object, message: str) -> None:
    (folder / "results.json").write_text(json.dumps(RESULTS | {key: value}))
    with pytest.raises(RunError, match=message):
        read_contents(folder)


def test_nothing_in_an_archive_is_executed(folder: Path) -> None:
    np.savez(folder / "pictures.npz", frames=np.array([{"an": "object"}], dtype=object))
    with pytest.raises(RunError, match="expected an archive of plain arrays"):
        read_contents(folder)


def test_a_folder_in_place_of_a_file(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="cannot be read: Is a directory"):
        read_json(tmp_path)
