"""Checks of settings and shapes."""

import pytest

from pyro_afslvm.utils.checks import check_image, check_minimum


@pytest.mark.parametrize("value", [0, 1.0, True, "1", None])
def test_what_is_no_integer_or_too_small_is_refused(value: object) -> None:
    with pytest.raises(ValueError, match=r"^limit must be an integer of at least 1, got "):
        check_minimum(seed=(0, 0), limit=(value, 1))


def test_what_is_large_enough_passes() -> None:
    check_minimum(seed=(0, 0), limit=(7, 1))


@pytest.mark.parametrize("shape", [(), (28, 28), (1, 0, 28), (1, 1, 28, 28)])
def test_what_is_no_image_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"^expected images \(C, H, W\), got "):
        check_image(shape)
    check_image((1, 28, 28))
