"""What a finished run folder holds, read without executing anything in it."""

import csv
import json
from collections import Counter
from collections.abc import Sequence
from math import isfinite
from pathlib import Path
from typing import Any, NamedTuple
from zipfile import BadZipFile

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

COLUMNS = ("step", "seconds", "train_nats_per_dim", "validation_nats_per_dim")
_NUMBERS = (
    "nats_per_dim_error",
    "nats_per_dim_unit",
    "nats_per_image",
    "nats_per_image_error",
    "bits_per_dim",
    "bits_per_dim_error",
    "correlation_x",
    "correlation_y",
    "parameters",
    "train_seconds",
    "train_steps",
)


class Run(NamedTuple):
    """A finished run: its results, and what else its folder holds."""

    folder: Path
    label: str  # the model's name, told apart from other runs of the same name
    results: dict[str, Any]
    metrics: dict[str, Array]  # columns of metrics.csv, NaN where a cell is empty; or none
    pictures: dict[str, Array]  # arrays of pictures.npz; or none
    settings: Any = None

    @property
    def protocol(self) -> dict[str, Any]:
        """The protocol of the nats per dimension."""
        return dict(self.results["protocol"])

    @property
    def protocol_bits(self) -> dict[str, Any] | None:
        """The protocol of the bits per dimension, where they were measured."""
        return self.results.get("protocol_bits")

    def number(self, key: str) -> float | None:
        """A result, ``None`` where the run does not have it."""
        value = self.results.get(key)
        return None if value is None else float(value)


def load_runs(folders: Sequence[Path]) -> list[Run]:
    """Read run folders.

    Raises:
        ValueError: one line naming the file that is missing or cannot be read.
    """
    if not folders:
        raise ValueError("no run folders given, at least one is expected")
    runs = [load_run(Path(folder)) for folder in folders]
    labels = _distinct([run.label for run in runs], [Path(folder).name for folder in folders])
    return [run._replace(label=label) for run, label in zip(runs, labels, strict=True)]


def load_run(folder: Path) -> Run:
    """Read one run folder; see :func:`load_runs`."""
    results = _results(folder / "results.json")
    settings = folder / "settings.json"
    return Run(
        folder=folder,
        label=results["name"],
        results=results,
        metrics=_metrics(folder / "metrics.csv"),
        pictures=_pictures(folder / "pictures.npz"),
        settings=_json(settings) if settings.exists() else None,
    )


def _distinct(names: Sequence[str], folders: Sequence[str]) -> list[str]:
    counts = Counter(names)
    labels = [
        name if counts[name] == 1 else f"{name} ({folder})"
        for name, folder in zip(names, folders, strict=True)
    ]
    again = Counter(labels)
    return [
        label if again[label] == 1 else f"{label} #{labels[: i + 1].count(label)}"
        for i, label in enumerate(labels)
    ]


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ValueError(
            f"{path}: cannot be read ({error.strerror}); is the run finished?"
        ) from None
    except ValueError:
        raise ValueError(f"{path}: not valid JSON") from None


def _results(path: Path) -> dict[str, Any]:
    results = _json(path)
    if not isinstance(results, dict):
        raise ValueError(f"{path}: a JSON object expected, got {type(results).__name__}")
    if not isinstance(results.get("name"), str):
        raise ValueError(f"{path}: 'name' must be a string, got {results.get('name')!r}")
    for key in ("nats_per_dim", *_NUMBERS):
        value = results.get(key)
        if value is None and key != "nats_per_dim":
            continue
        if not isinstance(value, int | float) or isinstance(value, bool) or not isfinite(value):
            raise ValueError(f"{path}: {key!r} must be a finite number, got {value!r}")
    if not isinstance(results.get("protocol"), dict):
        raise ValueError(f"{path}: 'protocol' must be an object, got {results.get('protocol')!r}")
    bits = results.get("protocol_bits")
    if not isinstance(bits, dict | None) or (results.get("bits_per_dim") is not None and not bits):
        raise ValueError(f"{path}: 'bits_per_dim' needs a 'protocol_bits' object, got {bits!r}")
    return results


def _metrics(path: Path) -> dict[str, Array]:
    if not path.exists():
        return {}
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        return {name: np.array([float(row[name] or "nan") for row in rows]) for name in COLUMNS}
    except (OSError, KeyError, TypeError, ValueError, csv.Error):
        raise ValueError(f"{path}: numbers in columns {', '.join(COLUMNS)} expected") from None


def _pictures(path: Path) -> dict[str, Array]:
    if not path.exists():
        return {}
    try:
        with np.load(path, allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}
    except (OSError, ValueError, EOFError, BadZipFile, AttributeError, TypeError):
        raise ValueError(f"{path}: an archive of plain arrays expected") from None
