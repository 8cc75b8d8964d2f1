"""What every source has, one's own too, and what it was called before."""

from typing import Any

import numpy as np
import pytest

from pyro_afslvm.data import (
    Arrays,
    BinarizedMNIST,
    MovingDigits,
    SequenceSource,
    choose_dequantization,
    choose_noise,
)
from tests.support.processes import run_python


class Plain(SequenceSource):
    """The least a source has."""

    name = "plain"
    frame_shape = (3,)  # type: ignore[assignment]

    def dataset(self, split: Any, *, num_frames: int) -> Any:
        raise NotImplementedError

    def describe(self) -> dict[str, object]:
        return {"name": self.name}


def test_dequantization_follows_the_data_unless_it_is_asked_for() -> None:
    pictures = MovingDigits(size=16)
    numbers = Arrays.from_array(np.random.default_rng(0).normal(size=(50, 2)))
    assert choose_dequantization(None, pictures).name == "gaussian"
    assert choose_dequantization("uniform", pictures).name == "uniform"
    assert choose_dequantization(None, numbers).name == "none"
    assert choose_dequantization(None, BinarizedMNIST()).name == "binary"
    with pytest.raises(ValueError, match="'none' is for real numbers, but moving_digits holds"):
        choose_dequantization("none", pictures)
    for name in ("gaussian", "uniform"):
        with pytest.raises(ValueError, match=f"'{name}' is for 8-bit pixels, but arrays holds"):
            choose_dequantization(name, numbers)


def test_names_of_the_release_before() -> None:
    assert choose_noise is choose_dequantization
    assert BinarizedMNIST().noise == BinarizedMNIST().dequantization == "binary"
    assert Plain().noise == Plain().dequantization == "gaussian"


@pytest.mark.parametrize("as_property", [True, False])
def test_a_source_of_the_release_before_is_honoured(as_property: bool) -> None:
    noise = property(lambda self: "none") if as_property else "none"
    with pytest.warns(FutureWarning, match="Old.noise is called dequantization now"):
        old = type("Old", (Plain,), {"noise": noise})
    younger = type("Younger", (old,), {})
    newer = type("Newer", (old,), {"dequantization": "binary"})
    for source, name in ((old(), "none"), (younger(), "none"), (newer(), "binary")):
        assert source.dequantization == name
        assert choose_dequantization(None, source).name == name
    assert old().noise == "none"


def test_the_warning_points_at_the_line_that_defines_the_class() -> None:
    with pytest.warns(FutureWarning, match="noise is called dequantization now") as caught:

        class Old(Plain):
            noise = "none"

    assert [warning.filename for warning in caught] == [__file__]


def test_import_and_settings_are_light() -> None:
    code = (
        "import sys; from pyro_afslvm.data import registry\n"
        "for source in registry.SOURCES:\n"
        "    needed = {'path': 'x'} if source.__name__ in ('Arrays', 'Series', 'Videos') else {}\n"
        "    source(**needed).config()\n"
        "heavy = {'torch', 'sklearn', 'pooch', 'av', 'h5py', 'pandas'}\n"
        "heavy |= {'google', 'tensorflow', 'zarr'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    assert run_python("-c", code).stdout.strip() == "[]"


def test_config_names_the_class() -> None:
    assert MovingDigits(size=16).config() == {"class": "MovingDigits", "arguments": {"size": 16}}
    assert Plain().config() == {"class": f"{__name__}.Plain", "arguments": {}}
