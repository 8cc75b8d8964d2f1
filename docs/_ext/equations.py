"""``{lines}``: the source of an object, found by its name, so that a moved one stops the build."""

from docutils import nodes
from docutils.parsers.rst import directives
from source_lines import ROOT, source_of
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective


class Lines(SphinxDirective):
    """Show the lines of an object, with the file and line where they stand.

    ``:match:`` is text that the lines must hold, so that they still compute what is claimed.
    """

    required_arguments = 1
    option_spec = {"match": directives.unchanged_required}  # noqa: RUF012

    def run(self) -> list[nodes.Node]:
        try:
            source = source_of(self.arguments[0], self.options.get("match", ""))
        except LookupError as error:
            raise self.error(str(error)) from error
        self.env.note_dependency(str(ROOT / source.path))
        block = nodes.literal_block(source.code, source.code, language="python")
        place = nodes.literal("", f"{source.path}:{source.line}")
        wrapper = nodes.container("", nodes.caption("", "", place), block, literal_block=True)
        wrapper["classes"].append("literal-block-wrapper")
        return [wrapper]


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the directive."""
    app.add_directive("lines", Lines)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
