"""Standardization of real numbers: kept with a run, and undone in what its user sees."""

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from torch import Tensor


class Standardization(NamedTuple):
    r"""Mean and standard deviation of each feature or channel.

    .. math:: x = (v - m) / s, \qquad \log p(v) = \log p(x) - \sum_i \log s_i

    Attributes:
        mean: m, of the shape ``(D,)`` or ``(C, 1, 1)``.
        scale: s, of the same shape.

    Example:
        >>> kept = Standardization(np.array([5.0, 0.0]), np.array([2.0, 1.0]))
        >>> kept.restored(kept(np.array([7.0, 3.0]))).tolist()
        [7.0, 3.0]
    """

    mean: NDArray[np.float64]
    scale: NDArray[np.float64]

    @classmethod
    def from_json(cls, values: Any) -> "Standardization":
        """Read what :meth:`to_json` wrote.

        Raises:
            ValueError: it is something else.
        """
        try:
            mean, scale = (np.asarray(values[key], np.float64) for key in cls._fields)
        except (KeyError, TypeError, ValueError):
            raise ValueError(f"expected a standardization, got {values!r}") from None
        if mean.shape != scale.shape or not (np.isfinite(mean).all() and (scale > 0).all()):
            raise ValueError(f"expected a standardization, got {values!r}")
        return cls(mean, scale)

    def to_json(self) -> dict[str, Any]:
        """Give JSON values, exact to the bit."""
        return {"mean": self.mean.tolist(), "scale": self.scale.tolist()}

    def __call__(self, values: NDArray[Any]) -> NDArray[np.float64]:
        """Standardize frames ``(..., *frame_shape)``."""
        return np.asarray((values - self.mean) / self.scale)

    def restored(self, frames: Any) -> Any:
        """Give standardized frames, an array or a tensor, in the data's units."""
        if isinstance(frames, np.ndarray):
            return frames * self.scale + self.mean
        return self._restored(frames)

    def _restored(self, frames: "Tensor") -> "Tensor":
        scale, mean = (frames.new_tensor(part) for part in (self.scale, self.mean))
        return frames * scale + mean

    @property
    def log_scale(self) -> float:
        """Mean of log s over the entries of a frame."""
        return float(np.log(self.scale).mean())
