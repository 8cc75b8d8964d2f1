"""Results in the form of the paper's Table 1, one table per comparable protocol."""

import json
from collections import Counter
from collections.abc import Callable, Sequence
from textwrap import fill
from typing import Any, NamedTuple

from pyro_afslvm.data.dequantize import (
    DEQUANTIZATIONS,
    BinaryPixels,
    GaussianDequantization,
    UniformDequantization,
)
from pyro_afslvm.data.protocol import COMPARABLE
from pyro_afslvm.runs.contents import RunContents
from pyro_afslvm.utils.tables import table_text

_WORDS = {
    "data": "data",
    "split": "split",
    "context_frames": "frames given",
    "scored_frames": "frames scored",
    "noise": "dequantization",  # the key of stored results
    "num_samples": "samples per sequence",
    "bound": "likelihood",
    "seed": "seed",
    "num_sequences": "sequences",
}
EIGHT_BIT = GaussianDequantization.unit  # of a density over grey levels
BINARY, PER_IMAGE = BinaryPixels.unit, "nats/image"


class Cell(NamedTuple):
    """A table's cell; ``best`` where no run of the column does better."""

    text: str
    best: bool = False


class Table(NamedTuple):
    """Comparable runs: column names, a row of cells per run, and the protocols in words."""

    runs: list[RunContents]
    columns: list[str]
    rows: list[list[Cell]]
    notes: list[str]

    @property
    def caption(self) -> str:
        """Name data and split."""
        protocol = self.runs[0].protocol
        return ", ".join(phrase(protocol.get(key)) for key in ("data", "split"))


def tables(runs: Sequence[RunContents]) -> list[Table]:
    """Group runs by protocol, in the order they come, and lay out a table for each group."""
    groups: dict[str, list[RunContents]] = {}
    for run in runs:
        groups.setdefault(_key(run.protocol), []).append(run)
    return [_table(group) for group in groups.values()]


def nats_unit(protocol: dict[str, Any]) -> str:
    """Name the unit of a protocol's nats: of grey levels, data units, or binary pixels."""
    found = DEQUANTIZATIONS.get(str(protocol.get("noise")))
    return found.unit if found is not None and not found.whole_numbers else EIGHT_BIT


def text(runs: Sequence[RunContents]) -> str:
    """Lay out the tables as plain text, the best value of a column marked with ``*``."""
    return "\n\n".join(_plain(table) for table in tables(runs))


def phrase(value: Any) -> str:
    """Put a JSON value in words; an object's name stands first, without its key."""
    if isinstance(value, dict):
        name = [phrase(value["name"]).replace("_", " ")] if "name" in value else []
        rest = [f"{_spaced(key)} {phrase(part)}" for key, part in value.items() if key != "name"]
        return ", ".join(name + rest)
    if isinstance(value, list | tuple):
        return " ".join(phrase(part) for part in value)
    if value is None or isinstance(value, bool):
        return {None: "none", True: "yes", False: "no"}[value]
    return str(value)


def _spaced(key: str) -> str:
    return key.replace("_", " ")


def _key(protocol: dict[str, Any]) -> str:
    return json.dumps([protocol.get(key) for key in COMPARABLE], sort_keys=True)


def _table(runs: list[RunContents]) -> Table:
    """Lay out runs; bits under different protocols stand in columns of their own, as nats do."""
    unit, bits = nats_unit(runs[0].protocol), UniformDequantization.unit
    name, key = (PER_IMAGE, "nats_per_image") if unit == BINARY else (unit, "nats_per_dim")
    columns = {
        "model": [Cell(run.label) for run in runs],
        f"{name} ↑": _column(runs, key, max),
    }
    words = _protocol(runs, lambda run: run.protocol)
    notes = [_note(name, words)]
    discrete = {_key(run.protocol_bits): None for run in runs if run.protocol_bits}
    for number, protocol in enumerate(discrete, 1):
        name = bits + (f" ({number})" if len(discrete) > 1 else "")
        here = [run for run in runs if run.protocol_bits and _key(run.protocol_bits) == protocol]
        columns[f"{name} ↓"] = _column(runs, "bits_per_dim", min, here)
        differing = _protocol(here, lambda run: run.protocol_bits or {})
        notes.append(_note(name, differing, words))
    columns["corr x → y"] = [Cell(_correlation(run)) for run in runs]
    columns["parameters"] = [Cell(_count(run.number("parameters"))) for run in runs]
    columns["training s"] = [Cell(_count(run.number("train_seconds"))) for run in runs]
    rows = [list(row) for row in zip(*columns.values(), strict=True)]
    return Table(runs, list(columns), rows, notes)


