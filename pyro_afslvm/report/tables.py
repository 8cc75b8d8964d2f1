"""Results in the form of the paper's Table 1, one table per comparable protocol."""

import json
import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from textwrap import fill
from typing import Any, NamedTuple

from pyro_afslvm.data.dequantize import (
    DEQUANTIZATIONS,
    BinaryPixels,
    GaussianDequantization,
    UniformDequantization,
)
from pyro_afslvm.data.protocol import COMPARABLE
from pyro_afslvm.metrics.uncertainty import FEWEST
from pyro_afslvm.report import columns as made
from pyro_afslvm.report.beside import beside
from pyro_afslvm.report.columns import CONDITIONAL, OTHER_NOISE, Cell, Grid
from pyro_afslvm.report.labels import file_name
from pyro_afslvm.runs.contents import RunContents
from pyro_afslvm.utils.tables import table_text

_WORDS = {
    "data": "data",
    "split": "split",
    "windows": "crops of a sequence",
    "context_frames": "frames given",
    "scored_frames": "frames scored",
    "noise": "dequantization",  # the key of stored results
    "num_samples": "samples per sequence",
    "bound": "likelihood",
    "seed": "seed",
    "num_sequences": "sequences",
    "units": "standard errors over",
}
_WINDOWS = {
    "all": "all that do not overlap",
    "one": "one",
    "whole": "the whole sequence, whatever its length (scored frames: of the longest)",
}
EIGHT_BIT = GaussianDequantization.unit  # of a density over grey levels
BINARY, PER_IMAGE = BinaryPixels.unit, "nats/image"


class Table(NamedTuple):
    """Comparable runs: column names, a row of cells per run, and the protocols in words."""

    runs: list[RunContents]
    columns: list[str]
    rows: list[list[Cell]]
    notes: list[str]
    correlations: Grid | None = None

    @property
    def caption(self) -> str:
        """Name data and split, and where they differ the frames that runs are scored on."""
        protocol = self.runs[0].protocol
        named = [_heading(self.runs[0]), phrase(protocol.get("split"))]
        return ", ".join(named + ([self.frames] if self.frames else []))

    @property
    def frames(self) -> str:
        """The frames of a crop that are scored, counted from 1; nothing where all are the same."""
        scored = {run.label: _frames(run.protocol) for run in self.runs}
        return f"scored frames {_held(scored)}" if len({*scored.values()}) > 1 else ""


def _heading(run: RunContents) -> str:
    """Name data by their file where it is known, without the digits that identify its content."""
    data = run.protocol.get("data")
    if isinstance(data, dict):
        data = {key: value for key, value in data.items() if key != "content"}
    name = file_name(run)
    return f"{name}: {phrase(data)}" if name else phrase(data)


def tables(runs: Sequence[RunContents]) -> list[Table]:
    """Group runs by protocol, in the order they come, and lay out a table for each group."""
    groups: dict[str, list[RunContents]] = {}
    known: dict[str, str] = {}  # windows of runs that say so
    for run in runs:
        if named := run.protocol.get("windows"):
            known.setdefault(_key(run.protocol | {"windows": None}), named)
    for run in runs:  # one of an earlier release did as the data do
        windows = run.protocol.get("windows") or known.get(_key(run.protocol | {"windows": None}))
        groups.setdefault(_key(run.protocol | {"windows": windows}), []).append(run)
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
    nats = made.measured(runs, key, max, marks=lambda run: _marks(run, run.protocol))
    columns = {"model": made.labels(runs), f"{name} ↑": nats}
    best = max(runs, key=lambda run: run.number(key) or -math.inf)
    if apart := made.differences(runs, key, best):
        columns["Δ to best"] = apart
    if whole := made.whole(runs, "whole_nats_per_dim"):
        columns[f"{name} of all frames ↑"] = whole
    words = _protocol(runs, lambda run: run.protocol)
    notes = [*beside(runs), _note(name, words), *_meanings(runs, best if apart else None)]
    discrete = {_key(run.protocol_bits): None for run in runs if run.protocol_bits}
    for number, protocol in enumerate(discrete, 1):
        name = bits + (f" ({number})" if len(discrete) > 1 else "")
        here = [run for run in runs if run.protocol_bits and _key(run.protocol_bits) == protocol]
        columns[f"{name} ↓"] = made.measured(
            runs, "bits_per_dim", min, here, marks=lambda run: _marks(run, run.protocol_bits or {})
        )
        if whole := made.whole(here, "whole_bits_per_dim"):
            of = dict(zip([run.label for run in here], whole, strict=True))
            cells = [of.get(run.label, Cell("–")) for run in runs]
            columns[f"{name} of all frames ↓"] = cells
        differing = _protocol(here, lambda run: run.protocol_bits or {})
        notes.append(_note(name, differing, words))
    columns["corr x → y"] = [Cell(made.arrow(run, "correlation")) for run in runs]
    columns["parameters"] = [Cell(made.count(run.number("parameters"))) for run in runs]
    columns["training s"] = [Cell(made.count(run.number("train_seconds"))) for run in runs]
    correlations = made.correlations(runs)
    notes += [*_noises(runs), *(_of_correlations(runs) if correlations else ())]
    return Table(runs, *Grid.of(columns), notes, correlations)


