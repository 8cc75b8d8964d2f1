"""Every conditioner: its two faces agree, and neither sees the present."""

import pytest
import torch

from tests.registry import CONDITIONERS, Case, build, sequence

each = pytest.mark.parametrize("case", CONDITIONERS.values(), ids=CONDITIONERS.keys())


@each
@pytest.mark.parametrize("more", [0, 3])
@pytest.mark.parametrize("batch", [(), (2,), (2, 3)], ids=str)
def test_step_equals_forward(case: Case, more: int, batch: tuple[int, ...]):
    module = build(case)
    needed = module.window
    x, history, context = sequence(case, module, batch=batch, past=needed + more)
    dim = -1 - len(case.frame_shape)
    shift, log_scale = module(x, history=history, context=context)
    past = 0 if history is None else history.shape[dim]
    before = None if context is None or not past else context[..., :past, :]
    state = module.initial_state(torch.Size(batch), history=history, context=before)
    previous = None if history is None else history.select(dim, -1)
    for t in range(x.shape[dim]):
        entry = None if context is None else context[..., past + t, :]
        (now_shift, now_log_scale), state = module.step(previous, state, context=entry)
        for now, whole in ((now_shift, shift), (now_log_scale, log_scale)):
            expected = whole.select(dim, t)
            now = now.to(expected).expand_as(expected)
            torch.testing.assert_close(now, expected, rtol=0, atol=1e-12)
        previous = x.select(dim, t)


@each
def test_neither_present_nor_future_is_seen(case: Case):
    module = build(case)
    x, history, context = sequence(case, module, length=5)
    for part in range(2):

        def entries(frames, part=part):
            return module(frames, history=history, context=context)[part]

        matrix = torch.autograd.functional.jacobian(entries, x)
        size = x[0].numel()
        blocks = matrix.reshape(-1, size, 5, size) if matrix.dim() else None
        if blocks is None or blocks.shape[0] != 5:
            assert not matrix.any()  # a learned scale, the same for all
            continue
        for t in range(5):
            assert (blocks[t, :, t:] == 0).all()
    moved = module(x + 0.0, history=history, context=context)[0]
    assert moved.shape == x.shape


@each
def test_context_is_seen_up_to_the_present(case: Case):
    if not case.context:
        pytest.skip("has no context")
    module = build(case)
    x, _, context = sequence(case, module, length=4)
    matrix = torch.autograd.functional.jacobian(lambda c: module(x, context=c)[0], context)
    for t in range(4):
        assert (matrix[t, :, t + 1 :] == 0).all()
        assert (matrix[t, :, t] != 0).any()


def test_residual_zero_network_copies_the_last_frame():
    case = CONDITIONERS["conv, group norm, residual"]
    module = build(case)
    with torch.no_grad():
        for parameter in module.shift.parameters():
            parameter.zero_()
    x, history, _ = sequence(case, module)
    shift, _ = module(x, history=history)
    assert torch.equal(shift, torch.cat([history[-1:], x[:-1]]))
