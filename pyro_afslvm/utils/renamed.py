"""Old names of methods, attributes and keyword arguments, for one release."""

import warnings
from collections.abc import Callable
from functools import wraps
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")


class Renamed:
    """An attribute that leads to the one of a new name, with a warning.

    It also serves what was written for the old name: ``super().old(...)`` within an override, and
    an assignment to it.

    Args:
        new: the new name.
    """

    def __init__(self, new: str) -> None:
        self.new = new

    def __set_name__(self, owner: type, name: str) -> None:
        self.old = name

    def __get__(self, obj: Any, kind: type) -> Any:
        warnings.warn(f"{kind.__name__}.{self.old} is now {self.new}", FutureWarning, stacklevel=2)
        overridden = [k for k in kind.__mro__ if vars(k).get(self.old, self) is not self]
        if obj is None or not overridden:
            return getattr(kind if obj is None else obj, self.new)
        return getattr(super(overridden[-1], obj), self.new)  # asked for by that class's override

    def __set__(self, obj: Any, value: Any) -> None:
        warnings.warn(
            f"{type(obj).__name__}.{self.old} is now {self.new}", FutureWarning, stacklevel=2
        )
        setattr(obj, self.new, value)


class OldNames:
    """A class whose subclasses may define what is :class:`Renamed` by its old name still."""

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        for old, value in [*vars(cls).items()]:
            renamed = next((vars(k)[old] for k in cls.__mro__[1:] if old in vars(k)), None)
            if isinstance(renamed, Renamed) and renamed.new not in vars(cls):
                warnings.warn(
                    f"{cls.__name__}.{old} is now {renamed.new}: define that",
                    FutureWarning,
                    stacklevel=2,
                )
                setattr(cls, renamed.new, value)


def renamed_keyword(old: str, new: str) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Let a function take a keyword argument by its old name too, with a warning."""

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        @wraps(function)
        def call(*args: P.args, **options: P.kwargs) -> R:
            if old in options:
                name = function.__qualname__.removesuffix(".__init__")
                warnings.warn(f"{name}({old}=) is now {new}=", FutureWarning, stacklevel=2)
                options[new] = options.pop(old)
            return function(*args, **options)

        return call

    return decorate
