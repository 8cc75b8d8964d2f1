"""Results on disk: whole, of this version, or refused in one line."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr

from pyro_afslvm import FlowModel, MLPConditioner, TemporalAffine
from pyro_afslvm.results import infer, load, save
from tests.support.processes import run_python

SUFFIXES = pytest.mark.parametrize("suffix", [".nc", ".zarr"])


@pytest.fixture
def tree() -> xr.DataTree:
    model = FlowModel(TemporalAffine(MLPConditioner(2, window=2)), (2,))
    lengths = torch.tensor([6, 4, 5])
    return infer(model, None, torch.randn(3, 6, 2), num_samples=4, horizon=2, lengths=lengths)


def holds(path: Path, expected: xr.DataTree) -> bool:
    with load(path) as stored:
        return bool(stored.load().identical(expected))


def corrupted(tree: xr.DataTree, change: Callable[[xr.DataTree], Any], path: Path) -> None:
    """Store a changed tree, past the checks."""
    changed = tree.copy(deep=True)
    result = change(changed)
    changed = result if isinstance(result, xr.DataTree) else changed
    if path.suffix == ".nc":
        changed.to_netcdf(path, engine="h5netcdf")
    else:
        changed.to_zarr(path, consolidated=False)


@SUFFIXES
def test_what_is_stored_comes_back(tree: xr.DataTree, tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"results{suffix}"
    save(tree, path)
    assert holds(path, tree)
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


@SUFFIXES
def test_arrays_are_read_when_they_are_used(tree, tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"results{suffix}"
    save(tree, str(path))
    with load(str(path)) as stored:
        future = stored["posterior_predictive/x_future"]
        assert not future.variable._in_memory
        piece = future.isel(draw=1, sequence=2)
        np.testing.assert_array_equal(
            piece, tree["posterior_predictive/x_future"].isel(draw=1, sequence=2)
        )
        assert not future.variable._in_memory
        assert stored["log_likelihood/x_step"].isnull().sum() == 3 * 4


@SUFFIXES
def test_new_results_replace_old_ones(tree, tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"results{suffix}"
    save(tree, path)
    other = tree.isel(draw=slice(2))
    save(other, path)
    assert holds(path, other)
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_results_may_be_stored_over_the_file_they_come_from(tree, tmp_path: Path) -> None:
    path = tmp_path / "results.nc"
    save(tree, path)
    with load(path) as stored:
        save(stored, path)
    assert holds(path, tree)


@SUFFIXES
@pytest.mark.parametrize("error", [OSError("no space left on device"), KeyboardInterrupt()])
def test_failed_writing_leaves_the_old_results(
    tree, tmp_path: Path, suffix: str, error: BaseException, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / f"results{suffix}"
    save(tree, path)
    name = "to_netcdf" if suffix == ".nc" else "to_zarr"
    write = getattr(xr.DataTree, name)

    def fail(self: xr.DataTree, target: Path, **options: Any) -> None:
        write(self.isel(draw=slice(1)), target, **options)
        raise error

    monkeypatch.setattr(xr.DataTree, name, fail)
    with pytest.raises(type(error)):
        save(tree, path)
    with pytest.raises(type(error)):
        save(tree, tmp_path / f"new{suffix}")
    assert holds(path, tree)
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_folder_that_cannot_move_in_leaves_the_old_one(
    tree, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "results.zarr"
    save(tree, path)
    rename = os.rename

    def fail(source: Path, target: Path) -> None:
        if Path(source).name == "new":
            raise OSError("cannot move")
        rename(source, target)

    monkeypatch.setattr(os, "rename", fail)
    with pytest.raises(OSError, match="cannot move"):
        save(tree, path)
    monkeypatch.undo()
    assert holds(path, tree)


KILLED = """
import os, signal, sys
import xarray as xr
from pyro_afslvm.results import load, save

path, moment = sys.argv[1:]
tree = load(path).load().isel(draw=slice(1))

def die(*arguments, **options):
    os.kill(os.getpid(), signal.SIGKILL)

if moment == "writing":
    from xarray.backends import h5netcdf_, zarr

    stores = h5netcdf_.H5NetCDFStore, zarr.ZarrStore
    started = []
    for store in stores:  # the second group is never written
        store.set_attributes = lambda *a, **o: die() if started else started.append(1)
else:
    def at_last(move):  # the libraries move files of their own before
        return lambda a, b: die() if os.path.basename(a) == "new" else move(a, b)
    os.rename, os.replace = at_last(os.rename), at_last(os.replace)
