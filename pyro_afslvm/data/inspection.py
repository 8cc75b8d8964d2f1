"""Inspection of a data set by a sample: what it holds, and how well copying a frame predicts."""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pyro_afslvm.data.dequantize import Dequantization
from pyro_afslvm.data.outliers import Outlier, farthest_value
from pyro_afslvm.data.sequences import SequenceDataset, StoredSequences
from pyro_afslvm.data.source import SequenceSource, choose_dequantization
from pyro_afslvm.data.splits import SPLITS, EmptySplitError, ShortSplitError, Split
from pyro_afslvm.moved import old_names
from pyro_afslvm.utils.checks import check_minimum

Array = NDArray[np.float64]

_BYTES = 1 << 26  # of frames read from each split
_SCORED = 10  # frames of a crop, its last ones, as in the paper
_WEIGHT = 0.1
_WEIGHTS = np.logspace(-4, 0, 17)  # of the mean variance in that of a single entry


class Stretch(NamedTuple):
    """Contents of one split.

    Attributes:
        split: Its name.
        lengths: Frames of its stored sequences; ``None`` for generated ones, of any length.
        crops: Sequences of ``num_frames`` in an epoch.
        read: How many of them were read.
        correlation: Temporal correlation of those, NaN without any.
        problem: Why nothing can be read, or empty.
    """

    split: Split
    lengths: NDArray[np.int64] | None
    crops: int = 0
    read: int = 0
    correlation: float = float("nan")
    problem: str = ""


class Baselines(NamedTuple):
    """Expected log-densities of closed-form models, nats per dimension, higher is better.

    Attributes:
        static: Normal with a mean and a scale for each entry of a frame.
        copy: Normal around the last frame, one scale for each channel or feature.
        copy_local: Normal around the last frame, a scale for each entry.
    """

    static: float
    copy: float
    copy_local: float


class Inspection(NamedTuple):
    """Findings of :func:`inspect_source`.

    Attributes:
        source: Where sequences come from.
        dequantization: The one that its data need.
        num_frames: Frames of a crop, the last ten of which are scored.
        dtype: Of the values, as numpy calls it.
        low: Smallest value read, in the units of the data.
        high: Largest value read.
        farthest: The value of real numbers that is farthest from the others of its channel or
            feature: of all that are stored in an array, else of what was read.
        constant: Entries of a frame that never change in the training sequences read.
        stretches: The splits.
        baselines: Fitted on training, scored on ``scored_on``.
        scored_on: ``"test"``, or the next best split there is.
    """

    source: SequenceSource
    dequantization: Dequantization
    num_frames: int
    dtype: str
    low: float
    high: float
    farthest: Outlier
    constant: int
    stretches: tuple[Stretch, ...]
    baselines: Baselines
    scored_on: Split


