"""1-AF: one affine autoregressive flow across time, at the paper's size.

Marino, Chen, He, Mandt, *Improving Sequential Latent Variable Models with Autoregressive
Flows*, Appendix B.1. Three frames are given, the rest are scored.
"""

from pyro_afslvm import ConvConditioner, FlowModel, Pair, TemporalAffine

LEARNING_RATE = 1e-4
BATCH_SIZE = 16
STEPS = 100_000


def build(frame_shape: tuple[int, ...] = (1, 64, 64)) -> Pair:
    """The model; it has no latent variables and needs no guide."""
    flow = TemporalAffine(ConvConditioner(frame_shape[0], hidden=64, window=3, norm="batch"))
    return Pair(FlowModel(flow, frame_shape), None)
