"""Shapes, padding and precision of the inverse autoregressive flow of vectors."""

import math
from typing import Any

import pyro.distributions as dist
import pytest
import torch
from torch import Tensor
from torch.autograd.functional import jacobian

from pyro_afslvm.transforms import ConvInverseAutoregressive
from tests.support.iaf import CONTEXT, FEATURES, draw, make

# shapes, padding, precision -------------------------------------------------------------


def test_particles_are_a_loop() -> None:
    iaf = make()
    z, h = draw(6, 2, 4), draw(2, 4, size=CONTEXT)
    conditioned = iaf.condition(h)
    value = conditioned(z)
    log_det = conditioned.log_abs_det_jacobian(z, value)
    assert log_det.shape == (6, 2, 4)
    for n in range(6):
        alone = conditioned(z[n])
        torch.testing.assert_close(value[n], alone, rtol=0, atol=1e-12)
        known = conditioned.log_abs_det_jacobian(z[n], alone)
        torch.testing.assert_close(log_det[n], known, rtol=0, atol=1e-12)
    iaf.clear_cache()
    torch.testing.assert_close(conditioned.inv(value), z, rtol=0, atol=1e-10)


def test_values_are_broadcast_to_their_context() -> None:
    iaf, h = make(), draw(2, 4, size=CONTEXT)
    base = dist.Normal(torch.zeros(FEATURES).double(), 1.0).to_event(1)
    moved = dist.TransformedDistribution(base, [iaf.condition(h)])
    assert moved.batch_shape == (2, 4)
    assert iaf.condition(h).inv.forward_shape((FEATURES,)) == (2, 4, FEATURES)
    value = moved.rsample((5,))
    assert value.shape == (5, 2, 4, FEATURES)
    assert value.unique().numel() == value.numel()  # each context has noise of its own
    assert moved.log_prob(value).shape == (5, 2, 4)
    z = draw()
    torch.testing.assert_close(iaf.condition(h)(z)[1, 3], iaf.condition(h[1, 3])(z))


def test_the_context_matters_to_every_entry() -> None:
    iaf = make()
    z = draw()
    seen = jacobian(lambda h: iaf.condition(h)(z), draw(size=CONTEXT))
    assert (seen != 0).all()


@pytest.mark.parametrize(("rubbish", "depth"), [(0.0, 2), (1e30, 2), (math.nan, 2), (math.nan, 0)])
def test_padding_adds_exactly_zero(rubbish: float, depth: int) -> None:
    mask = torch.tensor([[True, True, True], [True, False, False]])
    z, h = draw(2, 3), draw(2, 3, size=CONTEXT)
    iaf, plain = make(depth=depth), make(depth=depth)
    padded_z, padded_h = (a.masked_fill(~mask[..., None], rubbish) for a in (z, h))
    conditioned = iaf.condition(padded_h, mask=mask)
    value = conditioned(padded_z)
    log_det = conditioned.log_abs_det_jacobian(padded_z, value)
    assert torch.equal(log_det[~mask], torch.zeros(2, dtype=torch.float64))
    assert torch.allclose(value[~mask], padded_z[~mask], rtol=0, atol=0, equal_nan=True)
    iaf.clear_cache()
    inverse = conditioned.inv(value)
    assert torch.allclose(inverse[~mask], padded_z[~mask], rtol=0, atol=0, equal_nan=True)
    torch.testing.assert_close(inverse[mask], z[mask], rtol=0, atol=1e-10)
    torch.testing.assert_close(
        conditioned.log_abs_det_jacobian(inverse, value), log_det, rtol=0, atol=1e-10
    )
    # the same numbers and the same gradients as without the padded vectors
    lone = plain.condition(h[mask])
    known = lone(z[mask])
    known_log_det = lone.log_abs_det_jacobian(z[mask], known)
    torch.testing.assert_close(value[mask], known, rtol=0, atol=1e-12)
    torch.testing.assert_close(log_det[mask], known_log_det, rtol=0, atol=1e-12)
    if depth:
        for some in (value[mask].square().sum() + log_det.sum(), inverse[mask].sum()):
            for parameter in iaf.parameters():
                (gradient,) = torch.autograd.grad(some, parameter, retain_graph=True)
                assert gradient.isfinite().all()
        (value[mask].square().sum() + log_det.sum()).backward()
        (known.square().sum() + known_log_det.sum()).backward()
        for a, b in zip(iaf.parameters(), plain.parameters(), strict=True):
            torch.testing.assert_close(a.grad, b.grad, rtol=0, atol=1e-12)