def _column(
    runs: Sequence[RunContents],
    key: str,
    best: Callable[[Sequence[float]], float],
    among: Sequence[RunContents] | None = None,
) -> list[Cell]:
    """Make a column of values and standard errors, of the runs ``among`` which share a protocol."""
    among = runs if among is None else among
    labels = {run.label for run in among}
    values = [run.number(key) if run.label in labels else None for run in runs]
    known = [value for value in values if value is not None]
    record = best(known) if len(known) > 1 else None
    errors = [run.number(f"{key}_error") for run in runs]
    return [
        Cell(_measured(value, error), value is not None and value == record)
        for value, error in zip(values, errors, strict=True)
    ]


def _measured(value: float | None, error: float | None) -> str:
    if value is None:
        return "–"
    return f"{value:.3f}" if error is None else f"{value:.3f} ± {error:.3f}"


def _correlation(run: RunContents) -> str:
    before, after = run.number("correlation_x"), run.number("correlation_y")
    if before is None:
        return "–"
    return f"{before:.2f}" if after is None else f"{before:.2f} → {after:.2f}"


def _count(value: float | None) -> str:
    return "–" if value is None else f"{value:,.0f}"


def _protocol(
    runs: Sequence[RunContents], of: Callable[[RunContents], dict[str, Any]]
) -> list[str]:
    """Put protocols in words; where runs differ, say which has which."""
    protocols = {run.label: of(run) | _sequences(run) for run in runs}
    keys = dict.fromkeys([*_WORDS, *(key for each in protocols.values() for key in each)])
    stated = [
        key
        for key in keys
        if key in COMPARABLE or (key != "versions" and any(key in p for p in protocols.values()))
    ]
    return [
        f"{_WORDS.get(key, _spaced(key))}: "
        + _held({label: _value(key, protocol.get(key)) for label, protocol in protocols.items()})
        for key in stated
    ]


def _sequences(run: RunContents) -> dict[str, Any]:
    name = "num_sequences"
    return {name: run.results[name]} if name in run.results else {}


def _value(key: str, value: Any) -> str:
    words = phrase(value)
    known = DEQUANTIZATIONS.get(words) if key == "noise" else None
    return words if known is None else f"{words}, x = {known.formula}"


def _held(values: dict[str, str]) -> str:
    """Write the commonest value, then the others with who has them: ``6 (2-AF: 9)``."""
    commonest = Counter(values.values()).most_common(1)[0][0]
    holders: dict[str, list[str]] = {}
    for label, value in values.items():
        holders.setdefault(value, []).append(label)
    others = [f"{', '.join(who)}: {value}" for value, who in holders.items() if value != commonest]
    return commonest + (f" ({'; '.join(others)})" if others else "")


def _note(name: str, words: Sequence[str], known: Sequence[str] = ()) -> str:
    """Write a protocol as one line; where much of it is known, only how it differs."""
    new = [word for word in words if word not in known]
    if not known or len(new) == len(words):
        return f"Protocol of {name}: " + " · ".join(words)
    return f"Protocol of {name}: " + (f"as above, but {' · '.join(new)}" if new else "as above")


def _plain(table: Table) -> str:
    marked = [any(cell.best for cell in column) for column in zip(*table.rows, strict=True)]
    ends = [" " if mark else "" for mark in marked]  # numbers stay below one another
    rows = [
        [cell.text + ("*" if cell.best else end) for cell, end in zip(row, ends, strict=True)]
        for row in table.rows
    ]
    head = [name + end for name, end in zip(table.columns, ends, strict=True)]
    laid_out = table_text(rows, head=head)
    rule = laid_out.splitlines()[1]
    width = max(len(rule), 60)
    caption = fill(table.caption, width)
    notes = [fill(note, width, subsequent_indent="  ") for note in table.notes]
    return "\n".join([caption, rule, laid_out, rule, *notes])
