"""Tables as text: aligned, and the same on every terminal."""

import pytest

from pyro_afslvm.utils.tables import table_text

ROWS = [["1-AF", "-2.94 ± 0.01*"], ["SLVM w/ 1-AF", "-12.3 "], ["x"]]


def test_columns_line_up() -> None:
    assert table_text(ROWS, head=["model", "nats\nper dim"], rules=[1]).splitlines() == [
        "                        nats",
        "model                per dim",
        "────────────────────────────",
        "1-AF           -2.94 ± 0.01*",
        "SLVM w/ 1-AF          -12.3",
        "────────────────────────────",
        "x",
    ]


def test_without_a_head() -> None:
    assert table_text([["a", "1"], ["b", "22"]], left=()).splitlines() == ["a    1", "b   22"]
    assert table_text([["a", "1"], ["b", "22"]], left=(0, 1)).splitlines() == ["a   1", "b   22"]
    assert table_text([]) == ""


@pytest.mark.parametrize("columns", ["5", "500"])
def test_the_terminal_has_no_say(columns: str, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = table_text(ROWS)
    monkeypatch.setenv("COLUMNS", columns)
    monkeypatch.setenv("FORCE_COLOR", "1")
    assert table_text(ROWS) == expected


def test_nothing_is_wrapped_or_taken_for_markup() -> None:
    long = "word " * 60 + "[bold]end[/bold] :smile:"
    assert table_text([[long, "1"]]) == f"{long}   1"
