"""Finished runs as one self-contained HTML page, and as a table in the terminal.

Nothing here executes a recipe: a report is made from the numbers and arrays that a run
left behind.
"""

import json
from collections.abc import Callable, Sequence
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from jinja2 import Environment, StrictUndefined

from pyro_afslvm.report import tables
from pyro_afslvm.report.labels import load_runs
from pyro_afslvm.runs.contents import RunContents
from pyro_afslvm.utils.errors import reason
from pyro_afslvm.utils.files import shown, write_atomically

if TYPE_CHECKING:
    from pyro_afslvm.report.pictures import Picture

T = TypeVar("T")


def write_report(
    runs: Sequence[Path], out: Path, *, title: str = "Autoregressive flows across time"
) -> list[str]:
    """Write tables, curves, flow pictures and rollouts of finished runs as one HTML file.

    Runs share a table only where data, split, scored frames and dequantization agree. What cannot
    be drawn of a run is noted in its place. The page needs no other file and no network; ``out``
    is replaced at once or not at all.

    Args:
        runs: run folders.
        out: the HTML file; its folder is made where it is missing.
        title: the page's title.

    Returns:
        what could not be drawn, a line each.

    Raises:
        ValueError: one line naming the results of a run that are missing or cannot be read.
    """
    page, problems = _render(load_runs(runs), title)
    out = Path(out)
    out.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(out, shown(page).encode())
    return problems


def table_text(runs: Sequence[Path]) -> str:
    """Lay out the report's tables as plain text; the best value of a column is marked with ``*``.

    Args:
        runs: run folders.

    Raises:
        ValueError: one line naming the file of a run that is missing or cannot be read.
    """
    return tables.text(load_runs(runs))


def _render(runs: Sequence[RunContents], title: str) -> tuple[str, list[str]]:
    """Give the page, and what could not be drawn on it."""
    from pyro_afslvm.report import pictures  # matplotlib only where something is drawn

    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["minus"] = lambda text: text.replace("-", "\N{MINUS SIGN}")
    template = environment.from_string(
        files("pyro_afslvm.report").joinpath("template.html").read_text(encoding="utf-8")
    )
    found = tables.tables(runs)
    problems = [problem for run in runs for problem in run.problems]

    def drawn(draw: Callable[[RunContents], T]) -> list[tuple[str, T | None]]:
        return [(run.label, _drawn(draw, run, problems)) for run in runs]

    parts = {
        "images": drawn(pictures.images),
        "curves": [(table.caption, _curves(table.runs, problems)) for table in found],
        "flows": drawn(pictures.flow),
        "rollouts": drawn(pictures.rollout),
    }
    units = {tables.nats_unit(run.protocol) for run in runs}
    page = template.render(
        title=title,
        tables=found,
        eight_bit=tables.EIGHT_BIT in units,
        data_units=bool(units - {tables.EIGHT_BIT, tables.BINARY}),
        binary=tables.BINARY in units,
        vectors=any(map(pictures.is_vectors, runs)),
        problems=[_without_folder(problem, runs) for problem in problems],
        details=[(run.label, _details(run)) for run in runs],
        **parts,
    )
    return page, problems


def _drawn(draw: Callable[[RunContents], T], run: RunContents, problems: list[str]) -> T | None:
    """Draw what there is of a run; what a damaged file makes of that stops no other run."""
    try:
        return draw(run)
    except Exception as error:  # of numpy, matplotlib or Pillow, on any arrays
        problems.append(f"{run.folder / 'pictures.npz'}: {reason(error)}")
        return None


def _curves(runs: Sequence[RunContents], problems: list[str]) -> "Picture | None":
    from pyro_afslvm.report import pictures

    try:
        return pictures.curves(runs)
    except Exception as error:
        problems.append(f"curves of {', '.join(run.label for run in runs)}: {reason(error)}")
        return None


def _without_folder(problem: str, runs: Sequence[RunContents]) -> str:
    """A line of the page, which does not tell where runs lie."""
    for run in runs:
        problem = problem.replace(f"{run.folder}/", f"{run.label}, ")
    return problem


def _details(run: RunContents) -> str:
    details = {
        "recipe": run.results.get("recipe"),
        "training steps": run.results.get("train_steps"),
        "settings": {k: v for k, v in run.settings.items() if k != "recipe_path"},
        "versions": run.protocol.get("versions"),
    }
    return json.dumps(details, indent=2, ensure_ascii=False)
