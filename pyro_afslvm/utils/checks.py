"""Checks of settings and shapes."""


def check_minimum(**bounds: tuple[int, int]) -> None:
    """Check that each ``name=(value, smallest)`` is an integer of at least ``smallest``.

    Raises:
        ValueError: one is not.

    >>> check_minimum(seed=(-1, 0))
    Traceback (most recent call last):
    ValueError: seed must be an integer of at least 0, got -1
    """
    for name, (value, smallest) in bounds.items():
        if not isinstance(value, int) or isinstance(value, bool) or value < smallest:
            raise ValueError(f"{name} must be an integer of at least {smallest}, got {value!r}")


def check_image(image_shape: tuple[int, ...]) -> None:
    """Check that a shape is that of an image, ``(C, H, W)``.

    Raises:
        ValueError: it is not.
    """
    if len(image_shape) != 3 or min(image_shape) < 1:
        raise ValueError(f"expected images (C, H, W), got {tuple(image_shape)}")
