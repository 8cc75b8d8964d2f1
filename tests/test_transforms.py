"""Every transform: inverse, log det, causality, batch shapes, history, gradients, saving."""

import copy
import math
import pickle

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.autograd.functional import jacobian

import pyro_afslvm.transforms as T
from pyro_afslvm.transforms import TemporalTransform
from tests.registry import TRANSFORMS, WITH_PARAMETERS, Case, build, sequence

each = pytest.mark.parametrize("case", TRANSFORMS.values(), ids=TRANSFORMS.keys())
each_with_parameters = pytest.mark.parametrize(
    "case", WITH_PARAMETERS.values(), ids=WITH_PARAMETERS.keys()
)


def close(a: Tensor, b: Tensor, tolerance: float) -> None:
    torch.testing.assert_close(a, b, rtol=0, atol=tolerance)


def log_prob(transform, x: Tensor) -> Tensor:
    """Density of x under N(0, I) noise."""
    y = transform.inv(x)
    event = tuple(range(-transform.domain.event_dim, 0))
    base = torch.distributions.Normal(0.0, 1.0).log_prob(y).sum(event)
    return base - transform.log_abs_det_jacobian(y, x)


@each
def test_inverse(case: Case):
    module = build(case)
    x, history, context = sequence(case, module, batch=(2,))
    transform = module.condition(history=history, context=context)
    y = transform.inv(x)
    assert (y - x).abs().max() > 1e-3
    module._memo.clear()
    again = transform(y.clone())
    close(again, x, 1e-10)
    module._memo.clear()
    close(transform.inv(again.clone()), y, 1e-10)


@each
def test_log_det_and_causality(case: Case):
    module = build(case)
    x, history, context = sequence(case, module, length=4)
    transform = module.condition(history=history, context=context)
    size = x[0].numel()

    def inverse(flat: Tensor) -> Tensor:
        return transform.inv(flat.reshape(x.shape)).flatten()

    matrix = jacobian(inverse, x.flatten())  # d y / d x
    blocks = matrix.reshape(4, size, 4, size)
    for t in range(4):
        for later in range(t + 1, 4):
            assert (blocks[t, :, later] == 0).all()  # exactly
        present = blocks[t, :, t]
        assert (present - torch.diag(torch.diag(present)) == 0).all()
    log_det = transform.log_abs_det_jacobian(transform.inv(x), x)
    close(log_det, -torch.linalg.slogdet(matrix)[1], 1e-8)
    module._memo.clear()
    y = transform.inv(x)
    forward = jacobian(lambda flat: transform(flat.reshape(y.shape)).flatten(), y.flatten())
    close(forward @ matrix, torch.eye(len(matrix), dtype=torch.float64), 1e-8)


@each
@pytest.mark.parametrize("batch", [(), (3,), (2, 3)], ids=str)
def test_leading_batch_dimensions(case: Case, batch: tuple[int, ...]):
    module = build(case)
    x, history, context = sequence(case, module, batch=batch)
    transform = module.condition(history=history, context=context)
    y, log_det = transform.inv(x), transform.log_abs_det_jacobian(x, x)
    assert y.shape == x.shape
    assert log_det.shape == batch
    event = 1 + len(case.frame_shape)
    for i, one in enumerate(x.reshape(-1, *x.shape[-event:])):
        past = None if history is None else history.reshape(-1, *history.shape[-event:])[i]
        entry = None if context is None else context.reshape(-1, *context.shape[-2:])[i]
        alone = module.condition(history=past, context=entry)
        close(alone.inv(one), y.reshape(-1, *x.shape[-event:])[i], 1e-12)
        close(alone(alone.inv(one).clone()), one, 1e-10)


