"""Sources of sequences: the settings of a data set, without its pixels."""

import abc
import warnings
from typing import TYPE_CHECKING, Any, ClassVar

from pyro_afslvm.data.dequantize import (
    Dequantization,
    DequantizationName,
    NoDequantization,
    dequantization,
)
from pyro_afslvm.data.splits import Split
from pyro_afslvm.data.standardization import Standardization

if TYPE_CHECKING:
    from typing import Self

    from pyro_afslvm.data.sequences import SequenceDataset

_LIBRARY = f"{__name__.partition('.')[0]}."


class SequenceSource(abc.ABC):
    """A data set's settings, from which its sequences are made; cheap to make.

    A subclass takes typed keyword-only arguments, from which the command line makes its
    options. Defining one registers it, your own too: the command line and stored runs then
    find it by its name, see :mod:`pyro_afslvm.data.registry`.

    Attributes:
        name: Short name in snake case, as it appears in results.
    """

    name: ClassVar[str]
    _of_data: bool = True  # private: descriptions may list all public attributes
    _arguments: dict[str, Any]

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        REGISTERED[import_path(cls)] = cls
        if "noise" in vars(cls) and "dequantization" not in vars(cls):
            text = f"{cls.__name__}.noise is called dequantization now"
            warnings.warn(text, FutureWarning, stacklevel=3)  # above ABCMeta.__new__
            cls.dequantization = vars(cls)["noise"]  # type: ignore[method-assign]

    def __new__(cls, **arguments: Any) -> "Self":
        """Note the arguments, so that a run can make the same source again."""
        source = super().__new__(cls)
        source._arguments = arguments
        return source

    def config(self) -> dict[str, Any]:
        """Class and arguments as JSON values, for :func:`source_from_config`."""
        source = type(self)
        name = source.__name__ if source.__module__.startswith(_LIBRARY) else import_path(source)
        return {"class": name, "arguments": self._arguments}

    @property
    @abc.abstractmethod
    def frame_shape(self) -> tuple[int, ...]:
        """Shape of one frame, (C, H, W) or (D,)."""

    @property
    def unit(self) -> str:
        """What is independent of one another in a split, as error bars count it.

        A ``"sequence"``, or what several of them share, such as a ``"person"``; see
        :attr:`SequenceDataset.units`.
        """
        return "sequence"

    @property
    def dequantization(self) -> DequantizationName:
        """Name of the dequantization its data need: ``"gaussian"`` by default, for uint8."""
        return "gaussian"

    @property
    def noise(self) -> DequantizationName:
        """The same as :attr:`dequantization`, by its name of the release before."""
        return self.dequantization

    @property
    def standardization(self) -> Standardization | None:
        """What its values are standardized by; ``None`` for values as they are stored."""
        return None

    @property
    def of_data(self) -> bool:
        """Whether likelihoods of standardized values are given in the data's own units.

        Not so in runs of releases before.
        """
        return self._of_data

    @of_data.setter
    def of_data(self, value: bool) -> None:
        self._of_data = value

    def standardize_by(self, standardization: Standardization | None) -> None:
        """Standardize as the values were that a model learned from, or not at all.

        Raises:
            ValueError: These data cannot be.
        """
        if standardization is not None:
            raise ValueError(
                f"the model was trained on standardized values, and {type(self).__name__} cannot "
                "standardize: give the data as Arrays"
            )

    @property
    def context_features(self) -> int:
        """Covariates that are known of every frame in advance; 0 for none.

        Sequences of a source with covariates have :meth:`SequenceDataset.context`.
        """
        return 0

    @property
    def num_frames(self) -> int | None:
        """Frames of every sequence; ``None`` where any number may be asked for."""
        return None

    @abc.abstractmethod
    def dataset(self, split: Split, *, num_frames: int) -> "SequenceDataset":
        """Sequences of one split.

        Args:
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


REGISTERED: dict[str, type[SequenceSource]] = {}  # every source that was defined, by import path


def import_path(source: type) -> str:
    """Name a class by its module and its name there."""
    return f"{source.__module__}.{source.__qualname__}"


def choose_dequantization(asked: str | None, source: SequenceSource) -> Dequantization:
    """Choose the dequantization that was asked for, or else the one that the data need.

    Raises:
        ValueError: It is of no use for these data, or there is none of that name.

    Example:
        >>> from pyro_afslvm.data import MovingDigits
        >>> choose_dequantization("none", MovingDigits())
        Traceback (most recent call last):
        ValueError: dequantization 'none' is for real numbers, but moving_digits holds 8-bit ...
    """
    needed = dequantization(source.dequantization)
    chosen = needed if asked is None else dequantization(asked)
    if chosen.data != needed.data:
        raise ValueError(
            f"dequantization {chosen.name!r} is for {chosen.data}, but {source.name} holds "
            f"{needed.data}: take {needed.name!r}"
        )
    if isinstance(chosen, NoDequantization):
        return NoDequantization(source.standardization, of_data=source.of_data)
    return chosen


choose_noise = choose_dequantization  # its name in the release before
