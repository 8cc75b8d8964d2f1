"""Labelled arrays of the sequences as they are scored."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import xarray as xr

from pyro_afslvm.utils.dims import FRAME_DIMS

if TYPE_CHECKING:
    from torch import Tensor

Array = np.ndarray[Any, Any]


class Variable(NamedTuple):
    """An array, what its dimensions are and what it is."""

    dims: tuple[str, ...]
    values: Array
    long_name: str
    units: str = "nat"


class Sequences(NamedTuple):
    """The sequences as they are scored."""

    x: Array  # (batch, T, *frame)
    given: int
    lengths: Array
    mask: Array  # (batch, T - given)

    @classmethod
    def of(cls, x: "Tensor", scored: int, lengths: "Tensor | None") -> "Sequences":
        """Take sequences whose last frames are scored, so many of them."""
        from pyro_afslvm.utils.precision import as_array

        total = x.shape[1]
        counts = np.full(len(x), total) if lengths is None else lengths.cpu().numpy()
        mask = np.arange(total - scored, total) < counts[:, None]
        return cls(as_array(x), total - scored, counts, mask)

    @property
    def dims(self) -> tuple[str, ...]:
        """Names of the dimensions of a frame."""
        return FRAME_DIMS[self.x.ndim - 2]

    def hidden(self, values: Array, event: int) -> Array:
        """Put NaN where a sequence has ended; values ``(..., batch, T, *event)``."""
        mask = self.mask.reshape(*self.mask.shape, *[1] * event)
        return np.where(mask, values, values.dtype.type(np.nan))


def dataset(
    variables: Mapping[str, Variable], sequences: Sequences, *, chains: int = 1
) -> xr.Dataset:
    """Put arrays together, with coordinates of every dimension.

    Args:
        variables: arrays; those of draws have the draws of all chains in their first axis.
        sequences: what they belong to.
        chains: into how many chains the draws are parted.
    """
    arrays = {
        name: (v.dims, _parted(v, chains), {"long_name": v.long_name, "units": v.units})
        for name, v in variables.items()
    }
    labelled = xr.Dataset(arrays)
    first = {"time": sequences.given, "time_future": 1}
    return labelled.assign_coords(
        {
            str(dim): (dim, np.arange(size) + first.get(str(dim), 0), _units(str(dim)))
            for dim, size in labelled.sizes.items()
        }
    )


def _parted(variable: Variable, chains: int) -> Array:
    values = variable.values
    if variable.dims[:2] != ("chain", "draw"):
        return values
    return values.reshape(chains, len(values) // chains, *values.shape[1:])


def _units(dim: str) -> dict[str, str]:
    return {"units": "frame" if dim.startswith("time") else "1"}