@each
def test_history_is_broadcast_against_samples(case: Case):
    module = build(case)
    x, history, context = sequence(case, module, batch=(2,))
    # little noise, or random weights take samples to 1e6, where float64 itself is off by 1e-7
    noise = 0.1 * torch.randn(5, *x.shape, dtype=torch.float64)
    samples = module.condition(history=history, context=context)(noise)
    assert samples.shape == noise.shape
    for i in range(5):
        close(module.condition(history=history, context=context)(noise[i]), samples[i], 1e-12)
    module._memo.clear()
    close(module.condition(history=history, context=context).inv(samples.clone()), noise, 1e-9)


@each
def test_history_split_anywhere_gives_the_same_density(case: Case):
    module = build(case)
    x, history, context = sequence(case, module, length=7)
    whole = module.condition(history=history, context=context)
    past = 0 if history is None else len(history)
    full = x if history is None else torch.cat([history, x])
    y = whole.inv(x)
    for cut in range(1, 7):
        first = module.condition(
            history=history, context=None if context is None else context[: past + cut]
        )
        then = module.condition(history=full[: past + cut], context=context)
        total = log_prob(first, x[:cut].clone()) + log_prob(then, x[cut:].clone())
        close(total, log_prob(whole, x), 1e-9)
        module._memo.clear()
        close(then(y[cut:].clone()), x[cut:], 1e-10)  # sampling goes on the same way


@each
def test_only_the_reach_of_a_history_matters(case: Case):
    module = build(case)
    if module.reach is None:
        pytest.skip("looks at the whole past")
    x, history, _ = sequence(case, module, past=module.reach + 4)
    recent = history[-module.reach :]
    close(module.condition(history=history).inv(x), module.condition(history=recent).inv(x), 1e-12)
    y = torch.randn_like(x)
    close(module.condition(history=history)(y), module.condition(history=recent)(y), 1e-12)


def test_density_integrates_to_one():
    torch.manual_seed(1)
    flow = T.TemporalAffine(T.MLPConditioner(1, hidden=(4,), window=1), initial="learned").double()
    with torch.no_grad():
        flow.initial_shift.fill_(0.7)
        flow.initial_log_scale.fill_(-0.4)
    grid = torch.linspace(-30, 30, 20001, dtype=torch.float64)
    one = log_prob(flow, grid[:, None, None]).exp()
    assert torch.trapezoid(one, grid).item() == pytest.approx(1, abs=1e-8)
    history = torch.tensor([[0.3]], dtype=torch.float64)
    after = log_prob(flow.condition(history=history), grid[:, None, None]).exp()
    assert torch.trapezoid(after, grid).item() == pytest.approx(1, abs=1e-8)


@each
def test_padding_counts_zero(case: Case):
    module = build(case)
    x, history, context = sequence(case, module, batch=(2,), length=5)
    mask = torch.arange(5) < torch.tensor([3, 5])[:, None]
    transform = module.condition(history=history, context=context, mask=mask)
    x = x.requires_grad_()
    y, log_scale = transform.inv(x), transform.log_scale(x)
    assert (log_scale[0, 3:] == 0).all()
    assert (y[0, 3:] == x[0, 3:]).all()
    past = None if history is None else history[:1]
    entry = None if context is None else context[:1, : context.shape[1] - 2]
    short = module.condition(history=past, context=entry)
    close(y[:1, :3], short.inv(x[:1, :3]), 1e-12)
    log_det = transform.log_abs_det_jacobian(y, x)[0] + 0 * x.sum()
    assert (torch.autograd.grad(log_det, x)[0][0, 3:] == 0).all()
    noise = torch.randn(2, 5, *case.frame_shape, dtype=torch.float64)
    sample = transform(noise)
    assert (sample[0, 3:] == noise[0, 3:]).all()
    assert (transform.log_scale(sample)[0, 3:] == 0).all()


@each_with_parameters
@pytest.mark.parametrize("direction", ["density", "sampling"])
def test_every_parameter_gets_a_finite_gradient(case: Case, direction: str):
    module = build(case).train()
    x, history, context = sequence(case, module, batch=(3,), length=7)
    transform = module.condition(history=history, context=context)
    if direction == "density":
        log_prob(transform, x).sum().backward()
    else:
        transform(x).square().sum().backward()
    for name, parameter in module.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name
        assert (parameter.grad != 0).any() or "bias" in name, name


