"""Transforms as modules: gradients, storage, precision and devices."""

import copy
import io
import pickle

import pytest
import torch
from torch import Tensor

from tests.support.registry import (
    KINDS,
    TRANSFORMS,
    Case,
)
from tests.support.transforms import close, draw, log_prob

each_kind = pytest.mark.parametrize("case", KINDS.values(), ids=KINDS)


@each_kind
@pytest.mark.parametrize("training", [False, True], ids=["eval", "train"])
def test_every_parameter_gets_a_finite_gradient(case: Case, training: bool) -> None:
    transform = case.make().train(training)
    x, given = draw(case, transform, 3, length=(transform.reach or 3) + 2)
    for direction in ("log_prob", "sample"):
        transform.zero_grad()
        if direction == "log_prob":
            value = log_prob(transform, x, **given).sum()
        else:
            value = transform.condition(**given)(x).square().sum()
        if list(transform.parameters()):
            value.backward()
        for name, parameter in transform.named_parameters():
            assert parameter.grad is not None, name
            assert torch.isfinite(parameter.grad).all(), name
            if not training:  # batch norm takes a shift before it away
                assert (parameter.grad != 0).any(), name


@each_kind
def test_gradient_of_the_log_prob(case: Case) -> None:
    transform = case.make()
    x, given = draw(case, transform, length=3)
    x.requires_grad_()
    tensors = [v.requires_grad_() for v in given.values() if v is not None]

    def value(*_: Tensor) -> Tensor:
        transform.clear_cache()  # gradcheck moves its inputs through .data
        return log_prob(transform, x, **given)

    assert torch.autograd.gradcheck(value, (x, *tensors), atol=1e-6, fast_mode=True)


@each_kind
def test_state_dict(case: Case) -> None:
    transform, other = case.make(seed=1), case.make(seed=2)
    x, given = draw(case, transform, 2)
    expected = transform.condition(**given).inv(x)
    sample = transform.condition(**given)(x)
    before = other.condition(**given).inv(x)
    file = io.BytesIO()
    torch.save(transform.state_dict(), file)
    file.seek(0)
    other.load_state_dict(torch.load(file, weights_only=True))
    if list(transform.parameters()):
        assert not torch.equal(before, expected)
    assert torch.equal(other.condition(**given).inv(x), expected)
    assert torch.equal(other.condition(**given)(x), sample)


@each_kind
def test_copies_after_use(case: Case) -> None:
    transform = case.make()
    x, given = draw(case, transform, 2)
    y = transform.condition(**given).inv(x.requires_grad_())  # the cache now holds a graph
    assert y.requires_grad
    for twin in (copy.deepcopy(transform), pickle.loads(pickle.dumps(transform))):
        assert torch.equal(twin.condition(**given).inv(x), y)
        with torch.no_grad():
            for p in twin.parameters():
                p.add_(0.5)
        if list(twin.parameters()):
            assert not torch.equal(twin.condition(**given).inv(x), y)
        assert torch.equal(transform.condition(**given).inv(x), y)


@each_kind
def test_autocast_leaves_the_results_in_single_precision(case: Case) -> None:
    transform = case.make(dtype=torch.float32)
    x, given = draw(case, transform, 3)
    x = x.float()
    given = {k: None if v is None else v.float() for k, v in given.items()}
    plain = transform.condition(**given).inv(x)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        conditioned = transform.condition(**given)
        y = conditioned.inv(x)
        log_det = conditioned.log_abs_det_jacobian(y, x)
        sample = conditioned(x)
        log_density = log_prob(transform, x, **given)
    for result in (y, log_det, sample, log_density):
        assert result.dtype == torch.float32
        assert torch.isfinite(result).all()
    torch.testing.assert_close(y, plain, rtol=0.1, atol=0.2)


@pytest.mark.parametrize("name", ["conv-group-3", "mlp-3"])
def test_autocast_reaches_the_networks_and_not_their_heads(name: str) -> None:
    case = TRANSFORMS[name]
    transform = case.make(dtype=torch.float32)
    networks, heads = set(), set()
    conditioner = transform.conditioner
    body = conditioner.body if name.startswith("conv") else conditioner.fuse
    body.register_forward_hook(lambda *args: networks.add(args[-1].dtype))
    conditioner.heads.register_forward_hook(lambda *args: heads.add(args[-1].dtype))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        transform.inv(case.frames(2, 5).float())
    assert networks == {torch.bfloat16}
    assert heads == {torch.float32}


def on_device(case: Case, device: str) -> list[tuple[Tensor, Tensor]]:
    """Noise, frames and log det there, each with what it is on the CPU."""
    transform, moved = case.make(), case.make().to(device)
    x, given = draw(case, transform, 2)
    here = transform.condition(**given)
    there = moved.condition(**{k: None if v is None else v.to(device) for k, v in given.items()})
    y = here.inv(x)
    pairs = [(here, x), (here.inv, x), (lambda x: here.log_abs_det_jacobian(y, x), x)]
    results = [there(x.to(device)), there.inv(x.to(device))]
    results.append(there.log_abs_det_jacobian(results[1], x.to(device)))
    return [(result, f(v)) for result, (f, v) in zip(results, pairs, strict=True)]


@each_kind
def test_nothing_is_left_on_another_device(case: Case) -> None:
    """On ``meta`` nothing is computed, but mixed devices are an error as on an accelerator."""
    for there, here in on_device(case, "meta"):
        assert there.device.type == "meta"
        assert there.shape == here.shape


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_on_cuda() -> None:
    for case in TRANSFORMS.values():
        for there, here in on_device(case, "cuda"):
            assert there.device.type == "cuda"
            assert close(there.cpu(), here, 1e-8)
