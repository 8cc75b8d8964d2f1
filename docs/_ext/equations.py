"""``{lines}``: the source of an object, found by its name, so that a moved one stops the build."""

import inspect
from importlib import import_module
from pathlib import Path
from typing import Any

from docutils import nodes
from docutils.parsers.rst import directives
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

ROOT = Path(__file__).parents[2]


def find(name: str) -> Any:
    """Import what ``package.module:Class.method`` names."""
    module, _, path = name.partition(":")
    found: Any = import_module(module)
    for part in path.split("."):
        found = inspect.getattr_static(found, part)
    if isinstance(found, property):
        found = found.fget
    return inspect.unwrap(found)


def without_docstring(lines: list[str], obj: Any) -> list[str]:
    """Leave out the docstring of a function or class: the formula stands above."""
    text = "".join(lines)
    doc = obj.__doc__
    if doc is None:
        return lines
    for quotes in ('r"""', '"""'):
        start = text.find(quotes)
        if start >= 0:
            end = text.index('"""', start + len(quotes)) + 3
            return (text[:start].rstrip() + "\n" + text[end:].lstrip("\n")).splitlines(True)
    return lines


class Lines(SphinxDirective):
    """Show the lines of an object, with the file and line where they stand.

    ``:match:`` is text that the lines must hold, so that they still compute what is claimed.
    """

    required_arguments = 1
    option_spec = {"match": directives.unchanged_required}  # noqa: RUF012

    def run(self) -> list[nodes.Node]:
        name = self.arguments[0]
        try:
            obj = find(name)
            lines, first = inspect.getsourcelines(obj)
            path = Path(inspect.getsourcefile(obj) or "").relative_to(ROOT)
        except (ImportError, AttributeError, OSError, TypeError, ValueError) as error:
            raise self.error(f"{name} is not where this page says: {error}") from error
        code = inspect.cleandoc("\n" + "".join(without_docstring(lines, obj)))
        wanted = self.options.get("match", "")
        if wanted not in code:
            raise self.error(f"{name} does not say {wanted!r} any more")
        self.env.note_dependency(str(ROOT / path))
        block = nodes.literal_block(code, code, language="python")
        caption = nodes.caption("", "", nodes.literal("", f"{path}:{first}"))
        wrapper = nodes.container("", caption, block, literal_block=True)
        wrapper["classes"].append("literal-block-wrapper")
        return [wrapper]


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the directive."""
    app.add_directive("lines", Lines)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