@each
def test_save_load_copy_pickle(case: Case, tmp_path):
    module = build(case)
    x, history, context = sequence(case, module, batch=(2,))

    def y(some: TemporalTransform) -> Tensor:
        return some.condition(history=history, context=context).inv(x)

    expected = y(module)  # the memo now holds tensors with a graph
    torch.save(module.state_dict(), tmp_path / "weights")
    fresh = case.make().double().eval()
    fresh.load_state_dict(torch.load(tmp_path / "weights", weights_only=True))
    for same in (fresh, copy.deepcopy(module)):
        assert torch.equal(y(same), expected)
    if "<lambda>" not in str(case.make):
        assert torch.equal(y(pickle.loads(pickle.dumps(module))), expected)


@each_with_parameters
def test_outputs_are_single_precision_under_bf16(case: Case):
    module = build(case, dtype=torch.float32)
    x, history, context = (
        None if part is None else part.float() for part in sequence(case, module, batch=(2,))
    )
    exact = module.condition(history=history, context=context).inv(x)
    with torch.autocast("cpu", torch.bfloat16):
        transform = module.condition(history=history, context=context)
        y, log_det = transform.inv(x), transform.log_abs_det_jacobian(x, x)
        sample = transform(y)
    assert y.dtype == log_det.dtype == sample.dtype == torch.float32
    assert torch.isfinite(y).all()
    assert (y - exact).abs().mean() < 0.1 * exact.abs().mean()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@each
def test_cuda_equals_cpu(case: Case):
    module = build(case)
    x, history, context = sequence(case, module, batch=(2,))
    y = module.condition(history=history, context=context).inv(x)
    module = module.cuda()
    there = [None if part is None else part.cuda() for part in (x, history, context)]
    transform = module.condition(history=there[1], context=there[2])
    close(transform.inv(there[0]).cpu(), y, 1e-9)
    close(transform(y.cuda()).cpu(), x, 1e-9)


def test_log_scale_is_clamped():
    flow = T.TemporalAffine(T.MLPConditioner(2), min_log_scale=-1.0, max_log_scale=0.5).double()
    x = 100 * torch.randn(50, 2, dtype=torch.float64)
    transform = flow.condition(history=x[:3])
    log_scale = transform.log_scale(x[3:])
    assert log_scale.min() == -1.0
    assert log_scale.max() == 0.5


class Counter:
    """Counts calls of a network and the frames it saw."""

    def __init__(self, network: torch.nn.Module) -> None:
        self.calls, self.frames = 0, 0
        network.register_forward_hook(self)

    def __call__(self, _, inputs, __) -> None:
        self.calls += 1
        self.frames += len(inputs[0])


@pytest.mark.parametrize("length", [5, 50])
def test_one_batched_pass_of_each_network(length: int):
    parts = [T.TemporalAffine(T.ConvConditioner(1, hidden=4, depth=1, window=3)) for _ in range(2)]
    chain = T.TemporalChain(parts)
    encoders = [Counter(part.conditioner.encoder) for part in parts]
    bodies = [Counter(part.conditioner.body) for part in parts]
    x = torch.rand(6 + length, 1, 4, 4)
    transform = chain.condition(history=x[:6])
    transform.log_abs_det_jacobian(transform.inv(x[6:]), x[6:])
    assert [c.calls for c in encoders + bodies] == [1, 1, 1, 1]
    # near the noise: its window and the frames but the last; near the frames: 3 more
    assert [c.frames for c in encoders] == [3 + length - 1, 6 + length - 1]
    assert [c.frames for c in bodies] == [length, 3 + length]


