"""The reference says each name once: under ``pyro_afslvm`` what users import from there."""

import inspect
from importlib import import_module
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment

import pyro_afslvm

EVERYDAY = {id(getattr(pyro_afslvm, name)): name for name in pyro_afslvm.__all__}


def _skip(app: Sphinx, what: str, name: str, obj: Any, skip: bool, options: Any) -> bool | None:
    if what == "module" and id(obj) in EVERYDAY:
        here = app.env.current_document.autodoc_module
        return here != "pyro_afslvm" or skip
    return None


def _found(target: str) -> Any:
    """Import a module, or a member of one or of its class."""
    try:
        return import_module(target)
    except ImportError:
        owner, _, name = target.rpartition(".")
        return inspect.getattr_static(_found(owner), name) if owner else None


def _resolve(
    app: Sphinx, env: BuildEnvironment, node: nodes.Element, content: nodes.TextElement
) -> nodes.Element | None:
    """Link an everyday name to its page; leave an inner one as text, if it exists at all."""
    target = str(node.get("reftarget", ""))
    if node.get("refdomain") != "py" or not target.startswith("pyro_afslvm."):
        return None
    try:
        known = EVERYDAY.get(id(_found(target)))
    except AttributeError:
        return None  # no such name: the build fails
    if known is None:
        return content
    found = env.domains.python_domain.resolve_any_xref(
        env, node["refdoc"], app.builder, f"pyro_afslvm.{known}", node, content
    )
    return found[0][1] if found else None


def setup(app: Sphinx) -> dict[str, bool]:
    """Leave a name out of the pages of packages if the page of everyday names has it."""
    app.connect("autodoc-skip-member", _skip)
    app.connect("missing-reference", _resolve)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
