"""Downloads by pooch, checked against a hash and shown by a progress bar."""

import os
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from pyro_afslvm.moved import old_names
from pyro_afslvm.utils.errors import reason

_CHUNK = 1 << 20


def download(address: str, folder: Path, known_hash: str | None, *, draft: Path) -> Path:
    """Fetch a file into a folder, where it is whole or not there.

    A hash that is not known is noted in ``NAME.sha256`` by the first download and expected
    of later ones. A download that breaks off begins anew: pooch cannot go on.

    Args:
        address: Of the file.
        folder: Where it goes, under its own name; a file that is there stays as it is.
        known_hash: Such as ``"sha256:..."``; ``None`` where none was ever published.
        draft: A folder on the same disk, where it arrives.

    Raises:
        FileNotFoundError: It could not be fetched, or its hash is another; the message says
            what to do.
    """
    import pooch

    from pyro_afslvm.utils.progress import counting_bar

    name = address.rsplit("/", 1)[-1]
    file, note = folder / name, folder / f"{name}.sha256"
    if file.exists():
        return file  # never replace the user's file
    if known_hash is None and note.exists():
        known_hash = f"sha256:{note.read_text().split()[0]}"
    pooch.get_logger().setLevel("WARNING")  # the bar says it
    try:
        with counting_bar(f"fetching {name}") as report, ExitStack() as connections:
            fetch = pooch.HTTPDownloader(
                progressbar=_Bar(report),
                chunk_size=_CHUNK,
                # pooch leaves the answer of a request that fails open
                hooks={"response": lambda answer, **_: connections.enter_context(answer)},
            )
            pooch.retrieve(address, known_hash, fname=name, path=draft, downloader=fetch)
        os.replace(draft / name, file)
    except (OSError, ValueError) as error:
        raise FileNotFoundError(
            f"could not fetch {address} ({reason(error)}); without a network, copy {name} to "
            f"{folder} by hand"
        ) from error
    if known_hash is None:
        note.write_text(f"{pooch.file_hash(str(file))}  {name}\n")
    return file


class _Bar:
    """A progress bar with the methods that pooch calls.

    Args:
        report: Called with the bytes that are done, and with all.
    """

    total = 0

    def __init__(self, report: Callable[[int, int], None]) -> None:
        self._report, self._done = report, 0

    def update(self, count: int) -> None:
        """Add bytes; pooch counts the last piece as a full one."""
        self._done = min(self._done + count, self.total or self._done + count)
        self._report(self._done, self.total or self._done)

    def reset(self) -> None:
        """Begin at zero."""
        self._done = 0

    def close(self) -> None:
        """End; the bar is closed by whoever opened it."""


__getattr__ = old_names(__name__)
