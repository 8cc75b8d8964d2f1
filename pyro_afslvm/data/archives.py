"""Unpacking of zip and tar archives."""

import os
import stat
import tarfile
import zipfile
import zlib
from gzip import BadGzipFile
from lzma import LZMAError
from pathlib import Path

from pyro_afslvm.moved import old_names
from pyro_afslvm.utils.errors import reason

# What the modules raise of a damaged, encrypted or unsafe archive.
_REFUSED = (
    *(tarfile.TarError, zipfile.BadZipFile, BadGzipFile, zlib.error, LZMAError),
    *(EOFError, RuntimeError),
)


class ArchiveError(ValueError):
    """An archive is damaged, or holds what is not unpacked."""


def unpack(archive: Path, target: Path, *, draft: Path, inner: str = "") -> None:
    """Unpack a zip or tar archive into a new folder, which is whole or not there.

    Nothing is written outside the folder, and links and devices are refused.

    Args:
        archive: The file; tar may be compressed.
        target: The folder to make.
        draft: A folder on the same disk, not there yet, where it is unpacked first.
        inner: Folder of the archive whose content is wanted; empty for all.

    Raises:
        ArchiveError: The archive is damaged, encrypted, or holds a link, a device or a name
            that leads out of it.
        OSError: The target is there already, or the disk is full.
    """
    try:
        if tarfile.is_tarfile(archive):
            if not hasattr(tarfile, "data_filter"):
                raise ArchiveError(f"{archive}: unpack it by hand, or use Python 3.11.4 or later")
            with tarfile.open(archive) as tar:
                tar.extractall(draft, filter=_plain)
        else:
            with zipfile.ZipFile(archive) as zipped:  # which keeps every name inside
                _check_kinds(zipped)
                zipped.extractall(draft)
        if not (draft / inner).is_dir():
            raise ArchiveError(f"{archive}: holds no folder {inner}")
        os.rename(draft / inner, target)
    except _REFUSED as error:
        said = f"{archive}: not a complete, safe zip or tar: {reason(error)}"
        raise ArchiveError(said) from error
    except OSError as error:
        said = f"{archive}: cannot be unpacked into {target}: {error.strerror or error}"
        raise OSError(error.errno, said) from error


def _check_kinds(zipped: zipfile.ZipFile) -> None:
    """Refuse links and devices, of which ``zipfile`` would make files that hold their targets."""
    for member in zipped.infolist():
        kind = stat.S_IFMT(member.external_attr >> 16)  # 0 where Unix did not write it
        if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
            raise zipfile.BadZipFile(f"{member.filename!r} is a link or a device")


def _plain(member: tarfile.TarInfo, path: str) -> tarfile.TarInfo | None:
    """Pass files and folders that stay inside; links have led around the filter before."""
    if member.issym() or member.islnk():
        raise tarfile.SpecialFileError(member)
    return tarfile.data_filter(member, path)


__getattr__ = old_names(__name__)
