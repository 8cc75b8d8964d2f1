"""Contents of run folders, read and checked as data only: nothing in them is executed."""

import csv
import json
from collections.abc import Callable
from math import isfinite
from pathlib import Path
from typing import Any, NamedTuple
from zipfile import BadZipFile

import numpy as np
import numpy.typing as npt

from pyro_afslvm.runs.errors import RunError
from pyro_afslvm.runs.settings import with_present_names

Array = npt.NDArray[Any]

COLUMNS = ("step", "seconds", "train_nats_per_dim", "validation_nats_per_dim")
_LATER = ("train_correlation_y",)  # columns that runs of earlier releases do not have
_NUMBERS = (
    "absolute_correlation_of_noise",
    "absolute_correlation_x",
    "absolute_correlation_y",
    "bits_per_dim_floor",
    "moving_correlation_x",
    "moving_correlation_y",
    "num_units",
    "train_correlation_x",
    "train_correlation_y",
    "whole_bits_per_dim",
    "whole_bits_per_dim_error",
    "whole_frames",
    "whole_nats_per_dim",
    "whole_nats_per_dim_error",
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


class RunContents(NamedTuple):
    """A finished run: its results, and what else its folder holds."""

    folder: Path
    label: str  # the model's name; a report tells runs of one name apart
    results: dict[str, Any]
    curves: dict[str, Array]  # columns of metrics.csv, NaN where a cell is empty; or none
    pictures: dict[str, Array]  # arrays of pictures.npz; or none
    settings: dict[str, Any]  # settings.json; or none
    problems: tuple[str, ...] = ()  # what could not be read of curves, pictures and settings

    @property
    def protocol(self) -> dict[str, Any]:
        """The protocol of the nats per dimension."""
        return dict(self.results["protocol"])

    @property
    def protocol_bits(self) -> dict[str, Any] | None:
        """The protocol of the bits per dimension, where they were measured."""
        return self.results.get("protocol_bits")

    @property
    def train_dequantization(self) -> str | None:
        """Name of the dequantization it was trained on; ``None`` where that is not known."""
        training = self.settings.get("training")
        known = training.get("dequantization") if isinstance(training, dict) else None
        return known if isinstance(known, str) else None

    def number(self, key: str) -> float | None:
        """A result, ``None`` where the run does not have it."""
        value = self.results.get(key)
        return None if value is None else float(value)


def read_contents(folder: Path, *, lenient: bool = False) -> RunContents:
    """Read a run folder; ``results.json`` must be there, everything else may be missing.

    Args:
        folder: of the run.
        lenient: go on without other files that are damaged, and say which.

    Raises:
        RunError: one line naming the file that is missing or damaged.
    """
    results = read_results(folder / "results.json")
    problems: list[str] = []

    def read(reader: Callable[[Path], dict[str, Any]], name: str) -> dict[str, Any]:
        try:
            return reader(folder / name) if (folder / name).exists() else {}
        except RunError as error:
            if not lenient:
                raise
            problems.append(str(error))
            return {}

    return RunContents(
        folder=folder,
        label=results["name"],
        results=results,
        curves=read(read_curves, "metrics.csv"),
        pictures=read(read_pictures, "pictures.npz"),
        settings=read(read_settings, "settings.json"),
        problems=tuple(problems),
    )


def read_settings(path: Path) -> dict[str, Any]:
    """Read ``settings.json``; settings of earlier releases get their present names.

    Raises:
        RunError: if it cannot be read.
    """
    stored = read_json(path)
    training = stored.get("training")
    if isinstance(training, dict):
        # the first runs had no average
        stored["training"] = {"average": 0.0, **with_present_names(training)}
    return stored


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object.

    Raises:
        RunError: if it cannot be read, or is something else.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise RunError(f"{path}: cannot be read: {error.strerror}") from None
    except ValueError:
        raise RunError(f"{path}: not valid JSON") from None
    if not isinstance(content, dict):
        raise RunError(f"{path}: expected a JSON object, got {type(content).__name__}")
    return content


def read_results(path: Path) -> dict[str, Any]:
    """Read the results of an evaluation, ``results.json``.

    Raises:
        RunError: if the run was not evaluated, or the file is damaged.
    """
    if not path.exists():
        raise RunError(f"{path}: there is no such file; was the run evaluated?")
    results = read_json(path)
    if not isinstance(results.get("name"), str):
        raise RunError(f"{path}: 'name' must be a string, got {results.get('name')!r}")
    _check_number(path, "nats_per_dim", results.get("nats_per_dim"))
    for key in _NUMBERS:
        if results.get(key) is not None:
            _check_number(path, key, results[key])
    if not isinstance(results.get("protocol"), dict):
        raise RunError(f"{path}: 'protocol' must be an object, got {results.get('protocol')!r}")
    bits = results.get("protocol_bits")
    if not isinstance(bits, dict | None) or (results.get("bits_per_dim") is not None and not bits):
        raise RunError(f"{path}: 'bits_per_dim' needs a 'protocol_bits' object, got {bits!r}")
    return results


def read_curves(path: Path) -> dict[str, Array]:
    """Read the columns of ``metrics.csv``; none if there is no such file.

    Raises:
        RunError: if it holds something else than numbers in these columns.
    """
    if not path.exists():
        return {}
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        known = [
            name for name in (*COLUMNS, *_LATER) if name in COLUMNS or name in (rows or [{}])[0]
        ]
        return {name: np.array([float(row[name] or "nan") for row in rows]) for name in known}
    except (OSError, KeyError, TypeError, ValueError, csv.Error):
        raise RunError(f"{path}: expected numbers in columns {', '.join(COLUMNS)}") from None


def read_pictures(path: Path) -> dict[str, Array]:
    """Read the arrays of ``pictures.npz``; none if there is no such file.

    Raises:
        RunError: if it is no archive of plain arrays.
    """
    if not path.exists():
        return {}
    try:
        with np.load(path, allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}
    except (OSError, ValueError, EOFError, BadZipFile, AttributeError, TypeError):
        raise RunError(f"{path}: expected an archive of plain arrays") from None


def _check_number(path: Path, key: str, value: object) -> None:
    if not isinstance(value, int | float) or isinstance(value, bool) or not isfinite(value):
        raise RunError(f"{path}: {key!r} must be a finite number, got {value!r}")