# what the numbers mean ----------------------------------------------------------------------


def _marks(run: RunContents, protocol: dict[str, Any]) -> str:
    trained, scored = run.train_dequantization, protocol.get("noise")
    other = trained is not None and trained in DEQUANTIZATIONS and trained != scored
    return CONDITIONAL * _is_conditional(run) + OTHER_NOISE * other


def _is_conditional(run: RunContents) -> bool:
    return run.number("whole_frames") is not None


def _meanings(runs: Sequence[RunContents], best: RunContents | None) -> Iterator[str]:
    if best is not None:
        yield (
            f"Δ to best: less the value of {best.label}, paired by "
            f"{best.results.get('unit', 'sequence')}, of frames that may differ as said above"
        )
    conditional = [run for run in runs if _is_conditional(run)]
    if conditional:
        yield (
            f"{CONDITIONAL} {', '.join(run.label for run in conditional)}: "
            f"{_held({run.label: run.protocol['bound'] for run in conditional})}, as the paper "
            "has it; alone they are no lower bound on the likelihood of the scored frames given "
            "those before. The bound of all frames (their number in brackets) is one on them all"
        )


def _noises(runs: Sequence[RunContents]) -> Iterator[str]:
    """Say of runs that are scored under another noise than they were trained on what that does."""
    trained = {run.label: run.train_dequantization for run in runs}
    gaussian = [run for run in runs if trained[run.label] == "gaussian" and run.protocol_bits]
    if gaussian:
        floors = {run.number("bits_per_dim_floor") for run in gaussian}
        known = [f"{floor:.2f}" for floor in floors if floor is not None]
        floor = known[0] if len({*known}) == 1 else "about 1.45 to 1.57"
        yield (
            f"{OTHER_NOISE} bits/dim of models trained on Gaussian noise have a floor of {floor} "
            "bits/dim here, that of knowing every pixel: they are not comparable with those of the "
            "literature, whose models are trained on uniform noise (--dequantization uniform)"
        )
    if any(name == "uniform" for name in trained.values()):
        yield (
            f"{OTHER_NOISE} nats/dim of models trained on uniform noise are under Gaussian noise "
            "that they have not seen"
        )


def _of_correlations(runs: Sequence[RunContents]) -> Iterator[str]:
    noise = {run.label: run.number("absolute_correlation_of_noise") for run in runs}
    expected = {label: f"{value:.2f}" for label, value in noise.items() if value is not None}
    white = f"; white noise has {_held(expected)}" if expected else ""
    yield (
        "Temporal correlation: Eq. 31 is a signed mean over pixels, of all frames that are scored; "
        "the paper's Table 4 is of training sequences; mean |corr| is that of absolute values"
        f"{white}; moving entries are those that change from a frame to the next"
    )


def _frames(protocol: dict[str, Any]) -> str:
    given, scored = protocol.get("context_frames"), protocol.get("scored_frames")
    if not isinstance(given, int) or not isinstance(scored, int):
        return "unknown"
    return f"{given + 1}–{given + scored}"


# protocols in words -------------------------------------------------------------------------


def _protocol(
    runs: Sequence[RunContents], of: Callable[[RunContents], dict[str, Any]]
) -> list[str]:
    """Put protocols in words; where runs differ, say which has which."""
    protocols = {run.label: of(run) | _sequences(run) for run in runs}
    keys = dict.fromkeys([*_WORDS, *(key for each in protocols.values() for key in each)])
    stated = [
        key
        for key in keys
        if (key in COMPARABLE and key != "windows")
        or (key != "versions" and any(p.get(key) is not None for p in protocols.values()))
    ]
    return [
        f"{_WORDS.get(key, _spaced(key))}: "
        + _held({label: _value(key, protocol.get(key)) for label, protocol in protocols.items()})
        for key in stated
    ]


def _sequences(run: RunContents) -> dict[str, Any]:
    name, units = "num_sequences", run.number("num_units")
    found = {name: run.results[name]} if name in run.results else {}
    return found | ({} if units is None else {"units": _units(int(units), run.results["unit"])})


def _units(number: int, unit: str) -> str:
    several = f"{unit[:-1]}ies" if unit.endswith("y") else f"{unit}s"
    counted = f"{number} {unit if number == 1 else several}"
    return counted if number >= FEWEST else f"none of fewer than {FEWEST} units, here {counted}"


def _value(key: str, value: Any) -> str:
    words = phrase(value)
    if key == "windows":
        return _WINDOWS.get(words, "as the data have it")
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
    more = []
    if grid := table.correlations:
        cells = [[cell.text for cell in row] for row in grid.rows]
        more = [table_text(cells, head=grid.columns), rule]
    return "\n".join([caption, rule, laid_out, rule, *more, *notes])
