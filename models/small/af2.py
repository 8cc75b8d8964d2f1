"""2-AF, small: two affine flows across time for frames of 32 x 32 on two cores."""

from pyro_afslvm import ConvConditioner, FlowModel, Pair, TemporalAffine, TemporalChain

NAME = "2-AF"
LEARNING_RATE = 1e-3
BATCH_SIZE = 8
STEPS = 2000


def build(frame_shape: tuple[int, ...] = (1, 32, 32)) -> Pair:
    """The model; it has no latent variables and needs no guide."""
    near_noise = ConvConditioner(frame_shape[0], hidden=16, norm="group")
    near_frames = ConvConditioner(frame_shape[0], hidden=16, norm="group", residual=True)
    flow = TemporalChain([TemporalAffine(near_noise), TemporalAffine(near_frames)])
    return Pair(FlowModel(flow, frame_shape), None)
