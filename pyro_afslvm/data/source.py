"""Where sequences come from: the settings of a data set, without its pixels."""

import abc
from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    from typing import Self

    from pyro_afslvm.data.sequences import SequenceDataset
from pyro_afslvm.data.splits import Noise, Split


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
