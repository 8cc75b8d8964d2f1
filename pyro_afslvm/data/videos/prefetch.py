"""Running a generator ahead of its use, in a thread."""

from collections import deque
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import Final, TypeVar

Item = TypeVar("Item")


class _End:
    """Marks the end, after the last item."""


_END: Final = _End()


def ahead(items: Generator[Item, None, None], *, depth: int = 2) -> Generator[Item, None, None]:
    """Yield the same items, of which ``depth`` are made in advance by another thread.

    An error comes out where its item would have come; closing this closes ``items``.

    Example:
        >>> list(ahead(i * i for i in range(4)))
        [0, 1, 4, 9]
    """
    pool = ThreadPoolExecutor(1, thread_name_prefix="ahead")
    with closing(items):
        try:
            made = deque(pool.submit(next, items, _END) for _ in range(depth))
            while not isinstance(item := made.popleft().result(), _End):
                made.append(pool.submit(next, items, _END))
                yield item
        finally:
            pool.shutdown(cancel_futures=True)
