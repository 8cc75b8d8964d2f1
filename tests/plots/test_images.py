"""Single images in rows."""

import math

import numpy as np
import pytest

from pyro_afslvm.plots import image_grid


def test_image_grid() -> None:
    images = np.linspace(0, 1, 25 * 4 * 4).reshape(25, 1, 4, 4)
    figure = image_grid({"images": images, "reconstructions": images}, columns=10)
    (axes,) = figure.axes
    pixels = axes.images[0].get_array()
    assert pixels.shape == (6 * 6, 10 * 6, 3)  # three times two rows, with gaps
    np.testing.assert_allclose(pixels[6:10, 6:10, 0], images[1, 0])  # below itself
    assert (pixels[24:30, 30:] == 1).all()  # nothing after the last
    assert [text.get_text() for text in figure.texts] == ["images", "reconstructions"]
    with pytest.raises(ValueError, match="expected at least one row, got none"):
        image_grid({})
    assert math.isclose(figure.get_figwidth(), 9.6)
