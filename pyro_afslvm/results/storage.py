"""Results on disk: netCDF or zarr, whole or not there."""

import importlib.util
import json
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from types import NoneType
from typing import Any

import xarray as xr

from pyro_afslvm.results.tree import FORMAT, GROUPS

DIMS = {
    "chain",
    "draw",
    "sequence",
    "time",
    "time_context",
    "time_future",
    "channel",
    "height",
    "width",
    "feature",
    "latent",
}
_ENGINES: Mapping[str, dict[str, Any]] = {
    ".nc": {"engine": "h5netcdf"},
    ".zarr": {"engine": "zarr", "consolidated": False},
}


def save(tree: xr.DataTree, path: str | Path) -> None:
    """Write results to a netCDF file or a zarr folder.

    They are written beside and moved into place when they are whole; what was there before
    stays until then. Replacing a zarr folder takes two moves: should the program be killed
    between them, the old folder is found beside, in ``.NAME.*/old``.

    Args:
        tree: results from :func:`~pyro_afslvm.results.infer`.
        path: ends in ``.nc`` or ``.zarr``.

    Raises:
        FileNotFoundError: there is no folder to write in.
        ValueError: the name ends otherwise, the tree is not one of results, or something
            else than results of this kind is in the way.
        ModuleNotFoundError: zarr is not installed.
    """
    path = Path(path)
    suffix = _suffix(path)
    _check(tree, "the tree")
    if not path.parent.is_dir():
        raise FileNotFoundError(f"there is no folder {path.parent} to write {path.name} in")
    _check_replaceable(path)
    with tempfile.TemporaryDirectory(prefix=f".{path.name}.", dir=path.parent) as folder:
        new, old = Path(folder) / "new", Path(folder) / "old"
        if suffix == ".nc":
            tree.to_netcdf(new, engine="h5netcdf")
            os.replace(new, path)
        else:
            tree.to_zarr(new, consolidated=False)
            _exchange(new, path, old)


def load(path: str | Path) -> xr.DataTree:
    """Open stored results; arrays are read when they are used.

    Close the tree, or use it in a ``with`` statement, to let go of the file. A tree opened
    from a zarr folder goes with the folder: do not replace that while the tree is in use.

    Args:
        path: ends in ``.nc`` or ``.zarr``.

    Raises:
        FileNotFoundError: there is nothing of this name.
        ValueError: the name ends otherwise, or what is there is damaged, of another version,
            or no results: unknown groups or dimensions, no protocol, no versions.
        ModuleNotFoundError: zarr is not installed.
    """
    path = Path(path)
    suffix = _suffix(path)
    if not path.exists():
        left = sorted(path.parent.glob(f".{path.name}.*/old"))
        hint = f"; replacing it was interrupted, the old ones are in {left[0]}" if left else ""
        raise FileNotFoundError(f"there are no results {path}{hint}")
    try:
        tree = xr.open_datatree(path, **_ENGINES[suffix])
    except Exception as error:
        reason = (" ".join(str(error).split()) or type(error).__name__)[:160]
        raise ValueError(f"{path} cannot be read: {reason}") from None
    try:
        _check(tree, str(path))
    except ValueError:
        tree.close()
        raise
    return tree


def _suffix(path: Path) -> str:
    if path.suffix not in _ENGINES:
        raise ValueError(f"results are stored as .nc or .zarr, not as {path.name!r}")
    if path.suffix == ".zarr" and importlib.util.find_spec("zarr") is None:
        raise ModuleNotFoundError(f"{path.name} needs zarr: pip install 'pyro-afslvm[zarr]'")
    return path.suffix


def _check_replaceable(path: Path) -> None:
    if not path.exists():
        return
    if path.suffix == ".nc" and not path.is_file():
        raise ValueError(f"{path} is in the way: it is no file")
    if path.suffix == ".zarr" and not any((path / n).exists() for n in ("zarr.json", ".zgroup")):
        raise ValueError(f"{path} is in the way: it is no zarr folder")


def _exchange(new: Path, path: Path, old: Path) -> None:
    if path.exists():
        os.rename(path, old)
    try:
        os.rename(new, path)
    except OSError:
        if old.exists():
            os.rename(old, path)
        raise


def _check(tree: xr.DataTree, name: str) -> None:
    """Refuse anything but a tree of results of this version."""
    groups = {node.path.lstrip("/") for node in tree.subtree} - {""}
    if unknown := sorted(groups - set(GROUPS)):
        raise ValueError(f"{name} has unknown groups: {', '.join(unknown)}")
    dims = {str(dim) for node in tree.subtree for dim in node.dims}
    if unknown := sorted(dim for dim in dims - DIMS if not dim.startswith("latent_")):
        raise ValueError(f"{name} has unknown dimensions: {', '.join(unknown)}")
    if missing := sorted({"format", "protocol", "versions"} - set(tree.attrs)):
        raise ValueError(f"{name} lacks the attributes {', '.join(missing)}")
    if tree.attrs["format"] != FORMAT:
        raise ValueError(f"{name} is of format {tree.attrs['format']}, this version reads {FORMAT}")
    for attribute in ("protocol", "versions"):
        if not _is_json(tree.attrs[attribute]):
            raise ValueError(f"{name} has a damaged attribute {attribute}")


def _is_json(text: object) -> bool:
    try:
        return isinstance(json.loads(str(text)), dict | NoneType)
    except ValueError:
        return False
