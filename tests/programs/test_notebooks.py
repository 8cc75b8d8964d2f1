"""The stored notebooks: what their sources say, with outputs that came of it."""

from pathlib import Path
from typing import Any

import jupytext
import nbformat
import pytest

FOLDER = Path(__file__).parents[2] / "notebooks"
NAMES = ("01_svi", "02_swap_guides", "03_rollouts", "04_iaf_vae", "05_series")

each = pytest.mark.parametrize("name", NAMES)


def stored(name: str) -> Any:
    return nbformat.read(FOLDER / f"{name}.ipynb", as_version=4)


def test_every_notebook_is_tested() -> None:
    found = {path.stem for suffix in ("py", "ipynb") for path in FOLDER.glob(f"[0-9]*.{suffix}")}
    assert found == set(NAMES)


@each
def test_the_pair_holds_the_same_cells(name: str) -> None:
    source = jupytext.read(FOLDER / f"{name}.py")
    pairs = [[(cell.cell_type, cell.source) for cell in n.cells] for n in (source, stored(name))]
    assert len(pairs[0]) > 10
    assert pairs[0] == pairs[1]


@each
def test_it_was_executed_from_top_to_bottom(name: str) -> None:
    cells = [cell for cell in stored(name).cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    outputs = [output for cell in cells for output in cell.outputs]
    kinds = {output.output_type for output in outputs}
    assert kinds <= {"stream", "display_data", "execute_result"}
    assert {output.name for output in outputs if output.output_type == "stream"} == {"stdout"}
    assert sum("image/png" in output.get("data", {}) for output in outputs) >= 4


@each
def test_it_is_small_and_names_no_machine(name: str) -> None:
    path = FOLDER / f"{name}.ipynb"
    assert path.stat().st_size < 1_000_000
    notebook = stored(name)
    nbformat.validate(notebook)
    assert notebook.metadata.kernelspec.name == "python3"
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            texts = [output.get("text", ""), *map(str, output.get("data", {}).values())]
            for text in (text for text in texts if not text.startswith("iVBOR")):
                assert not [
                    word for word in ("/home/", "/tmp", "/root", "-packages") if word in text
                ]
                assert "Warning" not in text
