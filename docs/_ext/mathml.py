"""Formulas as MathML, which browsers draw by themselves: no script, no fonts, no network."""

import re
from typing import Any

from docutils import nodes
from latex2mathml.converter import convert
from sphinx.application import Sphinx

_TIGHT = r'\1<mo form="prefix" lspace="0" rspace="0">\2</mo>'


def to_mathml(formula: str, display: str) -> str:
    """Convert LaTeX; lines with ``&`` and ``\\\\`` become a table."""
    formula = re.sub(r"\\(begin|end)\{(aligned|align|split|gather)\*?\}", "", formula).strip()
    formula = re.sub(r"\\(Bigl|Bigr|bigl|bigr|Big|big|nolimits)(?![A-Za-z])", "", formula)
    if re.search(r"(?<!\\)&|\\\\", formula):
        formula = rf"\begin{{align*}} {formula} \end{{align*}}"
    mathml: str = convert(formula, display=display)
    # "before t" is a sign, not a comparison with the space of one
    return re.sub(r"(<mrow>)<mo>(&#x0003C;|&#x02264;|&#x0003E;)</mo>", _TIGHT, mathml)


def _inline(self: Any, node: nodes.math) -> None:
    self.body.append(to_mathml(node.astext(), "inline"))
    raise nodes.SkipNode


def _block(self: Any, node: nodes.math_block) -> None:
    self.body.append(self.starttag(node, "div", CLASS="math"))
    self.body.append(to_mathml(node.astext(), "block"))
    if node["number"]:
        self.body.append(f'<span class="eqno">({node["number"]})</span>')
    self.body.append("</div>")
    raise nodes.SkipNode


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the renderer."""
    app.add_html_math_renderer("mathml", (_inline, None), (_block, None))
    return {"parallel_read_safe": True, "parallel_write_safe": True}