class Sums:
    """Sums over crops, from which all metrics follow; memory is that of a few frames.

    Values are those of the model: v/255 for 8-bit data, without the dequantization,
    whose variance enters in expectation.

    Args:
        origin: A frame; sums are of differences from it, or large values would lose digits.
    """

    def __init__(self, origin: Array) -> None:
        zero = np.zeros_like(origin)
        self.origin, self.frames, self.pairs = origin, 0, 0
        self.total, self.square = zero.copy(), zero.copy()
        self.earlier, self.later, self.product = zero.copy(), zero.copy(), zero.copy()
        self.jump = zero.copy()
        self.low, self.high = zero + np.inf, zero - np.inf

    def add(self, x: Array) -> None:  # (T, *frame)
        """Add one crop."""
        scored = x[-min(_SCORED, len(x) - 1) :] - self.origin
        self.low, self.high = np.minimum(self.low, x.min(0)), np.maximum(self.high, x.max(0))
        self.frames, self.pairs = self.frames + len(scored), self.pairs + len(scored) - 1
        self.total += scored.sum(0)
        self.square += (scored**2).sum(0)
        self.earlier += scored[:-1].sum(0)
        self.later += scored[1:].sum(0)
        self.product += (scored[:-1] * scored[1:]).sum(0)
        self.jump += (np.diff(x[-len(scored) - 1 :], axis=0) ** 2).sum(0)

    @property
    def mean(self) -> Array:
        """Mean of each entry, less the origin."""
        return self.total / self.frames

    @property
    def farthest(self) -> float:
        """Largest distance from the mean of a channel or feature, in its standard deviations."""
        pixels = (-2, -1) if self.origin.ndim == 3 else ()
        mean = (self.mean + self.origin).mean(pixels, keepdims=True)
        variance = self.spread(mean - self.origin).mean(pixels, keepdims=True)
        apart = np.maximum(self.high - mean, mean - self.low)
        with np.errstate(divide="ignore", invalid="ignore"):
            found = apart / np.sqrt(variance)
        return float(np.nanmax(np.where(variance > 0, found, 0.0)))

    def spread(self, center: Array) -> Array:
        """Mean square of each entry's distance from ``center``, which is less the origin."""
        spread: Array = self.square / self.frames - 2 * center * self.mean + center**2
        return spread.clip(min=0)

    def correlation(self, added_variance: float) -> float:
        """Temporal correlation, Eq. 31, of the dequantized values; NaN for constant ones.

        See :func:`pyro_afslvm.metrics.temporal_correlation`.
        """
        if not self.pairs:
            return float("nan")
        mean = self.mean
        covariance = (self.product - mean * (self.earlier + self.later)) / self.pairs + mean**2
        variance = self.spread(mean) + added_variance
        moving = (variance > 0) & ((self.low != self.high) | (added_variance > 0))
        return float((covariance[moving] / variance[moving]).mean()) if moving.any() else np.nan


def inspect_source(source: SequenceSource, *, num_frames: int = 13, limit: int = 200) -> Inspection:
    """Read a sample of each split and measure it.

    Args:
        source: Where sequences come from.
        num_frames: Frames of a crop; less where training sequences are shorter.
        limit: Crops to read from each split, at most; fewer if they are large.

    Raises:
        FileNotFoundError: There are no such files.
        ValueError: The training split cannot be read, or has no two frames in a row.

    Example:
        >>> from pyro_afslvm.data import Arrays
        >>> walk = np.random.default_rng(0).normal(size=(900, 2)).cumsum(0)
        >>> found = inspect_source(Arrays.from_array(walk))
        >>> found.baselines.copy > found.baselines.static
        True
    """
    check_minimum(num_frames=(num_frames, 2), limit=(limit, 2))
    dequantization = choose_dequantization(None, source)
    longest = _lengths(source.dataset("train", num_frames=1))
    frames = num_frames if longest is None else min(num_frames, int(longest.max()))
    if frames < 2:
        raise ValueError(f"{source.name}: training sequences of one frame have no past")
    first = source.dataset("train", num_frames=frames).frames(0)
    sample = _Sample(frames, limit, dequantization, _in_units(first, dequantization)[0])
    read = [_read(source, split, sample) for split in SPLITS]
    sums = {stretch.split: found for stretch, found in read if stretch.read}
    scored_on = next(split for split in ("test", "validation", "train") if split in sums)
    held = sums.get("validation") if scored_on == "test" else None
    return Inspection(
        source=source,
        dequantization=dequantization,
        num_frames=frames,
        dtype=str(first.dtype),
        low=min(float(restored(source, found.low).min()) for found in sums.values()),
        high=max(float(restored(source, found.high).max()) for found in sums.values()),
        farthest=_farthest(source, [*sums.values()]),
        constant=int((sums["train"].low == sums["train"].high).sum()),
        stretches=tuple(stretch for stretch, _ in read),
        baselines=baselines(
            sums["train"], held=held, scored=sums[scored_on], dequantization=dequantization
        ),
        scored_on=scored_on,
    )


def _farthest(source: SequenceSource, read: list[Sums]) -> Outlier:
    blocks = getattr(source, "blocks", None)  # of all that an array holds
    if choose_dequantization(None, source).whole_numbers or blocks is None:
        return Outlier(max(found.farthest for found in read))
    return farthest_value(blocks)


