"""Encoders and decoders of single frames."""

from typing import Any

import pytest
import torch
from torch import nn

from pyro_afslvm import ConvConditioner, FlowModel, TemporalAffine
from pyro_afslvm.networks import ConvDecoder, ConvEncoder, MLPDecoder, MLPEncoder, mlp
from pyro_afslvm.networks.convolutional import pyramid
from pyro_afslvm.networks.layers import convolution, normalization, on_frames, single_steps

SHAPES = [
    (1, 8, 8),
    (1, 16, 16),
    (3, 32, 32),
    (1, 64, 64),
    (3, 128, 128),
    (1, 32, 64),
    (2, 48, 32),
    (1, 24, 24),
    (1, 16, 120),
]
each_shape = pytest.mark.parametrize("shape", SHAPES, ids=str)
SMALL = (2, 16, 16)


@pytest.mark.parametrize(
    ("shape", "norm"),
    [*((shape, "group") for shape in SHAPES), ((1, 8, 8), "batch"), ((1, 8, 8), None)],
    ids=str,
)
def test_shapes(shape: tuple[int, ...], norm: Any) -> None:
    encoder = ConvEncoder(shape, features=8, width=4, norm=norm).eval()
    decoder = ConvDecoder(5, shape, width=4, norm=norm).eval()
    for batch in ((), (2,), (2, 1)):
        features = encoder(torch.rand(*batch, *shape))
        assert features.shape == (*batch, 8)
        assert features.std(-1).min() > 0  # no norm flattens them
        location, scale = decoder(torch.randn(*batch, 5))
        assert location.shape == scale.shape == (*batch, *shape)


@pytest.mark.parametrize("norm", ["batch", "group", None])
def test_leading_dimensions(norm: Any, float64: None) -> None:
    encoder = ConvEncoder(SMALL, features=8, width=4, norm=norm).eval()
    decoder = ConvDecoder(8, SMALL, width=4, norm=norm).eval()
    x = torch.rand(2, 3, *SMALL)
    features = encoder(x)
    torch.testing.assert_close(features[1, 2], encoder(x[1, 2]))
    torch.testing.assert_close(features.flatten(0, 1), encoder(x.flatten(0, 1)))
    for whole, one, flat in zip(
        decoder(features),
        decoder(features[1, 2]),
        decoder(features.flatten(0, 1)),
        strict=True,
    ):
        torch.testing.assert_close(whole[1, 2], one)
        torch.testing.assert_close(whole.flatten(0, 1), flat)


@each_shape
def test_every_pixel_is_seen_and_made(shape: tuple[int, ...], float64: None) -> None:
    encoder = ConvEncoder(shape, features=8, width=4, norm=None)
    x = torch.rand(shape, requires_grad=True)
    encoder(x).sum().backward()
    assert (x.grad != 0).all()
    decoder = ConvDecoder(5, shape, width=4, norm=None)
    one, two = (decoder(z) for z in torch.randn(2, 5))
    assert (one[0] != two[0]).all()
    assert (one[1] != two[1]).all()


@pytest.mark.parametrize(
    ("shape", "channels", "rest"),
    [
        ((1, 8, 8), [4], (4, 4)),
        ((1, 16, 16), [4, 8], (4, 4)),
        ((1, 64, 64), [4, 8, 16, 32], (4, 4)),
        ((3, 128, 128), [4, 8, 16, 32, 32], (4, 4)),
        ((1, 32, 64), [4, 8, 16], (4, 8)),
        ((2, 48, 32), [4, 8, 16], (6, 4)),
    ],
)
def test_pyramid(shape: tuple[int, ...], channels: list[int], rest: tuple[int, int]) -> None:
    assert pyramid(shape, 4) == (channels, rest)


@pytest.mark.parametrize("shape", [(16, 16), (5,), (1, 1, 16, 16), (1, 4, 4), (1, 7, 64)], ids=str)
def test_what_is_no_frame_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"expected frames \(C, H, W\) of at least 8 x 8, got"):
        pyramid(shape, 4)


@pytest.mark.parametrize("shape", [(1, 17, 17), (1, 32, 33), (1, 36, 50), (1, 63, 64)], ids=str)
def test_odd_sizes_are_refused(shape: tuple[int, ...]) -> None:
    expected = f"frames of {shape[1]} x {shape[2]} cannot be halved . times; resize or crop"
    with pytest.raises(ValueError, match=expected):
        pyramid(shape, 4)


def test_networks_refuse_what_the_pyramid_refuses() -> None:
    for network in (ConvEncoder, lambda shape: ConvDecoder(5, shape)):
        for shape in ((5,), (1, 17, 17)):
            with pytest.raises(ValueError, match=r"expected frames|cannot be halved"):
                network(shape)


