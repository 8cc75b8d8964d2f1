"""Unpacking archives from the network: nothing outside the folder, no links, no bombs."""

import os
import shutil
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import IO, NamedTuple

_CHUNK = 1 << 20


class ArchiveError(ValueError):
    """An archive is damaged, or holds what is not unpacked."""


class _Member(NamedTuple):
    name: str
    size: int
    is_folder: bool
    kind: str  # "" for files and folders, else what it is
    open: object  # what the archive's own method to read it takes


def unpack(
    archive: Path,
    target: Path,
    *,
    inner: str | None = None,
    max_bytes: int = 16 << 30,
    max_members: int = 100_000,
) -> None:
    """Unpack a zip or tar archive into a new folder, which is whole or not there.

    Arguments:
        archive: The file; tar may be compressed.
        target: The folder to make; its parents are made too.
        inner: Folder of the archive whose content is wanted; ``None`` for all.
        max_bytes: Largest sum of the files' sizes, as declared and as they are.
        max_members: Largest number of files and folders.

    Raises:
        ArchiveError: It is damaged or too large, or a member is absolute, leaves the folder
            by ``..``, is a link or a device, is encrypted, or is there twice.
        FileExistsError: The target is there already.
        OSError: The disk is full, say; nothing is left behind.
    """
    if target.exists():
        raise FileExistsError(f"{target}: is there already, not unpacking {archive.name} into it")
    target.parent.mkdir(parents=True, exist_ok=True)
    _remove_abandoned(target)
    draft = target.with_name(f".{target.name}.{os.getpid()}.partial")
    draft.mkdir()
    try:
        with _opened(archive) as (members, read):
            _extract(archive, members, read, draft, max_bytes, max_members)
        if inner is not None and not (draft / inner).is_dir():
            raise ArchiveError(f"{archive}: holds no folder {inner}")
        os.rename(draft if inner is None else draft / inner, target)
    except OSError as error:
        reason = f"{archive}: cannot be unpacked into {target}: {error.strerror or error}"
        raise OSError(error.errno, reason) from error
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _extract(
    archive: Path,
    members: "Iterator[_Member]",
    read: "Reader",
    draft: Path,
    max_bytes: int,
    max_members: int,
) -> None:
    seen: set[PurePosixPath] = set()
    declared = written = 0
    for count, member in enumerate(members, 1):
        declared += member.size
        if count > max_members or declared > max_bytes:
            raise ArchiveError(
                f"{archive}: holds more than {max_members:,} members or {max_bytes:,} bytes"
            )
        name = _safe(archive, member)
        if name in seen and not member.is_folder:
            raise ArchiveError(f"{archive}: member {member.name!r} is there twice")
        seen.add(name)
        place = draft.joinpath(*name.parts)
        if member.is_folder:
            place.mkdir(parents=True, exist_ok=True)
            continue
        place.parent.mkdir(parents=True, exist_ok=True)
        with read(member) as source, place.open("xb") as file:
            written += _copy(archive, member, source, file, max_bytes - written)


def _copy(archive: Path, member: _Member, source: IO[bytes], file: IO[bytes], allowed: int) -> int:
    """Copy as much as the archive declares, which its directory may have lied about."""
    size = 0
    while chunk := source.read(_CHUNK):
        size += len(chunk)
        if size > min(member.size, allowed):
            raise ArchiveError(f"{archive}: member {member.name!r} is larger than declared")
        file.write(chunk)
    if size != member.size:
        raise ArchiveError(f"{archive}: member {member.name!r} is cut short")
    return size


def _safe(archive: Path, member: _Member) -> PurePosixPath:
    """The member's path, if it stays inside and is a plain file or folder."""
    name = PurePosixPath(member.name)
    odd = "\\" in member.name or "\0" in member.name or (name.parts and ":" in name.parts[0])
    if name.is_absolute() or ".." in name.parts or odd or (not name.parts and not member.is_folder):
        raise ArchiveError(f"{archive}: member {member.name!r} would leave the folder")
    if member.kind:
        raise ArchiveError(f"{archive}: member {member.name!r} is {member.kind}, not a plain file")
    return name


class Reader:
    """Opens members of one archive."""

    def __init__(self, archive: zipfile.ZipFile | tarfile.TarFile) -> None:
        self._archive = archive

    def __call__(self, member: _Member) -> IO[bytes]:
        """The member's bytes, as a file."""
        if isinstance(self._archive, zipfile.ZipFile):
            assert isinstance(member.open, zipfile.ZipInfo)
            return self._archive.open(member.open)
        assert isinstance(member.open, tarfile.TarInfo)
        file = self._archive.extractfile(member.open)
        assert file is not None  # links are refused before
        return file


@contextmanager
def _opened(archive: Path) -> Iterator[tuple[Iterator[_Member], Reader]]:
    """Members and their reader; whatever the modules say of damage as one kind of error."""
    try:
        if tarfile.is_tarfile(archive):
            with tarfile.open(archive, "r:*") as tar:
                yield (_of_tar(info) for info in tar), Reader(tar)
        else:
            with zipfile.ZipFile(archive) as opened:
                yield (_of_zip(info) for info in opened.infolist()), Reader(opened)
    except (zipfile.BadZipFile, tarfile.TarError, zlib.error, EOFError, NotImplementedError) as e:
        reason = str(e).splitlines()[0] if str(e) else type(e).__name__
        raise ArchiveError(f"{archive}: expected a complete zip or tar archive: {reason}") from e


def _of_zip(info: zipfile.ZipInfo) -> _Member:
    mode = info.external_attr >> 16
    kind = "encrypted" if info.flag_bits & 1 else ""
    if stat.S_IFMT(mode) not in (0, stat.S_IFREG, stat.S_IFDIR):
        kind = "a link" if stat.S_ISLNK(mode) else "a device"
    return _Member(info.orig_filename, info.file_size, info.is_dir(), kind, info)


def _of_tar(info: tarfile.TarInfo) -> _Member:
    link = "a link" if info.issym() or info.islnk() else "a device"
    kind = "" if info.isreg() or info.isdir() else link
    return _Member(info.name, info.size, info.isdir(), kind, info)


def _remove_abandoned(target: Path) -> None:
    """Drafts of processes that were killed."""
    for draft in target.parent.glob(f".{target.name}.*.partial"):
        pid = draft.name.split(".")[-2]
        if pid.isdigit() and not _is_alive(int(pid)):
            shutil.rmtree(draft, ignore_errors=True)


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True
