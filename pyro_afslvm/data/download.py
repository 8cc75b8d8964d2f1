"""Downloads that go on where they were interrupted, checked against a hash."""

import http.client
import os
import re
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

Progress = Callable[[int, int], None]

_CHUNK = 1 << 18
_TIMEOUT = 30.0  # seconds without a byte


def download(address: str, folder: Path, known_hash: str | None) -> Path:
    """Fetch a file into a folder by pooch; a second call goes on where the first stopped.

    What has arrived is kept beside the target as ``.NAME.part``. A hash that is not known
    is noted in ``NAME.sha256`` by the first download and expected of later ones.

    Arguments:
        address: Of the file.
        folder: Where it goes, under its own name; a file that is there stays as it is.
        known_hash: Such as ``"sha256:..."``; ``None`` where none was ever published.

    Raises:
        FileNotFoundError: It could not be fetched; the message says what to do.
        ValueError: It was, but its hash is another.
    """
    import pooch

    name = address.rsplit("/", 1)[-1]
    file, note = folder / name, folder / f"{name}.sha256"
    if file.exists():
        return file  # never replace the user's file
    if known_hash is None and note.exists():
        known_hash = f"sha256:{note.read_text().split()[0]}"
    try:
        pooch.retrieve(
            address, known_hash, fname=name, path=folder, downloader=Resuming(folder / f".{name}")
        )
    except (OSError, ValueError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise FileNotFoundError(
            f"could not fetch {address} ({reason}); the same command goes on from here, or, "
            f"without a network, copy {name} to {folder} by hand"
        ) from error
    if known_hash is None:
        note.write_text(f"{pooch.file_hash(str(file))}  {name}\n")
    return file


class Resuming:
    """A downloader for pooch that asks for the rest of what it has.

    Arguments:
        part: Where to keep what has arrived, less the suffixes ``.part`` and ``.tag``.
        attempts: How often to ask without a new byte before giving up.
        pause: Seconds between attempts.
    """

    def __init__(self, part: Path, *, attempts: int = 3, pause: float = 1.0) -> None:
        self.part, self.tag = Path(f"{part}.part"), Path(f"{part}.tag")
        self.attempts, self.pause = attempts, pause

    def __call__(self, url: str, output_file: str, pooch: Any) -> None:
        """Fetch into ``output_file``, as pooch asks its downloaders to.

        Raises:
            OSError: The network fails, or another process fetches the same.
        """
        from pyro_afslvm.utils.progress import counting_bar

        with _locked(self.part) as part, counting_bar(f"fetching {url.rsplit('/', 1)[-1]}") as bar:
            failures = 0
            while True:
                before = part.seek(0, os.SEEK_END)
                try:
                    self._fetch(url, part, bar)
                    break
                except (OSError, http.client.HTTPException) as error:
                    if _is_final(error):
                        raise
                    failures = failures + 1 if part.tell() <= before else 1
                    if failures >= self.attempts:
                        raise ConnectionError(str(error) or type(error).__name__) from error
                    time.sleep(self.pause)
            os.replace(self.part, output_file)
        self.tag.unlink(missing_ok=True)

    def _fetch(self, url: str, part: IO[bytes], progress: Progress) -> None:
        """One request for the rest; all of it, if the server does not know the same file."""
        have = part.seek(0, os.SEEK_END)
        tag = self.tag.read_text() if self.tag.exists() else ""
        headers = {"Range": f"bytes={have}-", "If-Range": tag} if have and tag else {}
        request = urllib.request.Request(url, headers=headers)
        try:
            response = urllib.request.urlopen(request, timeout=_TIMEOUT)
        except urllib.error.HTTPError as error:
            error.close()
            if error.code != 416:
                raise
            part.truncate(0)  # it asked for more than there is: begin again
            raise ConnectionError("the part that was kept does not fit") from None
        with response:
            total = self._position(response, part)
            while chunk := response.read(_CHUNK):
                part.write(chunk)
                progress(part.tell(), total or part.tell())
            part.flush()
        if total is not None and part.tell() != total:
            raise ConnectionError(f"connection closed after {part.tell():,} of {total:,} bytes")

    def _position(self, response: Any, part: IO[bytes]) -> int | None:
        """Go to where the response begins; the size of the whole, where it is told."""
        found = re.fullmatch(r"bytes (\d+)-\d+/(\d+)", response.headers.get("Content-Range", ""))
        if response.status == 206 and found and int(found[1]) == part.tell():
            return int(found[2])
        part.seek(0)
        part.truncate()
        if response.status != 200:
            raise ConnectionError(f"unexpected answer {response.status} to a request for the rest")
        etag = response.headers.get("ETag") or ""
        strong = "" if etag.startswith("W/") else etag
        self.tag.write_text(strong or response.headers.get("Last-Modified") or "")
        length = response.headers.get("Content-Length")
        return None if length is None else int(length)


def _is_final(error: BaseException) -> bool:
    """Whether asking again would change nothing."""
    return isinstance(error, urllib.error.HTTPError) and 400 <= error.code < 500


@contextmanager
def _locked(path: Path) -> Iterator[IO[bytes]]:
    """The file, opened to be added to by this process alone."""
    with path.open("a+b") as file:
        try:
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except ImportError:  # no such locks on this system
            pass
        except OSError:
            raise ConnectionError(f"another process fetches into {path}") from None
        yield file
