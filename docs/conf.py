"""How the site is built: `make docs`, without a network, every warning an error."""

import re
import shutil
import sys
import warnings
from pathlib import Path

import pyro_afslvm

HERE = Path(__file__).parent
ROOT = HERE.parent
sys.path.insert(0, str(HERE / "_ext"))


def _lines_of_parts() -> dict[str, int]:
    """Count the lines of docs/write_flow.md's parts, empty ones and imports left out."""
    text = (HERE / "write_flow.md").read_text()
    found = re.findall(r"^\((\w+)\)=$.*?```python\n(.*?)```", text, re.DOTALL | re.MULTILINE)
    return {
        part: sum(bool(re.match(r"(?!import |from )\s*\S", line)) for line in code.splitlines())
        for part, code in found
    }


# looking at every member touches old names, too
warnings.filterwarnings("ignore", r".* is now ", FutureWarning)

project = "pyro_afslvm"
author = "The pyro_afslvm authors"
version = release = pyro_afslvm.__version__

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "sphinx_copybutton",
    "sphinx_design",
    "equations",
    "everyday",
    "mathml",
]
exclude_patterns = ["_build"]
nitpicky = True
# types of other libraries: their inventories would have to be fetched
nitpick_ignore_regex = [
    (r"py:.*", r"(?!pyro_afslvm).*"),
]

myst_enable_extensions = ["amsmath", "colon_fence", "dollarmath", "deflist", "substitution"]
myst_substitutions = {f"lines_{part}": count for part, count in _lines_of_parts().items()}
myst_heading_anchors = 3
nb_execution_mode = "off"  # the stored outputs are shown; `make notebooks` runs them
nb_merge_streams = True

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
python_maximum_signature_line_length = 88
napoleon_use_ivar = True
napoleon_use_rtype = False

html_theme = "furo"
html_title = "pyro_afslvm"
html_show_copyright = False
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_math_renderer = "mathml"
copybutton_prompt_text = "$ "
templates_path: list[str] = []


def _copy_notebooks() -> None:
    """Sphinx reads nothing outside of its folder."""
    target = HERE / "notebooks"
    target.mkdir(exist_ok=True)
    stored = {path.name: path for path in (ROOT / "notebooks").glob("[0-9]*.ipynb")}
    for path in target.glob("*.ipynb"):
        if path.name not in stored:
            path.unlink()
    for name, path in stored.items():
        copy = target / name
        if not copy.exists() or copy.read_bytes() != path.read_bytes():
            shutil.copyfile(path, copy)


_copy_notebooks()