def test_an_unknown_norm_is_refused() -> None:
    expected = "norm must be 'batch', 'batch_per_step', 'group' or None, got 'layer'"
    for make in (
        lambda: normalization("layer", 8),
        lambda: convolution(1, 8, norm="layer"),
        lambda: ConvEncoder(SMALL, norm="layer"),
        lambda: ConvDecoder(5, SMALL, norm="layer"),
    ):
        with pytest.raises(ValueError, match=expected):
            make()


def test_an_unknown_location_is_refused() -> None:
    with pytest.raises(ValueError, match="location must be 'sigmoid' or 'linear', got 'tanh'"):
        ConvDecoder(5, SMALL, location="tanh")


def test_sigmoid_location_stays_in_the_unit_interval() -> None:
    z = 100 * torch.randn(50, 8)
    location, _ = ConvDecoder(8, SMALL, width=4, location="sigmoid")(z)
    assert location.min() >= 0
    assert location.max() <= 1
    assert location.std() > 0.01
    torch.manual_seed(1)
    linear = ConvDecoder(8, SMALL, width=4, location="linear", norm=None)
    location, _ = linear(z)
    assert location.min() < 0 or location.max() > 1
    torch.manual_seed(1)
    squashed = ConvDecoder(8, SMALL, width=4, location="sigmoid", norm=None)
    torch.testing.assert_close(squashed(z)[0], location.sigmoid())


DECODERS = {
    "conv": lambda: ConvDecoder(8, SMALL, width=4),
    "mlp": lambda: MLPDecoder(8, 3, hidden=(16,)),
}
each_decoder = pytest.mark.parametrize("make", DECODERS.values(), ids=DECODERS)


@each_decoder
def test_scale_is_positive(make: Any) -> None:
    _, scale = make()(10 * torch.randn(50, 8))
    assert (scale > 0).all()
    assert scale.std() > 0


@each_decoder
@pytest.mark.parametrize(("bias", "log_scale"), [(1000.0, 5.0), (-1000.0, -15.0)])
def test_log_scale_is_clamped(make: Any, bias: float, log_scale: float) -> None:
    decoder = make()
    nn.init.constant_(decoder.heads.bias, bias)
    _, scale = decoder(torch.zeros(8))
    torch.testing.assert_close(scale.log(), torch.full_like(scale, log_scale))


@each_decoder
def test_double_precision_stays(make: Any) -> None:
    location, scale = make().double()(torch.randn(2, 8, dtype=torch.float64))
    assert location.dtype == scale.dtype == torch.float64
    encoder = ConvEncoder(SMALL, features=8, width=4).double()
    assert encoder(torch.rand(2, *SMALL, dtype=torch.float64)).dtype == torch.float64


@each_decoder
def test_distributions_get_single_precision_under_autocast(make: Any) -> None:
    decoder, seen = make(), set()
    decoder.network.register_forward_hook(lambda *args: seen.add(args[-1].dtype))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        location, scale = decoder(torch.randn(2, 8))
    assert seen == {torch.bfloat16}
    assert location.dtype == scale.dtype == torch.float32


def test_networks_of_vectors() -> None:
    features = MLPEncoder(3, features=5, hidden=(7, 6))(torch.randn(2, 4, 3))
    assert features.shape == (2, 4, 5)
    location, scale = MLPDecoder(5, 3)(features)
    assert location.shape == scale.shape == (2, 4, 3)
    location, scale = MLPDecoder(5, 3)(features[0, 0])
    assert location.shape == scale.shape == (3,)
    assert (MLPEncoder(3).features, MLPEncoder(3).frame_dims) == (64, 1)
    assert (ConvEncoder(SMALL).features, ConvEncoder(SMALL).frame_dims) == (128, 3)
    assert sum(p.numel() for p in mlp(3, 7, 5).parameters()) == 3 * 7 + 7 + 7 * 5 + 5


def test_a_network_of_frames_sees_one_flat_batch() -> None:
    seen = []

    def network(flat: torch.Tensor) -> torch.Tensor:
        seen.append(flat.shape)
        return flat.flatten(1).sum(1, keepdim=True)

    x = torch.rand(2, 3, 1, 4, 4)
    torch.testing.assert_close(on_frames(network, x, 3), x.sum((-3, -2, -1))[..., None])
    assert seen == [(6, 1, 4, 4)]


