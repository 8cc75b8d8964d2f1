"""Whether a transform is affine, what follows from it, and the names it had before."""

import warnings
from typing import Any

import pytest
import torch
from torch import Tensor

from pyro_afslvm import SLVM, FlowModel, StreamingFilter
from pyro_afslvm.networks import MLPDecoder
from pyro_afslvm.transforms import (
    AffineStep,
    Inverse,
    LSTMConditioner,
    TemporalAffine,
    TemporalChain,
    TemporalTransform,
    check_affine,
    compose,
)
from pyro_afslvm.transforms.univariate import Affine, composed
from tests.support.registry import NOT_AFFINE, TRANSFORMS, Warped
from tests.support.transforms import close, draw


def test_what_is_affine() -> None:
    for name, case in TRANSFORMS.items():
        transform = case.make()
        assert transform.is_affine == (name not in NOT_AFFINE), name
        _, given = draw(case, transform, 2)
        assert transform.condition(**given).is_affine == transform.is_affine


def test_a_transform_that_says_nothing_is_not_taken_for_affine() -> None:
    class Silent(TemporalTransform):
        """Whose steps have a shift."""

        def __init__(self) -> None:
            super().__init__(frame_dims=1, context_length=0, reach=0)

        def intermediates(self, x: Tensor, **_: Any) -> list[AffineStep]:
            return [AffineStep(torch.zeros_like(x), torch.zeros_like(x), x)]

    x = torch.randn(2, 4, 2)
    steps = Silent().condition().intermediates(x)
    assert [type(step) for step in steps] == [Inverse]
    assert Silent().condition().inv(x) is x
    with pytest.raises(TypeError, match="no mean: Silent is not affine in its noise"):
        check_affine(Silent().condition(), "mean")
    with pytest.raises(TypeError, match="steps of affine transforms, got one that has no shift"):
        compose(steps)


def test_steps_of_affine_transforms_compose() -> None:
    """As transforms of numbers do."""
    pairs = [(1.0, 0.5), (-2.0, 0.1), (0.3, -0.7)]
    tensors = [(torch.tensor(a), torch.tensor(b)) for a, b in pairs]
    y = torch.tensor(0.8)
    x = y
    for shift, log_scale in tensors[::-1]:
        x = shift + log_scale.exp() * x
    shift, log_scale = compose([AffineStep(*pair, y) for pair in tensors])
    assert close(shift + log_scale.exp() * y, x, 1e-6)
    assert close(log_scale, torch.tensor(-0.1), 1e-6)
    whole = composed([Affine(*pair) for pair in tensors[::-1]])
    assert isinstance(whole, Affine)
    assert close(whole(y), x, 1e-6)


def test_models_of_a_flow_without_a_map_given_the_past_have_no_mean() -> None:
    x = torch.randn(3, 5, 2)
    flow = FlowModel(Warped(), (2,))
    assert flow.log_prob(x).isfinite().all()
    prior = TemporalAffine(LSTMConditioner(4, hidden=6))
    model = SLVM((2,), 4, prior=prior, decoder=MLPDecoder(4, 2), flow=Warped())
    z = torch.zeros(3, 5, 4)
    for mean in (lambda: flow.predictive_mean(x), lambda: model.predictive_mean(x, z)):
        with pytest.raises(TypeError, match="no mean: Warped does not define `given_past`"):
            mean()
    with pytest.raises(TypeError, match="no prediction: Warped does not define `predict`"):
        StreamingFilter(flow).update(x[:, 0])


def test_old_names() -> None:
    import pyro_afslvm.transforms as transforms

    with pytest.warns(FutureWarning, match=r"transforms\.Level has moved: .*AffineStep$"):
        assert transforms.Level is AffineStep
    with pytest.raises(AttributeError, match="no attribute 'Levels'"):
        _ = transforms.Levels
    case = TRANSFORMS["mlp-1+mlp-3"]
    transform, x = case.make(), case.frames(2, 4)
    expected = transform.intermediates(x)
    for whose in (transform, transform.condition()):
        with pytest.warns(FutureWarning, match="levels is now intermediates"):
            found = whose.levels(x)
        for step, known in zip(found, expected, strict=True):
            assert torch.equal(step.noise, known.noise)
    with pytest.warns(FutureWarning, match=r"compose\(levels=\) is now steps="):
        compose(levels=expected)


def test_a_transform_of_before() -> None:
    """A user's own, which defines its inverse by the old name."""
    with pytest.warns(FutureWarning, match="levels"):

        class Shifted(TemporalTransform):
            is_affine = True

            def __init__(self) -> None:
                super().__init__(frame_dims=1, context_length=0, reach=0)

            def levels(self, x: Tensor, *, history: Any = None, context: Any = None) -> Any:
                return [AffineStep(torch.ones_like(x), torch.zeros_like(x), x - 1)]

    x = torch.randn(2, 4, 2)
    conditioned = Shifted().condition()
    assert torch.equal(conditioned.inv(x), x - 1)
    assert torch.equal(compose(conditioned.intermediates(x))[0], torch.ones_like(x))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        TemporalChain([Shifted()]).inv(x)