save(tree, path)
"""


def kill(path: Path, moment: str) -> None:
    run_python("-c", KILLED, str(path), moment, expect=-9)


@pytest.mark.parametrize(
    ("suffix", "moment"), [(".nc", "writing"), (".zarr", "writing"), (".nc", "moving")]
)
def test_killed_while_writing(tree, tmp_path: Path, suffix: str, moment: str) -> None:
    path = tmp_path / f"results{suffix}"
    save(tree, path)
    kill(path, moment)
    assert holds(path, tree)
    save(tree.isel(draw=slice(3)), path)
    assert holds(path, tree.isel(draw=slice(3)))


def test_killed_between_the_two_moves_of_a_folder(tree, tmp_path: Path) -> None:
    path = tmp_path / "results.zarr"
    save(tree, path)
    kill(path, "moving")
    with pytest.raises(FileNotFoundError, match="the old ones are in") as error:
        load(path)
    old = Path(str(error.value).split(" are in ")[1])
    old.rename(path)
    assert holds(path, tree)


# ---- refusals ----


CHANGES = {
    "unknown groups: prior": lambda t: t.assign({"prior": xr.DataTree(xr.Dataset())}),
    "unknown groups: sample_stats/more": lambda t: t["sample_stats"].update(
        {"more": xr.DataTree(xr.Dataset({"a": 1}))}
    ),
    "unknown dimensions: instant": lambda t: t.update(
        {"observed_data": xr.DataTree(xr.Dataset({"y": ("instant", [1.0])}))}
    ),
    "lacks the attributes protocol": lambda t: t.attrs.pop("protocol"),
    "lacks the attributes format, versions": lambda t: [
        t.attrs.pop(name) for name in ("format", "versions")
    ],
    "is of format 2, this version reads 1": lambda t: t.attrs.update(format=2),
    "has a damaged attribute protocol": lambda t: t.attrs.update(protocol="{half"),
    "has a damaged attribute versions": lambda t: t.attrs.update(versions="3"),
}


@SUFFIXES
@pytest.mark.parametrize("message", CHANGES)
def test_what_is_no_tree_of_results(tree, tmp_path: Path, suffix: str, message: str) -> None:
    path = tmp_path / f"results{suffix}"
    corrupted(tree, CHANGES[message], path)
    with pytest.raises(ValueError, match=message) as error:
        load(path)
    assert str(error.value).startswith(str(path))
    assert "\n" not in str(error.value)
    changed = xr.open_datatree(path, **({"consolidated": False} if suffix == ".zarr" else {}))
    with changed, pytest.raises(ValueError, match=message):
        save(changed, tmp_path / "new.nc")
    assert not (tmp_path / "new.nc").exists()


def test_latents_of_other_sites_are_known(tree, tmp_path: Path) -> None:
    more = xr.Dataset({"w": (("chain", "draw", "latent_w"), np.zeros((1, 4, 2)))})
    path = tmp_path / "results.nc"
    save(tree.assign(posterior=xr.DataTree(more)), path)
    with load(path) as stored:
        assert stored["posterior/w"].shape == (1, 4, 2)


def test_damaged_files(tree, tmp_path: Path) -> None:
    path = tmp_path / "results.nc"
    save(tree, path)
    whole = path.read_bytes()
    for content in (whole[: len(whole) // 2], b"", b"text"):
        path.write_bytes(content)
        with pytest.raises(ValueError, match="cannot be read") as error:
            load(path)
        assert "\n" not in str(error.value)
    folder = tmp_path / "results.zarr"
    folder.mkdir()
    with pytest.raises(ValueError, match=r"results\.zarr cannot be read") as error:
        load(folder)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["results", "results.json", "results.nc.gz"])
def test_names_that_say_no_format(tree, tmp_path: Path, name: str) -> None:
    for use in (lambda path: save(tree, path), load):
        with pytest.raises(ValueError, match=r"^results are stored as \.nc or \.zarr, not as"):
            use(tmp_path / name)


@SUFFIXES
def test_nothing_there(tree, tmp_path: Path, suffix: str) -> None:
    with pytest.raises(FileNotFoundError, match=r"^there are no results .*missing"):
        load(tmp_path / f"missing{suffix}")
    with pytest.raises(FileNotFoundError, match=r"^there is no folder .*missing to write"):
        save(tree, tmp_path / "missing" / f"results{suffix}")


def test_what_is_in_the_way_stays(tree, tmp_path: Path) -> None:
    folder, file = tmp_path / "mine.zarr", tmp_path / "other.zarr"
    folder.mkdir()
    (folder / "letters.txt").write_text("dear")
    file.write_text("dear")
    (tmp_path / "mine.nc").mkdir()
    for path in (folder, file, tmp_path / "mine.nc"):
        with pytest.raises(ValueError, match="is in the way"):
            save(tree, path)
    assert (folder / "letters.txt").read_text() == file.read_text() == "dear"


def test_reading_needs_no_torch(tree, tmp_path: Path) -> None:
    path = tmp_path / "results.nc"
    save(tree, path)
    program = """
import sys
from pyro_afslvm.results import load, to_arviz
with load(sys.argv[1]) as tree:
    print(sorted(to_arviz(tree)["log_likelihood"].data_vars))
    print(sorted({"torch", "pyro"} & set(sys.modules)))
"""
    printed = run_python("-c", program, str(path)).stdout
    assert printed.split("\n")[:2] == ["['x']", "[]"]
