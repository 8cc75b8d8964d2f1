"""Arrays in files and in memory: what is read, how it is split, and what is refused."""

import json
import pickle
import re
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
import xarray as xr
import zarr
from torch.utils.data import DataLoader

from pyro_afslvm.data import Arrays, source_from_config
from pyro_afslvm.data.arrays.reader import ArrayReader, dimensions
from pyro_afslvm.data.registry import guess_source

SPLITS = ("train", "validation", "test")
VECTORS = ("sequence", "time", "feature")
FRAMES = ("sequence", "time", "channel", "height", "width")


def vectors(count: int, length: int, size: int = 3, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(2.0, 5.0, size=(count, length, size))


def pictures(count: int, length: int, channels: int = 1) -> np.ndarray:
    rng = np.random.default_rng(1)
    return rng.integers(256, size=(count, length, channels, 8, 16), dtype=np.uint8)


def numbered(count: int, length: int) -> np.ndarray:
    """Vectors (sequence, time), plus less than one, that tell where they are from."""
    i, t = np.meshgrid(np.arange(count), np.arange(length), indexing="ij")
    places = np.stack([i, t], -1)
    return (places + np.random.default_rng(0).uniform(0.1, 0.9, places.shape)).astype(np.float32)


def labelled(values: np.ndarray, order: tuple[str, ...] | None = None) -> xr.DataArray:
    dims = FRAMES if values.ndim == 5 else VECTORS
    array = xr.DataArray(values, dims=dims, name="values")
    return array.transpose(*order) if order else array


def stored(values: np.ndarray, path: Path) -> Path:
    """The array in the format the path asks for, with named dimensions where there are any."""
    array = labelled(values).transpose(*reversed(labelled(values).dims))  # another order
    if path.suffix == ".npy":
        np.save(path, values)
    elif path.suffix == ".npz":
        np.savez_compressed(path, values=values)
    elif path.name == "plain.zarr":
        zarr.save_array(path, values)
    elif path.suffix == ".zarr":
        array.to_dataset().to_zarr(path, zarr_format=3, consolidated=False)
    elif path.suffix == ".nc":
        array.to_netcdf(path, engine="h5netcdf")
    return path


FORMATS = ["a.npy", "a.npz", "plain.zarr", "a.zarr", "a.nc"]


def windows(source: Arrays, split: str, num_frames: int) -> np.ndarray:
    return torch.stack(list(source.dataset(split, num_frames=num_frames))).numpy()  # type: ignore[arg-type]


# ---- reading ----


@pytest.mark.parametrize("name", FORMATS)
def test_every_format(tmp_path: Path, name: str) -> None:
    (tmp_path / "vectors").mkdir()
    values = vectors(12, 40)
    source = Arrays(path=str(stored(values, tmp_path / "vectors" / name)))
    assert source.frame_shape == (3,)
    assert source.dequantization == "none"
    data = source.dataset("test", num_frames=40)
    assert data[0].dtype == torch.float32
    found = {i for i in range(12) if any(np.array_equal(values[i].astype("f4"), y) for y in data)}
    assert len(found) == len(data) == 2
    values = pictures(3, 50, 3)
    source = Arrays(path=str(stored(values, tmp_path / name)))
    assert source.frame_shape == (3, 8, 16)
    assert source.dequantization == "gaussian"
    x = windows(source, "test", 5)
    assert x.dtype == np.uint8
    assert np.array_equal(x, values[:, 40:].reshape(6, 5, 3, 8, 16))


def test_formats_of_one_content_are_described_the_same(tmp_path: Path) -> None:
    values = vectors(12, 40)
    described = [Arrays(path=str(stored(values, tmp_path / n))).describe() for n in FORMATS]
    described.append(Arrays.from_array(values).describe())
    described.append(
        Arrays.from_array(labelled(values, ("feature", "time", "sequence"))).describe()
    )
    assert all(one == described[0] for one in described)
    values[3, 7, 1] += 1e-9
    assert Arrays.from_array(values).describe() != described[0]


def test_big_endian_and_fortran_order_are_the_same_content(tmp_path: Path) -> None:
    values = vectors(12, 40)
    for i, other in enumerate((values.astype(">f8"), np.asfortranarray(values))):
        np.save(tmp_path / f"{i}.npy", other)
        source = Arrays(path=str(tmp_path / f"{i}.npy"))
        assert source.describe()["content"] == Arrays.from_array(values).describe()["content"]
        assert source.dataset("train", num_frames=13)[0].dtype == torch.float32


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (("time", "feature"), ("time", "feature")),
        (("Time", "station"), ("time", "feature")),
        (("batch", "c", "t"), ("sequence", "feature", "time")),
        (("time", "lat", "lon"), ("time", "height", "width")),
        (("w", "h", "channel", "frame", "video"), FRAMES[::-1]),
        (("dim_0", "dim_1", "dim_2"), VECTORS),
        (("time",), ("time",)),
    ],
)
def test_names_of_dimensions(names: tuple[str, ...], expected: tuple[str, ...]) -> None:
    assert dimensions(names, range(10, 10 + len(names)), "x") == expected


