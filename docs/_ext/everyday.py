"""The reference says each name once: under ``pyro_afslvm`` what users import from there."""

from typing import Any

import pyro_afslvm
from sphinx.application import Sphinx

EVERYDAY = {id(getattr(pyro_afslvm, name)) for name in pyro_afslvm.__all__}


def _skip(app: Sphinx, what: str, name: str, obj: Any, skip: bool, options: Any) -> bool | None:
    if what == "module" and id(obj) in EVERYDAY:
        here = app.env.current_document.autodoc_module
        return here != "pyro_afslvm" or skip
    return None


def setup(app: Sphinx) -> dict[str, bool]:
    """Leave a name out of the pages of packages if the page of everyday names has it."""
    app.connect("autodoc-skip-member", _skip)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
