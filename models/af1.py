"""1-AF: one affine autoregressive flow across time, at the paper's size.

Marino, Chen, He, Mandt, *Improving Sequential Latent Variable Models with Autoregressive
Flows*, Appendix B. Three frames are given, the rest are scored.
"""

from pyro_afslvm import ConvConditioner, FlowModel, Pair, TemporalAffine
from pyro_afslvm.networks.layers import Norm

LEARNING_RATE = 1e-4
BATCH_SIZE = {"moving_mnist": 16, "bair": 8, "kth": 8}  # other data take the first
STEPS = {"moving_mnist": 100_000, "bair": 200_000, "kth": 90_000}
NORM: Norm = "batch"  # or "batch_per_step": causal in training too, as the authors ran it


def build(frame_shape: tuple[int, ...] = (1, 64, 64), *, norm: Norm = NORM) -> Pair:
    """The model; it has no latent variables and needs no guide."""
    flow = TemporalAffine(ConvConditioner(frame_shape[0], hidden=64, window=3, norm=norm))
    return Pair(FlowModel(flow, frame_shape), None)
