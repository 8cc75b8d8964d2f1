"""Encoders and decoders of frames."""

import pytest
import torch

from pyro_afslvm.networks import ConvDecoder, ConvEncoder, MLPDecoder, MLPEncoder

SHAPES = [(1, 16, 16), (3, 32, 32), (1, 64, 64), (1, 128, 128), (1, 32, 48)]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("batch", [(), (2,), (2, 3)], ids=str)
@pytest.mark.parametrize("norm", ["group", None])
def test_shapes(shape, batch, norm):
    frames = torch.rand(*batch, *shape)
    encoder = ConvEncoder(shape, features=8, width=4, norm=norm)
    z = encoder(frames)
    assert z.shape == (*batch, 8)
    assert z.std(-1).min() > 0  # features differ: no norm flattens them
    location, scale = ConvDecoder(8, shape, width=4, norm=norm)(z)
    assert location.shape == scale.shape == (*batch, *shape)
    assert (scale > 0).all()


def test_features_depend_on_the_frame():
    encoder = ConvEncoder((1, 16, 16), features=8, width=4)
    one, two = encoder(torch.rand(2, 1, 16, 16))
    assert (one - two).abs().max() > 1e-3


def test_sigmoid_location_stays_in_the_unit_interval():
    decoder = ConvDecoder(8, (1, 16, 16), width=4, location="sigmoid")
    location, _ = decoder(100 * torch.randn(50, 8))
    assert location.min() >= 0
    assert location.max() <= 1


@pytest.mark.parametrize(("bias", "scale"), [(100.0, 5.0), (-100.0, -15.0)])
def test_log_scale_is_clamped(bias, scale):
    decoder = ConvDecoder(8, (1, 16, 16), width=4)
    torch.nn.init.constant_(decoder.log_scale.bias, bias)
    _, found = decoder(torch.zeros(8))
    torch.testing.assert_close(found.log(), torch.full_like(found, scale))


def test_double_precision_is_kept():
    z = torch.randn(2, 8, dtype=torch.float64)
    assert ConvDecoder(8, (1, 16, 16), width=4).double()(z)[0].dtype == torch.float64
    with torch.autocast("cpu", torch.bfloat16):
        location, scale = ConvDecoder(8, (1, 16, 16), width=4)(z.float())
    assert location.dtype == scale.dtype == torch.float32


@pytest.mark.parametrize("shape", [(1, 4, 4), (1, 36, 50), (16, 16), (5,)], ids=str)
def test_other_frames_are_refused(shape):
    with pytest.raises(ValueError, match=r"expected frames|cannot be halved"):
        ConvEncoder(shape)


def test_vectors():
    features = MLPEncoder(3, features=5)(torch.randn(2, 7, 3))
    location, scale = MLPDecoder(5, 3)(features)
    assert location.shape == scale.shape == (2, 7, 3)
