"""Work that runs ahead of its use."""

import threading
from collections.abc import Iterator

import pytest

from pyro_afslvm.data.videos.prefetch import ahead


def test_ahead_keeps_order_and_errors() -> None:
    def items() -> Iterator[int]:
        yield from range(5)
        raise ValueError("no more")

    made = ahead(items())  # type: ignore[arg-type]
    assert [next(made) for _ in range(5)] == list(range(5))
    with pytest.raises(ValueError, match="no more"):
        next(made)


def test_ahead_stops_when_it_is_left() -> None:
    before, closed = threading.active_count(), []

    def items() -> Iterator[int]:
        try:
            yield from range(10**9)
        finally:
            closed.append(True)

    made = ahead(items(), depth=3)  # type: ignore[arg-type]
    assert [next(made) for _ in range(4)] == [0, 1, 2, 3]
    made.close()  # type: ignore[attr-defined]
    assert closed == [True]
    assert threading.active_count() == before
