"""Old names of methods and attributes, for one release."""

import warnings
from typing import Any


def renamed(old: str, new: str) -> Any:
    """An attribute that leads to the one of a new name, with a warning."""

    def lead(self: Any) -> Any:
        warnings.warn(f"{type(self).__name__}.{old} is now {new}", FutureWarning, stacklevel=2)
        return getattr(self, new)

    return property(lead)
