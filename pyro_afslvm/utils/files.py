"""Files that are whole or not there."""

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file that is whole or not there.

    Raises:
        OSError: it cannot be written; the error has its name.
    """
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        partial.write_bytes(content)
        os.replace(partial, path)
    except OSError as error:
        if error.errno is None:
            raise
        # a full disk has no name of its own, a partial file one of no use
        raise OSError(error.errno, error.strerror, str(path)) from None
    finally:
        partial.unlink(missing_ok=True)


def shown(text: str) -> str:
    """Give a text that may hold names of files, whose bytes need not be of the locale, as Unicode.

    >>> shown("gr\\udcc3\\udcb6sse"), shown("gr\\udcf6sse")
    ('grösse', 'gr\ufffdsse')
    """
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write JSON that is whole or not there."""
    write_atomically(path, (json.dumps(content, indent=2, allow_nan=False) + "\n").encode())


@contextmanager
def locked(folder: Path) -> Iterator[bool]:
    """Hold a folder alone: another process waits; the system lets go when this one dies.

    Yields:
        Whether the lock works, which it does not on every disk.
    """
    with (folder / ".lock").open("w") as file:
        try:
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX)
        except (ImportError, OSError):  # no such locks here
            yield False
        else:
            yield True
