"""Labels of the runs of a report: models of one name are told apart."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from pyro_afslvm.runs.contents import RunContents, read_contents
from pyro_afslvm.utils.files import shown


def load_runs(folders: Sequence[Path]) -> list[RunContents]:
    """Read run folders, each with a label of its own.

    Raises:
        ValueError: one line naming the results that are missing or cannot be read.
    """
    if not folders:
        raise ValueError("expected at least one run folder, got none")
    runs = [read_contents(Path(folder), lenient=True) for folder in folders]
    labels = _distinct([run.label for run in runs], [shown(run.folder.name) for run in runs])
    return [run._replace(label=label) for run, label in zip(runs, labels, strict=True)]


def file_name(run: RunContents) -> str:
    """Name the file or folder that a run was scored on; empty where that is not known."""
    source, trained = run.settings.get("source"), run.settings.get("data")
    scored = run.protocol.get("data")
    if not all(isinstance(part, dict) for part in (source, trained, scored)):
        return ""
    arguments = dict(source or {}).get("arguments")
    path = arguments.get("path") if isinstance(arguments, dict) else None
    same = dict(trained or {}).get("content") == dict(scored or {}).get("content")
    return shown(Path(path).name) if isinstance(path, str) and same else ""


def _distinct(names: Sequence[str], folders: Sequence[str]) -> list[str]:
    """Names; where several are the same, with their folders; where these are too, numbered."""
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