@pytest.mark.parametrize(
    ("names", "shape", "expected"),
    [
        (None, (10, 20, 64, 64, 3), ("sequence", "time", "height", "width", "channel")),
        (None, (10, 20, 64, 48, 1), ("sequence", "time", "height", "width", "channel")),
        (None, (10, 20, 3, 64, 64), FRAMES),
        (None, (10, 20, 10, 32, 48), FRAMES),
        (("valid_time", "level", "latitude", "longitude"), (9, 1, 5, 6), None),
        (("time", "a", "b"), (9, 1, 5), ("time", "single", "feature")),
    ],
)
def test_sizes_tell_dimensions(names: Any, shape: tuple[int, ...], expected: Any) -> None:
    expected = expected or ("time", "single", "height", "width")
    assert dimensions(names, shape, "x") == expected


def test_channels_that_may_be_third_or_last_are_asked_for(tmp_path: Path) -> None:
    values = np.random.default_rng(0).random((12, 15, 16, 16, 5))
    with pytest.raises(ValueError, match="third or last: say so by dims, such as sequence,time"):
        _ = Arrays.from_array(values).frame_shape
    source = Arrays.from_array(values, dims="sequence, time, height, width, channel")
    assert source.frame_shape == (5, 16, 16)
    first = source.dataset("train", num_frames=15)[0].numpy()
    assert any(np.allclose(first, np.moveaxis(x, -1, 1)) for x in values)
    np.save(tmp_path / "x.npy", values[..., :1].reshape(12, 15, 1, 256))
    by_name = Arrays(path=str(tmp_path / "x.npy"), dims="sequence,time,level,feature")
    assert by_name.frame_shape == (256,)
    with pytest.raises(ValueError, match=r"name those of \(12, 15, 1, 256\) by dims"):
        _ = Arrays(path=str(tmp_path / "x.npy")).frame_shape


@pytest.mark.parametrize("format", ["NETCDF3_CLASSIC", "NETCDF3_64BIT", "NETCDF4"])
def test_times_of_any_calendar_are_not_looked_at(tmp_path: Path, format: str) -> None:
    xarray = pytest.importorskip("xarray")
    values = np.random.default_rng(0).normal(size=(300, 1, 2)).astype("f4")
    dataset = xarray.Dataset(
        {"t2m": (("valid_time", "level", "station"), values)},
        {"valid_time": ("valid_time", np.arange(300.0), {"units": "months since 1850-01-01"})},
    )
    dataset["other"] = ((), 5, {"units": "days since yesterday", "calendar": "noleap"})
    engine = "h5netcdf" if format == "NETCDF4" else "scipy"
    path = tmp_path / "x.nc"
    dataset.to_netcdf(path, engine=engine, format=format if engine == "scipy" else None)
    source = Arrays(path=str(path), variable="t2m")
    assert source.frame_shape == (2,)
    np.testing.assert_allclose(source.dataset("train", num_frames=9)[0].shape, (9, 2))


