"""Names that transforms across time had before, for one release."""

import warnings
from typing import Any


class OldNames:
    """A transform whose :meth:`intermediates` may still be called, and defined, as ``levels``."""

    intermediates: Any

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        if "levels" in vars(cls) and "intermediates" not in vars(cls):
            _warn()
            cls.intermediates = cls.levels

    def levels(self, *args: Any, **options: Any) -> Any:
        """Call :meth:`intermediates` by its old name."""
        _warn()
        return self.intermediates(*args, **options)


def _warn() -> None:
    warnings.warn("levels() is intermediates() now", FutureWarning, stacklevel=3)
