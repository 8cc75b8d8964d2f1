"""The reference says each name once: under ``pyro_afslvm`` what users import from there."""

import inspect
import re
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
    if node.get("refdomain") != "py":
        return None
    target, module = str(node.get("reftarget", "")), node.get("py:module")
    near = [f"{module}.{target}"] if module else []
    for name in [target, *near]:
        if not name.startswith("pyro_afslvm."):
            continue
        try:
            known = EVERYDAY.get(id(_found(name)))
        except AttributeError:
            continue
        return content if known is None else _to_everyday(app, env, node, content, known)
    return None  # no such name: the build fails


def _to_everyday(
    app: Sphinx,
    env: BuildEnvironment,
    node: nodes.Element,
    content: nodes.TextElement,
    name: str,
) -> nodes.Element | None:
    found = env.domains.python_domain.resolve_any_xref(
        env, node["refdoc"], app.builder, f"pyro_afslvm.{name}", node, content
    )
    return found[0][1] if found else None


def _plain_fields(
    app: Sphinx, what: str, name: str, obj: Any, options: Any, lines: list[str]
) -> None:
    if lines and lines[0].startswith("Alias for field number"):
        lines.clear()


def _back_to_reference(
    app: Sphinx, page: str, template: str, context: dict[str, Any], doctree: Any
) -> None:
    """Source pages lead back to names as the reference has them, not as their first neighbour."""
    if not page.startswith("_modules/pyro_afslvm"):
        return
    objects = app.env.domains.python_domain.objects
    module = page.removeprefix("_modules/").replace("/", ".")
    packages = [module.rsplit(".", up)[0] for up in range(module.count(".") + 1)]

    def corrected(link: re.Match[str]) -> str:
        found = [f"{package}.{link[2]}" for package in (link[1], *packages)]
        return next((f"#{objects[name].node_id}" for name in found if name in objects), link[0])

    wrong = re.compile(r"#(pyro_afslvm(?:\.[a-z]\w*)*)\.(\w+(?:\.\w+)?)(?=\")")
    context["body"] = wrong.sub(corrected, context["body"])


def setup(app: Sphinx) -> dict[str, bool]:
    """Leave a name out of the pages of packages if the page of everyday names has it."""
    app.connect("autodoc-skip-member", _skip)
    app.connect("missing-reference", _resolve)
    app.connect("html-page-context", _back_to_reference)
    app.connect("autodoc-process-docstring", _plain_fields)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