def test_sampling_encodes_each_frame_once():
    flow = T.TemporalAffine(T.ConvConditioner(1, hidden=4, depth=1, window=3))
    encoder, body = Counter(flow.conditioner.encoder), Counter(flow.conditioner.body)
    history = torch.rand(40, 1, 4, 4)
    flow.condition(history=history)(torch.randn(10, 1, 4, 4))
    assert encoder.frames == 3 + 9  # the window of the history, then each new frame but the last
    assert body.frames == 10


def test_samples_share_the_encoding_of_their_history():
    flow = T.TemporalAffine(T.ConvConditioner(1, hidden=4, depth=1, window=3))
    encoder = Counter(flow.conditioner.encoder)
    flow.condition(history=torch.rand(3, 1, 4, 4))(torch.randn(100, 1, 1, 4, 4))
    assert encoder.frames == 3


def test_lstm_scores_in_one_call():
    flow = T.TemporalAffine(T.LSTMConditioner(2, hidden=4))
    counter = Counter(flow.conditioner.lstm)
    flow.inv(torch.randn(3, 20, 2))
    assert counter.calls == 1


@given(
    windows=st.lists(st.integers(1, 4), min_size=1, max_size=3),
    length=st.integers(1, 8),
    extra=st.integers(0, 5),
    data=st.data(),
)
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_any_windows_lengths_and_splits(windows, length, extra, data):
    torch.manual_seed(0)
    parts = [T.TemporalAffine(T.MLPConditioner(1, hidden=(3,), window=w)) for w in windows]
    chain = T.TemporalChain(parts).double()
    past = sum(windows) + extra
    x = torch.randn(past + length, 1, dtype=torch.float64)
    whole = chain.condition(history=x[:past])
    cut = data.draw(st.integers(0, length - 1))
    then = chain.condition(history=x[: past + cut])
    y = whole.inv(x[past:])
    close(then.inv(x[past + cut :].clone()), y[cut:], 1e-10)
    chain._memo.clear()
    close(then(y[cut:].clone()), x[past + cut :], 1e-10)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: T.TemporalAffine(T.MLPConditioner(1)).inv(torch.zeros(9, 1)), "3 frames of his"),
        (
            lambda: T.TemporalAffine(T.MLPConditioner(1)).condition(history=torch.zeros(2, 1)),
            "3 frames of history .* got 2",
        ),
        (lambda: T.TemporalAffine(T.MLPConditioner(1), initial="zero"), "initial must be"),
        (lambda: T.TemporalChain([]), "at least one"),
        (
            lambda: T.TemporalChain([T.TemporalDifference(), T.TemporalDifference(frame_dims=3)]),
            "of one rank",
        ),
        (lambda: T.MLPConditioner(1, window=0), "window must be at least 1"),
        (lambda: T.MLPConditioner(1, hidden=()), "hidden layer"),
        (lambda: T.ConvConditioner(1, norm="layer"), "norm must be"),
        (
            lambda: T.TemporalAffine(T.LSTMConditioner(1, context_features=2)).inv(
                torch.zeros(4, 1)
            ),
            "expected 2 context features, got none",
        ),
        (
            lambda: T.TemporalAffine(T.LSTMConditioner(1)).condition(context=torch.zeros(4, 7)).inv(
                torch.zeros(4, 1)
            ),
            "expected 0 context features, got 7",
        ),
        (
            lambda: T.TemporalAffine(T.ConvConditioner(1)).condition(history=torch.zeros(3, 4)),
            "frame dimensions",
        ),
    ],
)  # fmt: skip
def test_bad_input(make, said):
    with pytest.raises(ValueError, match=said) as error:
        make()
    assert "\n" not in str(error.value)


def test_difference_is_the_change():
    x = torch.randn(2, 30, 4, dtype=torch.float64)
    u = T.TemporalDifference().inv(x)
    assert torch.equal(u[:, 1:], x[:, 1:] - x[:, :-1])
    assert torch.equal(u[:, 0], x[:, 0])
    assert math.isclose(T.TemporalDifference().log_abs_det_jacobian(u, x).abs().sum(), 0)
