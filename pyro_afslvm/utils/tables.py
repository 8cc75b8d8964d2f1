"""Tables as text."""

from collections.abc import Collection, Sequence
from io import StringIO
from itertools import zip_longest

from rich.box import Box
from rich.console import Console
from rich.table import Table
from rich.text import Text

_WIDEST = 10_000  # nothing is wrapped
_RULES = Box("    \n    \n ── \n    \n ── \n ── \n    \n    \n")  # below the head, between sections
_SOLID = "\ue000"  # for spaces: rich takes those at the end of a cell off


def table_text(
    rows: Sequence[Sequence[str]],
    *,
    head: Sequence[str] = (),
    rules: Collection[int] = (),
    left: Collection[int] = (0,),
) -> str:
    """Lay out texts in aligned columns, as wide as they need to be whatever the terminal.

    Args:
        rows: the cells of each row; a short row is empty at its end.
        head: names of the columns, of several lines each if they have line breaks.
        rules: numbers of the rows below which a rule is drawn.
        left: numbers of the columns whose texts start at one place; those of others end there.

    >>> print(table_text([["1-AF", "-2.94"], ["SLVM", "-12.3"]], head=["model", "nats/dim"]))
    model   nats/dim
    ────────────────
    1-AF       -2.94
    SLVM       -12.3
    """
    table = Table(box=_RULES, show_edge=False, pad_edge=False, show_header=bool(head))
    for i, name in zip_longest(range(max(map(len, [head, *rows]))), head, fillvalue=""):
        table.add_column(
            _cell(str(name)),
            justify="left" if i in left else "right",
            vertical="bottom",
            no_wrap=True,
        )
    for i, row in enumerate(rows):
        table.add_row(*map(_cell, row), end_section=i in rules)
    page = StringIO()
    console = Console(file=page, width=_WIDEST, color_system=None, force_jupyter=False)
    console.print(table)
    lines = page.getvalue().replace(_SOLID, " ").splitlines()
    return "\n".join(line.rstrip() for line in lines)


def _cell(text: str) -> Text:
    return Text(text.replace(" ", _SOLID))  # a str would be markup
