"""Sizes of what is measured, and its models and frames."""

from dataclasses import dataclass, fields

import torch
from torch import Tensor

from pyro_afslvm import Pair
from pyro_afslvm.runs.recipe import build_pair, load_recipe
from pyro_afslvm.utils.checks import check_minimum


@dataclass(frozen=True)
class Sizes:
    """Sizes of the measurements.

    Args:
        repeats: of every measurement; the median counts.
        batch: sequences.
        frames: of a sequence.
        side: of a frame, in pixels.
        horizon: frames of a rollout.
        steps: of each training in either precision.
    """

    repeats: int = 5
    batch: int = 16
    frames: int = 13
    side: int = 64
    horizon: int = 10
    steps: int = 500

    def __post_init__(self) -> None:
        check_minimum(**{field.name: (getattr(self, field.name), 1) for field in fields(self)})


def build(recipe: str, sizes: Sizes) -> tuple[Pair, Tensor]:
    """A model and guide of the paper's, and random frames."""
    torch.manual_seed(0)
    pair = build_pair(load_recipe(recipe), (1, sizes.side, sizes.side))
    return pair, torch.rand(sizes.batch, sizes.frames, 1, sizes.side, sizes.side)