def baselines(
    train: Sums, *, held: Sums | None, scored: Sums, dequantization: Dequantization
) -> Baselines:
    r"""Fit closed-form models on training crops and score them on others.

    The variance of a single entry is :math:`(1 - w) s_i^2 + w \bar s^2` with the mean over
    its channel, or else whatever never moved in training would be ruled out; w is fitted on
    held out crops. Entries of real numbers that never change are left out.

    Args:
        train: Sums over training crops.
        held: Sums over the crops that choose w; ``None`` takes w = 0.1.
        scored: Sums over the crops to score.
        dequantization: Its variance enters in expectation.

    Raises:
        ValueError: No entry ever changes.
    """
    added = added_variance(dequantization)
    used = (train.jump > 0) & (train.spread(train.mean) > 0) | (added > 0)
    if not used.any():
        raise ValueError("the training sequences that were read are constant")
    parts = [part for part in (train, scored, held) if part is not None]
    spreads = [np.where(used, part.spread(train.mean) + added, np.nan) for part in parts]
    jumps = [np.where(used, part.jump / part.frames + 2 * added, np.nan) for part in parts]
    return Baselines(
        static=dequantization.to_nats(_local_score(*spreads)),
        copy=dequantization.to_nats(_score(_mixed(jumps[0], 1.0), jumps[1])),
        copy_local=dequantization.to_nats(_local_score(*jumps)),
    )


def added_variance(dequantization: Dequantization) -> float:
    """Variance that dequantization adds: Gaussian for 8-bit data, none for real numbers."""
    return 256**-2 if dequantization.whole_numbers else 0.0


class _Sample(NamedTuple):
    """Choice of what is read of a split."""

    num_frames: int
    limit: int
    dequantization: Dequantization
    origin: Array

    def indices(self, split: Split, size: int) -> list[int]:
        """Choose evenly spaced indices, as many as memory and patience allow."""
        most = min(self.limit, _BYTES // (self.num_frames * self.origin.nbytes))
        # Beyond an epoch, training crops are fresh ones.
        last = (max(size, most) if split == "train" else size) - 1
        return sorted({round(k) for k in np.linspace(0, last, max(most, 2))})


def _read(source: SequenceSource, split: Split, sample: _Sample) -> tuple[Stretch, Sums]:
    """Read a split; the sums are over what was read of it."""
    sums, lengths = Sums(sample.origin), None
    try:
        lengths = _lengths(source.dataset(split, num_frames=1))
        data = source.dataset(split, num_frames=sample.num_frames)
    except EmptySplitError:
        return Stretch(split, lengths, problem="empty"), sums
    except ShortSplitError:
        return Stretch(split, lengths, problem=f"too short for {sample.num_frames} frames"), sums
    chosen = sample.indices(split, len(data))
    for k in chosen:
        sums.add(_in_units(data.frames(k), sample.dequantization))
    correlation = sums.correlation(added_variance(sample.dequantization))
    return Stretch(split, lengths, len(data), len(chosen), correlation), sums


def _lengths(data: SequenceDataset) -> NDArray[np.int64] | None:
    return data.lengths if isinstance(data, StoredSequences) else None


def restored(source: SequenceSource, values: Array) -> Array:
    """Give values of the model, without a dequantization, as they are stored."""
    kept = source.standardization
    if kept is not None:
        return np.asarray(kept.restored(values))
    return values * _units(choose_dequantization(None, source))


def _units(dequantization: Dequantization) -> int:
    return 255 if dequantization.whole_numbers else 1


def _in_units(frames: NDArray[Any], dequantization: Dequantization) -> Array:
    return frames.astype(np.float64) / _units(dequantization)


def _mixed(variance: Array, weight: float) -> Array:
    """Draw variances towards the mean of their channel; features are channels."""
    mean = np.nanmean(variance, axis=(-2, -1), keepdims=True) if variance.ndim == 3 else variance
    return (1 - weight) * variance + weight * mean


def _local_score(train: Array, scored: Array, held: Array | None = None) -> float:
    weight = _WEIGHT
    if held is not None:
        weight = max(_WEIGHTS, key=lambda w: _score(_mixed(train, w), held))
    return _score(_mixed(train, weight), scored)


def _score(variance: Array, square: Array) -> float:
    """Mean log-density of a Normal, given the mean square of the distance from its mean."""
    return -0.5 * float(np.nanmean(np.log(2 * np.pi * variance) + square / variance))


__getattr__ = old_names(__name__)
