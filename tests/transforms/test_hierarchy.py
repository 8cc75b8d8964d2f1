"""Hierarchies of latents: what a level sees, and what is refused."""

import pytest
import torch
from torch.autograd.functional import jacobian

from pyro_afslvm.transforms import (
    TemporalHierarchy,
)
from tests.support.registry import (
    HIERARCHIES,
    affine,
    lstm,
    mlp,
)
from tests.support.transforms import draw, time_blocks


@pytest.mark.parametrize("name", [k for k in HIERARCHIES if not k.startswith("chain")])
def test_a_level_sees_the_present_of_the_levels_above(name: str) -> None:
    case = HIERARCHIES[name]
    transform = case.make()
    x, given = draw(case, transform)
    blocks = time_blocks(jacobian(transform.condition(**given).inv, x), len(x))
    for t, size in enumerate([transform.sizes[0]] * len(x)):
        assert (blocks[t, size:, t, :size] != 0).all()


def test_a_hierarchy_without_levels() -> None:
    part = affine(lstm())
    for parts, sizes in (([], []), ([part], [1, 1]), ([part], [0])):
        with pytest.raises(ValueError, match="a size for each level"):
            TemporalHierarchy(parts, sizes)
    with pytest.raises(ValueError, match="starts from nothing"):
        TemporalHierarchy([affine(mlp(2), None)], [2])
    with pytest.raises(ValueError, match="vectors of 2 numbers, got 3"):
        TemporalHierarchy([part], [2]).inv(torch.zeros(4, 3))
