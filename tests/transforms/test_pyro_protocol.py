"""Pyro's own protocol of conditional transforms, and batches of what is given."""

import pyro.distributions as dist
import pytest
import torch
from pyro.distributions.conditional import (
    ConditionalComposeTransformModule,
    ConditionalTransformedDistribution,
)

from pyro_afslvm import LSTMConditioner, MLPConditioner, TemporalAffine, TemporalMixture
from tests.support.registry import TRANSFORMS, Case
from tests.support.transforms import close, draw, log_prob

WITH_CONTEXT = {name: case for name, case in TRANSFORMS.items() if case.context_features}
each_with_context = pytest.mark.parametrize("case", WITH_CONTEXT.values(), ids=WITH_CONTEXT)
each = pytest.mark.parametrize("case", TRANSFORMS.values(), ids=TRANSFORMS)


@each_with_context
def test_in_a_conditional_distribution(case: Case) -> None:
    transform = case.make()
    if transform.context_length:
        pytest.skip("needs a history, which Pyro's protocol has no word for")
    x, given = draw(case, transform, 3)
    context = given["context"]
    base = dist.Normal(x.new_zeros(x.shape[1:]), 1.0).to_event(x.ndim - 1)
    expected = log_prob(transform, x, context=context)
    for transforms in ([transform], [ConditionalComposeTransformModule([transform])]):
        conditional = ConditionalTransformedDistribution(base, transforms).condition(context)
        assert conditional.batch_shape == (3,)
        assert close(conditional.log_prob(x), expected, 1e-12)
        assert conditional.sample((2,)).shape == (2, *x.shape)


@each
def test_a_batch_of_histories_over_one_base(case: Case) -> None:
    transform = case.make()
    x, given = draw(case, transform, 3, more=1)
    event = x.shape[1:]
    base = dist.Normal(x.new_zeros(event), 1.0).to_event(len(event))
    flow = dist.TransformedDistribution(base, [transform.condition(**given)])
    assert flow.batch_shape == (3,)
    assert flow.expand([2, 3]).sample().shape == (2, 3, *event)
    with torch.no_grad():
        assert flow.sample().shape == (3, *event)
        assert flow.sample((2,)).shape == (2, 3, *event)
    one = x[0]  # one sequence after each of the histories
    each_after = [
        log_prob(transform, one, **{k: v if v is None else v[i] for k, v in given.items()})
        for i in range(3)
    ]
    assert close(flow.log_prob(one), torch.stack(each_after), 1e-10)
    back = dist.TransformedDistribution(base, [transform.condition(**given).inv])
    assert back.batch_shape == (3,)
    assert back.sample().shape == (3, *event)


def test_gradients_through_a_conditional_distribution() -> None:
    flow = TemporalAffine(LSTMConditioner(2, hidden=4, context_features=3))
    stack = ConditionalComposeTransformModule([flow])
    base = dist.Normal(torch.zeros(5, 2), 1.0).to_event(2)
    context = torch.randn(4, 5, 3)
    conditional = ConditionalTransformedDistribution(base, [stack]).condition(context)
    conditional.log_prob(torch.randn(4, 5, 2)).sum().backward()
    assert {id(p) for p in stack.parameters()} == {id(p) for p in flow.parameters()}
    assert all(p.grad is not None for p in stack.parameters())


def test_a_mask_broadcasts_too() -> None:
    flow = TemporalMixture(MLPConditioner(2, window=1, num_parameters=9), initial="learned")
    mask = torch.tensor([[True, True, False], [True, True, True]])
    base = dist.Normal(torch.zeros(3, 2), 1.0).to_event(2)
    assert dist.TransformedDistribution(base, [flow.condition(mask=mask)]).batch_shape == (2,)
