"""Make the notebooks of their sources anew, with outputs.

python notebooks/execute.py             all of them
python notebooks/execute.py 01_svi ...  some
"""

import os
import sys
import time
from pathlib import Path

import jupytext
import nbformat
from nbclient import NotebookClient

HERE = Path(__file__).parent
os.environ["PYTHONWARNINGS"] = "ignore:IProgress not found"  # tqdm's wish for widgets


def execute(source: Path) -> Path:
    """Run the cells of a ``.py`` and keep them with their outputs in the ``.ipynb`` beside."""
    notebook = jupytext.read(source)
    resources = {"metadata": {"path": str(HERE)}}
    NotebookClient(notebook, timeout=900, kernel_name="python3", resources=resources).execute()
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            if output.get("name") == "stderr":
                raise SystemExit(f"{source.name} has warnings: {output['text']}")
    for number, cell in enumerate(notebook.cells):
        cell["id"] = f"cell-{number}"  # the same at every execution
        cell["metadata"] = {}
    kept = ("kernelspec", "jupytext")
    notebook["metadata"] = {name: notebook["metadata"][name] for name in kept}
    target = source.with_suffix(".ipynb")
    partial = target.with_suffix(".partial")
    nbformat.write(notebook, partial)
    os.replace(partial, target)
    return target


def main() -> int:
    """Execute what was asked for."""
    chosen = sys.argv[1:] or sorted(path.stem for path in HERE.glob("[0-9]*.py"))
    for name in chosen:
        start = time.perf_counter()
        target = execute(HERE / f"{name}.py")
        size = target.stat().st_size / 1e6
        print(f"{target.name}: {time.perf_counter() - start:.0f} s, {size:.2f} MB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