@pytest.mark.parametrize(
    ("names", "rank"),
    [
        (None, 4),
        (("dim_0", "dim_1", "dim_2", "dim_3"), 4),
        (("sequence", "feature"), 2),
        (("time", "height"), 2),
        (("time", "a", "b"), 3),
        (("time", "t"), 2),
        (("time", "height", "width", "feature"), 4),
    ],
)
def test_dimensions_that_are_not_clear(names: tuple[str, ...] | None, rank: int) -> None:
    with pytest.raises(ValueError, match=r"x\.nc: expected dimensions \(sequence, time") as caught:
        dimensions(names, range(10, 10 + rank), "x.nc")
    assert "\n" not in str(caught.value)


def test_one_long_series_and_a_single_feature() -> None:
    values = vectors(1, 300, 2)[0]
    assert Arrays.from_array(values).dataset("train", num_frames=5)[0].shape == (5, 2)
    assert Arrays.from_array(values[:, 0]).dataset("train", num_frames=5)[0].shape == (5, 1)
    maps = xr.DataArray(vectors(300, 4, 6), dims=("time", "lat", "lon"))
    assert Arrays.from_array(maps).frame_shape == (1, 4, 6)


@pytest.mark.parametrize("name", FORMATS)
def test_workers_and_pickles_read_the_same(tmp_path: Path, name: str) -> None:
    path = stored(vectors(12, 400, 30), tmp_path / name)
    dataset = Arrays(path=str(path), standardize=True).dataset("train", num_frames=13)
    again = pickle.loads(pickle.dumps(dataset))
    assert len(pickle.dumps(dataset)) < 20_000  # the way to the data travels, not the data
    assert torch.equal(again[300], dataset[300])
    loaded = torch.cat(list(DataLoader(dataset, batch_size=50, num_workers=2, timeout=60)))
    assert torch.equal(loaded, torch.stack(list(dataset)))