@pytest.mark.parametrize("depth", [0, 2])
def test_values_are_float32_or_better(depth: int) -> None:
    iaf = make(dtype=torch.float32, depth=depth)
    for given, wanted in ((torch.bfloat16, torch.float32), (torch.float64, torch.float64)):
        z, h = draw(4).to(given), draw(4, size=CONTEXT).to(given)
        conditioned = iaf.condition(h)
        value = conditioned(z)
        assert value.dtype == wanted
        assert conditioned.log_abs_det_jacobian(z, value).dtype == wanted
        assert conditioned.inv(value.clone()).dtype == wanted


def test_autocast_reaches_the_networks_alone() -> None:
    iaf = make(dtype=torch.float32, depth=1)
    z, h = draw(4).float(), draw(4, size=CONTEXT).float()
    full = iaf.condition(h)(z)
    seen: list[tuple[Tensor, Tensor]] = []
    iaf.networks[0].register_forward_hook(lambda *hook: seen.append(hook[-1]))
    with torch.autocast("cpu", torch.bfloat16):
        conditioned = iaf.condition(h.bfloat16())  # as an encoder under autocast gives it
        value = conditioned(z)
        log_det = conditioned.log_abs_det_jacobian(z, value)
        iaf.clear_cache()
        inverse = conditioned.inv(value)
    assert {output.dtype for outputs in seen for output in outputs} == {torch.bfloat16}
    assert {value.dtype, log_det.dtype, inverse.dtype} == {torch.float32}
    m, s = (output.float() for output in seen[0])  # from here on in float32
    torch.testing.assert_close(value, s.sigmoid() * z + (1 - s.sigmoid()) * m)
    torch.testing.assert_close(log_det, s.sigmoid().log().sum(-1))
    torch.testing.assert_close(value, full, rtol=0.05, atol=0.05)
    torch.testing.assert_close(inverse, z, rtol=0.05, atol=0.05)


def both_kinds() -> list[tuple[Any, tuple[int, ...], Tensor]]:
    """Flows of vectors and of images, with the shape of an event and a context."""
    images = ConvInverseAutoregressive(2, context_channels=3, hidden=(4,), depth=2).double()
    vectors: Any = make()
    return [
        (vectors, (FEATURES,), draw(5, 4, size=CONTEXT)),
        (images, (2, 3, 3), torch.randn(5, 4, 3, 3, 3).double()),
    ]


@pytest.mark.parametrize("kind", [0, 1], ids=["vectors", "images"])
def test_shapes_are_those_of_what_is_made(kind: int) -> None:
    iaf, event, context = both_kinds()[kind]
    conditioned = iaf.condition(context)
    for batch in ((), (4,), (5, 1), (2, 5, 4)):
        z = torch.randn(*batch, *event).double()
        value = conditioned(z)
        for shape in (conditioned.forward_shape(z.shape), conditioned.inv.inverse_shape(z.shape)):
            assert shape == value.shape
        assert conditioned.inverse_shape(value.shape) == conditioned.inv(value.clone()).shape
        assert conditioned.inv.forward_shape(value.shape) == value.shape
        assert iaf.forward_shape(z.shape) == iaf.inv.forward_shape(z.shape) == z.shape
    for wrong in ((), event[1:], (event[0] + 1, *event[1:])):
        for transform in (iaf, iaf.inv, conditioned, conditioned.inv):
            with pytest.raises(ValueError, match=r"expected (vectors|images)"):
                transform.forward_shape(wrong)
    with pytest.raises(ValueError, match="do not broadcast"):
        conditioned.forward_shape((3, *event))


@pytest.mark.parametrize("kind", [0, 1], ids=["vectors", "images"])
def test_on_the_meta_device(kind: int) -> None:
    """Nothing is computed; what is left on another device is an error."""
    iaf, event, context = both_kinds()[kind]
    conditioned = iaf.to("meta").condition(context.to("meta"))
    z = torch.empty(4, *event, device="meta", dtype=torch.float64)
    value = conditioned(z)
    iaf.clear_cache()
    for found in (value, conditioned.inv(value)):
        assert found.is_meta
        assert found.shape == conditioned.forward_shape(z.shape)
    assert conditioned.log_abs_det_jacobian(z, value).shape == (5, 4)
