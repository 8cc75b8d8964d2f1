"""Checks of settings."""


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