def test_pieces_are_read_not_the_whole(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", pictures(20, 30))
    reader = Arrays(path=str(tmp_path / "a.npy"))._reader
    assert isinstance(reader._stored().values, np.memmap)
    zarr.save_array(tmp_path / "a.zarr", pictures(20, 30))
    assert isinstance(Arrays(path=str(tmp_path / "a.zarr"))._reader._stored().values, zarr.Array)


def test_several_arrays_in_a_file(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", one=vectors(2, 90), two=vectors(2, 90, 4))
    path = str(tmp_path / "a.npz")
    assert Arrays(path=path, variable="two").frame_shape == (4,)
    with pytest.raises(ValueError, match=r"a\.npz: holds several arrays, choose .*: one, two"):
        Arrays(path=path).dataset("train", num_frames=3)
    with pytest.raises(ValueError, match=r"a\.npz: holds no three: one, two"):
        Arrays(path=path, variable="three").dataset("train", num_frames=3)


@pytest.mark.parametrize("suffix", [".h5", ".hdf5"])
def test_groups_of_a_file(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    pixels, half = pictures(12, 20), np.array([20] * 11 + [7])
    with h5py.File(path, "w") as file:
        file["train/frames"], file["test/frames"] = pixels, pixels[:, ::-1]
        file["train/lengths"] = half
        file["meta"] = np.arange(3)
    with pytest.raises(ValueError, match=r": meta, test/frames, train/frames, train/lengths$"):
        Arrays(path=str(path)).dataset("train", num_frames=3)
    with pytest.raises(ValueError, match=r"holds no frames: meta, test/frames, train/frames"):
        Arrays(path=str(path), variable="frames").dataset("train", num_frames=3)
    source = Arrays(path=str(path), variable="test/frames")
    whole = Arrays.from_array(pixels[:, ::-1])
    assert torch.equal(
        source.dataset("test", num_frames=9)[0], whole.dataset("test", num_frames=9)[0]
    )
    ragged = Arrays(path=str(path), variable="train/frames", lengths="train/lengths")
    assert ragged.describe()["frames"] == 227


def test_groups_of_a_netcdf_file(tmp_path: Path) -> None:
    path = tmp_path / "a.nc"
    values = xr.DataArray(vectors(3, 90), dims=("station", "time", "feature"), name="x")
    values = values.rename(station="sequence")
    xr.Dataset({"x": values}).to_netcdf(path, group="run1", engine="h5netcdf")
    xr.Dataset({"y": -values}).to_netcdf(path, group="run2", mode="a", engine="h5netcdf")
    with pytest.raises(ValueError, match=r"choose one by variable: run1/x, run2/y$"):
        Arrays(path=str(path)).dataset("train", num_frames=3)
    first, second = (Arrays(path=str(path), variable=name) for name in ("run1/x", "run2/y"))
    assert torch.equal(
        first.dataset("train", num_frames=3)[0], -second.dataset("train", num_frames=3)[0]
    )


@pytest.mark.parametrize(
    ("name", "advice"),
    [
        ("a.csv", "a table is read by --data Series, with its names and dates"),
        ("a.pt", "may hold code and is never loaded: load it, and store its array by numpy.save"),
        ("a.pkl", "may hold code and is never loaded"),
        ("a.mat", "a file of MATLAB is not read: take its values by scipy.io.loadmat"),
        ("a.txt", "text is not read: take its numbers by numpy.loadtxt"),
        ("a.bin", "expected a .npy, .npz, .nc or .h5 file or a zarr folder"),
    ],
)
def test_files_that_are_not_read(tmp_path: Path, name: str, advice: str) -> None:
    path = tmp_path / name
    path.write_bytes(b"1,2\n")
    for source in (
        Arrays(path=str(path)),
        *([] if name in ("a.bin", "a.csv") else [guess_source(str(path))]),
    ):
        with pytest.raises(ValueError, match="^" + re.escape(f"{path}: {advice}")):
            source.dataset("train", num_frames=3)


def test_a_file_without_arrays(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w"):
        pass
    with pytest.raises(ValueError, match=r"a\.h5: holds no arrays$"):
        Arrays(path=str(tmp_path / "a.h5")).dataset("train", num_frames=3)


def test_a_source_is_made_again_from_its_settings(tmp_path: Path) -> None:
    source = Arrays(path=str(stored(vectors(12, 40), tmp_path / "a.nc")), standardize=True, gap=3)
    assert source_from_config(source.config()).describe() == source.describe()
    memory = source_from_config(Arrays.from_array(vectors(12, 40)).config())
    with pytest.raises(ValueError, match="given in memory: hand over the same source again"):
        memory.dataset("train", num_frames=3)


# ---- lengths ----


@pytest.mark.parametrize("name", ["a.npz", "a.zarr", "a.nc"])
def test_ragged_sequences(tmp_path: Path, name: str) -> None:
    lengths = np.array([20, 4, 13, 7, 20, 12, 20, 20, 20, 20, 20, 20], dtype=np.int32)
    values = numbered(12, 20)
    for i, length in enumerate(lengths):
        values[i, length:] = np.nan  # padding does not count
    path = tmp_path / name
    if name == "a.npz":
        np.savez(path, values=values, lengths=lengths)
    else:
        both = xr.Dataset({"values": (VECTORS, values), "lengths": ("sequence", lengths)})
        if name == "a.nc":
            both.to_netcdf(path, engine="h5netcdf")
        else:
            both.to_zarr(path, zarr_format=3, consolidated=False)
    sources = [Arrays(path=str(path)), Arrays.from_array(values, lengths=lengths)]
    for source in sources:
        seen: dict[int, int] = {}
        for split in SPLITS:
            for i, t in windows(source, split, 4).reshape(-1, 4, 2)[:, -1]:
                assert t < lengths[int(i)]
                seen[int(i)] = seen.get(int(i), 0) + 1
        held_out = {i for split in ("validation", "test") for i in self_of(source, split)}
        assert all(seen[i] == lengths[i] // 4 for i in held_out)
    assert sources[0].describe() == sources[1].describe()


def self_of(source: Arrays, split: Any) -> set[int]:
    return {part.sequence for part in source._parts(split)}


def test_lengths_under_another_name(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    np.savez(path, values=numbered(2, 50), frames=np.array([50, 40]))
    source = Arrays(path=str(path), variable="values", lengths="frames", gap=0)
    assert source.describe()["frames"] == 90
    with pytest.raises(ValueError, match=r"a\.npz: holds no array 'steps' of lengths, but values"):
        Arrays(path=str(path), lengths="steps").dataset("train", num_frames=3)


@pytest.mark.parametrize(
    ("lengths", "message"),
    [
        ([5, 60], r"lengths must lie in 0\.\.50"),
        ([5, -1], r"lengths must lie in 0\.\.50"),
        ([5.0, 6.0], "expected 2 whole lengths, got float64"),
        ([5], r"expected 2 whole lengths, got int64 of \(1,\)"),
    ],
)
def test_lengths_that_cannot_be(lengths: list[float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Arrays.from_array(numbered(2, 50), lengths=lengths).dataset("train", num_frames=3)


# ---- splits ----


def places(source: Arrays, split: Any, num_frames: int, draws: int = 1000) -> set[tuple[int, int]]:
    """Every (sequence, time) that a split can show."""
    dataset = source.dataset(split, num_frames=num_frames)
    count = draws if split == "train" else len(dataset)
    return {tuple(map(int, frame)) for k in range(count) for frame in dataset[k].tolist()}


@pytest.mark.parametrize("count", [1, 9, 10])
def test_no_frame_is_in_two_splits(count: int) -> None:
    source = Arrays.from_array(numbered(count, 120), gap=7)
    shown = {split: places(source, split, 5) for split in SPLITS}
    assert all(shown.values())
    assert not shown["train"] & shown["validation"]
    assert not shown["train"] & shown["test"]
    assert not shown["validation"] & shown["test"]
    by_sequence = {split: {i for i, _ in shown[split]} for split in SPLITS}
    if count >= 10:
        assert sum(map(len, by_sequence.values())) == count
    else:
        for i in range(count):
            times = {split: {t for j, t in shown[split] if j == i} for split in SPLITS}
            assert max(times["train"]) + 7 < min(times["validation"])
            assert max(times["validation"]) + 7 < min(times["test"])


def test_fractions() -> None:
    source = Arrays.from_array(numbered(20, 30), validation_fraction=0.25, test_fraction=0.5)
    sizes = [len(source.dataset(split, num_frames=30)) for split in SPLITS]  # type: ignore[arg-type]
    assert sizes == [5, 5, 10]
    source = Arrays.from_array(numbered(1, 200), validation_fraction=0.0, test_fraction=0.3, gap=8)
    assert max(t for _, t in places(source, "train", 4, 2000)) == 131
    assert min(t for _, t in places(source, "test", 4)) == 140
    with pytest.raises(ValueError, match="the validation split is empty"):
        source.dataset("validation", num_frames=4)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"validation_fraction": 0.5, "test_fraction": 0.5}, "below 1 together, got 0.5 and 0.5"),
        ({"test_fraction": -0.1}, "must be at least 0"),
        ({"test_fraction": float("nan")}, "below 1 together"),
        ({"gap": -1}, "gap must be an integer of at least 0"),
        ({"seed": -1}, "seed must be an integer of at least 0"),
    ],
)
def test_bad_settings(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Arrays(path="x.npy", **settings)


# ---- standardizing ----


@pytest.mark.parametrize("count", [1, 12])
def test_standardized_by_the_training_split_alone(count: int) -> None:
    values = vectors(count, 600, 3) * np.array([1.0, 100.0, 1e-3]) + np.array([0.0, -500.0, 7.0])
    values = values + np.linspace(0, 1000, 600)[:, None]  # what is later is elsewhere
    source = Arrays.from_array(values, standardize=True)
    parts = source._parts("train")
    train = np.concatenate([values[i, a : a + n] for i, a, n in parts])
    i, first, _ = source._parts("test")[0]
    expected = (values[i, first : first + 13] - train.mean(0)) / train.std(0)
    found = source.dataset("test", num_frames=13)[0].numpy()
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
    assert "standardized" in str(source.describe()["values"])
    plain = Arrays.from_array(values)
    with pytest.warns(UserWarning, match="standard deviations of .* consider standardize"):
        unchanged = plain.dataset("test", num_frames=13)[0]
    np.testing.assert_array_equal(unchanged, values[i, first : first + 13].astype("f4"))
    assert plain.describe() != source.describe()


def test_moments_do_not_depend_on_the_size_of_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.random.default_rng(0).normal(300.0, 2.0, size=(12, 50, 3, 4, 5))
    whole = Arrays.from_array(values, standardize=True)._contents
    monkeypatch.setattr("pyro_afslvm.data.arrays.reader._BLOCK", 3 * 4 * 5 * 8 * 7)
    pieces = Arrays.from_array(values, standardize=True)._contents
    assert pieces.digest == whole.digest
    np.testing.assert_allclose(pieces.mean, whole.mean, rtol=1e-12)
    np.testing.assert_allclose(pieces.scale, whole.scale, rtol=1e-12)
    assert whole.scale.shape == (3, 1, 1)  # of each channel
    assert np.allclose(whole.scale, 2.0, rtol=0.05)


def test_pictures_are_not_standardized() -> None:
    with pytest.raises(ValueError, match="standardize is for real numbers, these are uint8"):
        Arrays.from_array(pictures(3, 60), standardize=True).dataset("train", num_frames=3)


# ---- bad input ----


class Trap:
    def __reduce__(self) -> Any:
        return pytest.fail, ("a data file was unpickled",)


@pytest.mark.parametrize("kind", ["npy", "npz"])
def test_pickles_are_refused(tmp_path: Path, kind: str) -> None:
    path = tmp_path / f"bad.{kind}"
    objects = np.array([Trap()], dtype=object)
    if kind == "npy":
        np.save(path, objects, allow_pickle=True)
    else:
        np.savez(path, objects=objects)
    refused(path, rf"bad\.{kind}: .*(object|pickle)")


@pytest.mark.parametrize("place", ["filters", "compressor"])
def test_zarr_that_would_unpickle_is_refused(tmp_path: Path, place: str) -> None:
    path = tmp_path / "bad.zarr"
    path.mkdir()
    codec = {"id": "pickle", "protocol": 5}
    layout = {"shape": [40, 3], "chunks": [40, 3], "dtype": "<f8", "order": "C", "fill_value": 0}
    codecs = {"filters": None, "compressor": None} | {
        place: [codec] if place == "filters" else codec
    }
    (path / ".zarray").write_text(json.dumps({"zarr_format": 2} | layout | codecs))
    (path / "0.0").write_bytes(pickle.dumps(Trap()))
    refused(path, r"bad\.zarr: cannot be read")


def refused(path: Path, message: str, **settings: Any) -> None:
    source = Arrays(path=str(path), **settings)
    with pytest.raises((ValueError, FileNotFoundError), match=message) as caught:
        source.dataset("train", num_frames=5)
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_values_that_are_not_finite(tmp_path: Path, value: float) -> None:
    values = vectors(12, 40)
    values[4, 17, 2] = value
    refused(stored(values, tmp_path / "a.nc"), "NaN or Inf in sequence 4 at time 17")


def test_constant_values(tmp_path: Path) -> None:
    values = vectors(12, 40)
    values[..., 1] = 3.0
    refused(stored(values, tmp_path / "a.npy"), "1 of 3 entries of a frame are constant")
    frames = np.random.default_rng(0).random((12, 20, 1, 4, 4)).astype("f4")
    frames[..., 0] = 0.0
    refused(stored(frames, tmp_path / "b.npy"), r"4 of 16 entries.*8-bit pictures as uint8")
    values[0, 0, 1] = 4.0  # sequence 0 may be of another split
    source = Arrays.from_array(values)
    if 0 not in self_of(source, "train"):
        with pytest.raises(ValueError, match="1 of 3 entries"):
            source.dataset("train", num_frames=5)


@pytest.mark.parametrize(
    ("divisor", "named", "kind"), [(1, "1,", np.float64), (255, "1/255,", np.float32)]
)
def test_8_bit_pictures_stored_as_floats(divisor: int, named: str, kind: Any) -> None:
    source = Arrays.from_array((pictures(12, 20) / divisor).astype(kind))
    with pytest.warns(UserWarning, match=f"all values are multiples of {named} and a density"):
        source.dataset("train", num_frames=5)


def test_constant_pictures_are_fine() -> None:
    source = Arrays.from_array(np.zeros((12, 20, 1, 8, 8), np.uint8))
    assert source.dataset("train", num_frames=5)[0].max() == 0


def test_empty_arrays(tmp_path: Path) -> None:
    for shape in ((0, 20, 3), (12, 0, 3), (12, 20, 0)):
        refused(stored(np.zeros(shape), tmp_path / "a.npz"), r"a\.npz: holds no values, its shape")


def test_other_types(tmp_path: Path) -> None:
    path = tmp_path / "a.npy"
    for kind in (np.int64, np.int16, bool, np.complex64, "U3"):
        np.save(path, np.ones((12, 40, 3)).astype(kind))
        refused(path, r"a\.npy: expected uint8 or floating point, got")


def test_sequences_that_are_too_short(tmp_path: Path) -> None:
    path = stored(vectors(12, 4), tmp_path / "a.npy")
    refused(path, "num_frames is 5, but the stored sequences of the train split have 4 frames")


def test_a_series_too_short_to_be_split() -> None:
    source = Arrays.from_array(vectors(1, 60)[0])
    with pytest.raises(ValueError, match=r"array in memory: num_frames is 13, but .* 6 frames"):
        source.dataset("validation", num_frames=13)
    with pytest.raises(ValueError, match="the train split is empty"):
        Arrays.from_array(vectors(1, 20)[0], gap=20).dataset("train", num_frames=3)


@pytest.mark.parametrize("name", ["a.npy", "a.npz", "a.nc"])
def test_truncated_files(tmp_path: Path, name: str) -> None:
    whole = stored(vectors(12, 40), tmp_path / name).read_bytes()
    for kept in (0, 3, 60, 900):
        path = tmp_path / f"{kept}{name}"
        path.write_bytes(whole[:kept])
        refused(path, path.name)


def test_files_of_another_kind(tmp_path: Path) -> None:
    refused(tmp_path / "none.npy", "there is no such file")
    (tmp_path / "a.txt").write_text("1 2 3")
    refused(tmp_path / "a.txt", r"a\.txt: text is not read: take its numbers by numpy\.loadtxt")
    for name in ("a.npy", "a.npz", "a.nc"):
        (tmp_path / name).write_text("1 2 3")
        refused(tmp_path / name, name)
    (tmp_path / "folder").mkdir()
    refused(tmp_path / "folder", "folder: cannot be read")


def test_a_reader_opens_in_each_process_anew() -> None:
    opened: list[int] = []
    array = Arrays.from_array(vectors(2, 50))._given
    assert array is not None

    def opener() -> Any:
        opened.append(1)
        return array

    reader = ArrayReader("x", opener)
    reader.read(0, 0, 3)
    assert len(opened) == 1
    reader._opened = (-1, array)  # as after a fork
    reader.read(0, 0, 3)
    assert len(opened) == 2


@pytest.mark.parametrize("suffix", ["npy", "npz"])
def test_arrays_of_python_objects_say_what_to_do(tmp_path: Path, suffix: str) -> None:
    ragged = np.array([np.zeros((3, 2)), np.zeros((4, 2))], dtype=object)
    path = tmp_path / f"a.{suffix}"
    np.save(path, ragged, allow_pickle=True) if suffix == "npy" else np.savez(path, x=ragged)
    with pytest.raises(ValueError, match=r"never loaded: store sequences of different lengths in"):
        Arrays(path=str(path)).dataset("train", num_frames=2)
