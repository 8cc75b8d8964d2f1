"""Finished runs as one self-contained HTML page, and as a table in the terminal.

Nothing here executes a recipe: a report is made from the numbers and arrays that a run
left behind.
"""

import json
from collections.abc import Callable, Sequence
from importlib.resources import files
from pathlib import Path
from typing import TypeVar

from jinja2 import Environment, StrictUndefined

from pyro_afslvm.report import tables
from pyro_afslvm.report.labels import load_runs
from pyro_afslvm.runs.contents import RunContents
from pyro_afslvm.utils.files import write_atomically

T = TypeVar("T")


def write_report(
    runs: Sequence[Path], out: Path, *, title: str = "Autoregressive flows across time"
) -> None:
    """Write tables, curves, flow pictures and rollouts of finished runs as one HTML file.

    Runs share a table only where data, split, scored frames and dequantization agree. The page
    needs no other file and no network; ``out`` is replaced at once or not at all.

    Args:
        runs: run folders.
        out: the HTML file; its folder is made where it is missing.
        title: the page's title.

    Raises:
        ValueError: one line naming the file of a run that is missing or cannot be read.
    """
    page = _render(load_runs(runs), title)
    out = Path(out)
    out.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(out, page.encode())


def table_text(runs: Sequence[Path]) -> str:
    """Lay out the report's tables as plain text; the best value of a column is marked with ``*``.

    Args:
        runs: run folders.

    Raises:
        ValueError: one line naming the file of a run that is missing or cannot be read.
    """
    return tables.text(load_runs(runs))


def _render(runs: Sequence[RunContents], title: str) -> str:
    from pyro_afslvm.report import pictures  # matplotlib only where something is drawn

    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["minus"] = lambda text: text.replace("-", "\N{MINUS SIGN}")
    template = environment.from_string(
        files("pyro_afslvm.report").joinpath("template.html").read_text(encoding="utf-8")
    )
    found = tables.tables(runs)
    units = {tables.nats_unit(run.protocol) for run in runs}
    return template.render(
        title=title,
        tables=found,
        eight_bit=tables.EIGHT_BIT in units,
        data_units=bool(units - {tables.EIGHT_BIT, tables.BINARY}),
        binary=tables.BINARY in units,
        images=[(run.label, _drawn(pictures.images, run)) for run in runs],
        vectors=any(map(pictures.is_vectors, runs)),
        curves=[(table.caption, pictures.curves(table.runs)) for table in found],
        flows=[(run.label, _drawn(pictures.flow, run)) for run in runs],
        rollouts=[(run.label, _drawn(pictures.rollout, run)) for run in runs],
        details=[(run.label, _details(run)) for run in runs],
    )


def _drawn(draw: Callable[[RunContents], T], run: RunContents) -> T:
    try:
        return draw(run)
    except (ValueError, TypeError, IndexError) as error:
        raise ValueError(f"{run.folder / 'pictures.npz'}: {error}") from None


def _details(run: RunContents) -> str:
    details = {
        "recipe": run.results.get("recipe"),
        "training steps": run.results.get("train_steps"),
        "settings": run.settings,
        "versions": run.protocol.get("versions"),
    }
    return json.dumps(details, indent=2, ensure_ascii=False)
