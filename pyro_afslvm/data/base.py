"""Where sequences come from: the settings of a data set, without its pixels."""

import abc
from typing import TYPE_CHECKING, Any, ClassVar, Literal

if TYPE_CHECKING:
    from typing import Self

    from pyro_afslvm.data.datasets import SequenceDataset

Noise = Literal["gaussian", "uniform", "none", "binary"]
Split = Literal["train", "validation", "test"]
SPLITS: tuple[Split, ...] = ("train", "validation", "test")


class EmptySplitError(ValueError):
    """A split holds no sequences."""


class ShortSplitError(ValueError):
    """All sequences of a split are shorter than was asked for."""


class SequenceSource(abc.ABC):
    """A place sequences come from; holds settings only, so that it is cheap to make.

    A subclass takes typed keyword-only arguments, from which the command line makes its
    options.

    Attributes:
        name: Short name in snake case, as it appears in results.
    """

    name: ClassVar[str]
    _arguments: dict[str, Any]

    def __new__(cls, **arguments: Any) -> "Self":
        """Note the arguments, so that a run can make the same source again."""
        source = super().__new__(cls)
        source._arguments = arguments
        return source

    def config(self) -> dict[str, Any]:
        """Class and arguments as JSON values, for :func:`source_from_config`."""
        return {"class": type(self).__name__, "arguments": self._arguments}

    @property
    @abc.abstractmethod
    def frame_shape(self) -> tuple[int, ...]:
        """Shape of one frame, (C, H, W) or (D,)."""

    @property
    def noise(self) -> Noise:
        """Noise its data need by default: ``"gaussian"`` for uint8, ``"none"`` for floats."""
        return "gaussian"

    @property
    def num_frames(self) -> int | None:
        """Frames of every sequence; ``None`` where any number may be asked for."""
        return None

    @abc.abstractmethod
    def dataset(self, split: Split, *, num_frames: int) -> "SequenceDataset":
        """Sequences of one split.

        Arguments:
            split: ``"train"``, ``"validation"`` or ``"test"``.
            num_frames: Length T of each sequence.

        Raises:
            EmptySplitError: The split holds no sequences.
            ShortSplitError: Its sequences are all shorter than ``num_frames``.
            ValueError: The split is unknown.
        """

    @abc.abstractmethod
    def describe(self) -> dict[str, object]:
        """Settings as JSON values, for the protocol; the same on every machine."""


def source_from_config(config: dict[str, Any]) -> SequenceSource:
    """Make the source of which this is the ``config()``; sources of this library only.

    Raises:
        ValueError: It names something else.
    """
    import pyro_afslvm.data as data

    name = config.get("class")
    source = getattr(data, name) if isinstance(name, str) and name in data.__all__ else None
    if not (isinstance(source, type) and issubclass(source, SequenceSource)):
        raise ValueError(f"{name!r} is no source of sequences of this library: give --data")
    try:
        made: SequenceSource = source(**config.get("arguments", {}))
    except TypeError as error:
        raise ValueError(f"settings of {name} are damaged: {error}") from None
    return made


def check_request(split: str, num_frames: int) -> None:
    """Checks what :meth:`SequenceSource.dataset` was asked for.

    Raises:
        ValueError: The split is unknown or ``num_frames`` is not positive.

    Example:
        >>> check_request("dev", 13)
        Traceback (most recent call last):
        ValueError: unknown split 'dev': expected 'train', 'validation' or 'test'
    """
    if split not in SPLITS:
        raise ValueError(f"unknown split {split!r}: expected 'train', 'validation' or 'test'")
    if num_frames < 1:
        raise ValueError(f"num_frames must be at least 1, got {num_frames}")


def check_minimum(**bounds: tuple[int, int]) -> None:
    """Checks that each ``name=(value, smallest)`` is an integer of at least ``smallest``.

    Raises:
        ValueError: One is not.

    Example:
        >>> check_minimum(seed=(-1, 0))
        Traceback (most recent call last):
        ValueError: seed must be an integer of at least 0, got -1
    """
    for name, (value, smallest) in bounds.items():
        if not isinstance(value, int) or isinstance(value, bool) or value < smallest:
            raise ValueError(f"{name} must be an integer of at least {smallest}, got {value!r}")
