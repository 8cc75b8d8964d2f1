"""Covariates beside arrays: columns by number or name, and other arrays of the file."""

from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr
from torch.utils.data import DataLoader

from pyro_afslvm.data import Arrays, source_from_config
from pyro_afslvm.data.sequences import Known, parted, with_context

RNG = np.random.default_rng(0)
SERIES = RNG.normal(size=(200, 5))


def same_rows(source: Arrays, frames: np.ndarray, context: np.ndarray) -> None:
    """Every crop has the covariates of its own frames."""
    frames, context = frames.astype(np.float32), context.astype(np.float32)
    for split in ("train", "validation", "test"):
        data = source.dataset(split, num_frames=8)  # type: ignore[arg-type]
        for k in range(3):
            x, c = data.frames(k), data.context(k)
            starts = np.flatnonzero((frames[:-7] == x[0]).all(1))
            (start,) = starts
            assert np.array_equal(x, frames[start : start + 8])
            assert np.array_equal(c, context[start : start + 8])


def test_columns_by_number(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", SERIES)
    source = Arrays(path=str(tmp_path / "x.npy"), context=[4, 1])
    assert (source.frame_shape, source.context_features) == ((3,), 2)
    same_rows(source, SERIES[:, [0, 2, 3]], SERIES[:, [4, 1]])
    again = source_from_config(source.config())
    assert again.describe() == source.describe()
    assert source.describe()["context"] == 2
    plain = Arrays(path=str(tmp_path / "x.npy"))
    assert not {"context", "context_content"} & {*plain.describe()}
    assert plain.context_features == 0


def test_columns_by_name(tmp_path: Path) -> None:
    array = xr.DataArray(SERIES, dims=("time", "station"), coords={"station": [*"abcde"]}, name="x")
    array.to_netcdf(tmp_path / "x.nc", engine="h5netcdf")
    for source in (
        Arrays(path=str(tmp_path / "x.nc"), context=["e", 0]),
        Arrays.from_array(array, context=["e", 0]),
    ):
        same_rows(source, SERIES[:, 1:4], SERIES[:, [4, 0]])


def test_another_array_of_the_file_is_not_the_frames(tmp_path: Path) -> None:
    hours = np.arange(200) % 24  # whole numbers
    np.savez(tmp_path / "x.npz", x=SERIES, hour=hours, more=SERIES[:, :2] ** 2)
    source = Arrays(path=str(tmp_path / "x.npz"), context=["hour", "more"])
    with pytest.warns(UserWarning, match="covariates reach 23 and are taken as they are"):
        same_rows(source, SERIES, np.concatenate([hours[:, None], SERIES[:, :2] ** 2], 1))


def test_a_calendar_is_that_of_all_sequences_others_have_their_own() -> None:
    x, calendar = RNG.normal(size=(20, 9, 2)), RNG.normal(size=(9, 1))
    own = RNG.normal(size=(20, 9, 3))
    for covariates in (calendar, own):
        data = Arrays.from_array(x, covariates=covariates).dataset("test", num_frames=9)
        for k in range(len(data)):
            (number,) = [i for i in range(20) if np.allclose(x[i], data.frames(k), atol=1e-6)]
            expected = covariates if covariates.ndim == 2 else covariates[number]
            np.testing.assert_allclose(data.context(k), expected, rtol=1e-6)


def test_batches_of_frames_and_covariates() -> None:
    source = Arrays.from_array(SERIES, context=[0])
    data = source.dataset("train", num_frames=8)
    batch = next(iter(DataLoader(with_context(data), batch_size=3)))
    assert isinstance(batch, Known)
    x, context = parted(batch)
    assert (x.shape, context.shape) == ((3, 8, 4), (3, 8, 1))  # type: ignore[union-attr]
    assert np.array_equal(with_context(data).units, data.units)
    plain = Arrays.from_array(SERIES).dataset("train", num_frames=8)
    assert with_context(plain) is plain
    assert parted(torch.zeros(2, 3))[1] is None


def test_frames_alone_are_standardized() -> None:
    source = Arrays.from_array(3 + 0.5 * SERIES, context=[0], standardize=True)
    assert source.standardization is not None
    assert source.standardization.mean.shape == (4,)
    data = source.dataset("train", num_frames=100)
    assert abs(float(data.frames(0).mean())) < 0.5
    assert float(data.context(0).mean()) > 2


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"context": [5]}, "no feature 5, there are 0 to 4"),
        ({"context": [0, 0]}, "context names one twice: 0, 0"),
        ({"context": [0, 1, 2, 3, 4]}, "all 5 features are covariates, none is left to model"),
        ({"context": ["hour"]}, "no feature 'hour'; give other arrays as covariates"),
        ({"covariates": SERIES[:150]}, "covariates of 150 times, expected 200"),
        ({"covariates": np.zeros((2, 200, 3))}, "covariates of 2 sequences, expected 1"),
        ({"covariates": np.full((200, 1), np.nan)}, "a covariate is NaN or Inf in sequence 0 at"),
        ({"covariates": np.full((200, 1), "a")}, "expected numbers, got <U1"),
    ],
)
def test_covariates_that_do_not_fit(settings: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message) as error:
        Arrays.from_array(SERIES, **settings).dataset("train", num_frames=8)
    assert "\n" not in str(error.value)


def test_a_file_without_that_array(tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", x=SERIES, hour=np.zeros(200))
    with pytest.raises(ValueError, match=r"x.npz: holds no day: x, hour"):
        _ = Arrays(path=str(tmp_path / "x.npz"), variable="x", context=["day"]).context_features
    pictures = np.zeros((3, 8, 1, 4, 4), dtype=np.uint8)
    with pytest.raises(ValueError, match=r"frames \(1, 4, 4\) have no features to be covariates"):
        _ = Arrays.from_array(pictures, context=[0]).frame_shape