@pytest.mark.parametrize("norm", ["batch", "batch_per_step", "group", None])
def test_every_parameter_gets_a_finite_gradient(norm: Any) -> None:
    encoder = ConvEncoder(SMALL, features=8, width=4, norm=norm)
    decoder = ConvDecoder(8, SMALL, width=4, norm=norm)
    location, scale = decoder(encoder(torch.rand(3, *SMALL)))
    (location.square().sum() + scale.log().square().sum()).backward()
    for network in (encoder, decoder):
        for name, parameter in network.named_parameters():
            assert parameter.grad is not None, name
            assert torch.isfinite(parameter.grad).all(), name


# ---- batch norm and time ----


def step_norm() -> ConvEncoder:
    return ConvEncoder(SMALL, features=8, width=4, norm="batch_per_step").train()


def jacobian_over_time(encoder: ConvEncoder) -> torch.Tensor:
    """Largest derivative of the features at time t by the frame at time s, (t, s)."""
    x = torch.rand(3, 5, *SMALL, requires_grad=True)
    features = encoder(x)
    found = torch.zeros(5, 5)
    for t in range(5):
        weights = torch.randn(3, features.shape[-1])
        (gradient,) = torch.autograd.grad((features[:, t] * weights).sum(), x, retain_graph=True)
        found[t] = gradient.abs().amax((0, 2, 3, 4))
    return found


def test_batch_norm_couples_frames_in_time_and_that_of_each_step_does_not() -> None:
    folded = jacobian_over_time(ConvEncoder(SMALL, features=8, width=4, norm="batch").train())
    assert (folded.triu(1)[:4, 1:].diagonal() > 0).all()  # the future is seen
    apart = jacobian_over_time(step_norm())
    assert (apart.diagonal() > 0).all()
    assert (apart - torch.diag(apart.diagonal()) == 0).all()  # exactly


def test_steps_apart_are_as_frame_by_frame() -> None:
    whole, alone = step_norm(), step_norm()
    alone.load_state_dict(whole.state_dict())
    x = torch.rand(3, 4, *SMALL)
    expected = torch.stack([alone(x[:, t]) for t in range(4)], 1)
    torch.testing.assert_close(whole(x), expected)
    for name, value in whole.state_dict().items():  # running statistics too, in their order
        torch.testing.assert_close(value, alone.state_dict()[name], msg=name)
    for encoder in (whole, alone):
        encoder.eval()
    torch.testing.assert_close(whole(x), torch.stack([alone(x[:, t]) for t in range(4)], 1))


def test_weights_of_both_batch_norms_are_the_same_and_so_is_evaluation() -> None:
    folded = ConvEncoder(SMALL, features=8, width=4, norm="batch")
    apart = step_norm()
    apart.load_state_dict(folded.state_dict())
    x = torch.rand(3, 4, *SMALL)
    torch.testing.assert_close(apart.eval()(x), folded.eval()(x))


def test_single_steps_have_no_time() -> None:
    """Of particles and sequences in one step, the statistics are over both."""
    encoder, x = step_norm(), torch.rand(2, 3, *SMALL)
    with single_steps():
        found = encoder(x)
    torch.testing.assert_close(found, encoder(x.flatten(0, 1)).unflatten(0, (2, 3)))


def test_steps_of_one_sequence_have_no_statistics() -> None:
    with pytest.raises(ValueError, match="at least 2 sequences in training"):
        step_norm()(torch.rand(1, 4, *SMALL))
    step_norm().eval()(torch.rand(1, 4, *SMALL))


def test_a_flow_with_statistics_of_each_step_is_causal_in_training() -> None:
    for norm, causal in (("batch", False), ("batch_per_step", True)):
        torch.manual_seed(0)
        model = FlowModel(TemporalAffine(ConvConditioner(2, hidden=4, depth=2, norm=norm)), SMALL)
        x = torch.rand(3, 8, *SMALL, requires_grad=True)
        terms = model.train().log_prob(x)
        (gradient,) = torch.autograd.grad(terms[:, 1].sum(), x)  # of frame 4
        assert gradient[:, 4].abs().max() > 0
        assert bool((gradient[:, 5:] == 0).all()) is causal


def test_recomputed_activations_keep_the_statistics() -> None:
    plain, recomputed = step_norm(), step_norm()
    recomputed.load_state_dict(plain.state_dict())
    recomputed.network.recompute = True
    x = torch.rand(3, 4, *SMALL)
    gradients = []
    for encoder in (plain, recomputed):
        encoder(x).square().sum().backward()
        gradients.append([p.grad for p in encoder.parameters()])
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other)
    for name, value in plain.state_dict().items():
        torch.testing.assert_close(value, recomputed.state_dict()[name], msg=name)
