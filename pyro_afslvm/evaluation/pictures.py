"""Arrays for pictures of a trained model: what its flow does, and what it samples."""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pyro_afslvm.data import SequenceDataset, SequenceSource, Split, choose_dequantization
from pyro_afslvm.models.base import context_length, flow_of
from pyro_afslvm.models.pair import Pair
from pyro_afslvm.utils.seeding import Stream, seed_step

IMAGES = 40  # that are shown if the data are single images


@torch.no_grad()
def pictures(
    pair: Pair,
    source: SequenceSource,
    *,
    split: Split = "test",
    num_sequences: int = 4,
    num_samples: int = 3,
    context: int = 6,
    horizon: int = 14,
    seed: int = 0,
) -> dict[str, NDArray[np.float32]]:
    """Compute the arrays for the flow pictures (Fig. 4) and the rollouts of a model.

    For a data set of single images: some of them, their reconstructions and samples instead.

    Returns:
        ``frames``, ``shift_m``, ``scale_m``, ``noise_m`` of each transform m from the frames
        down; ``rollout_truth``, ``rollout_samples``, ``rollout_context``. Frames are on the
        scale of pictures, [0, 1]; vectors are in their own units. Or ``images``,
        ``reconstructions`` and ``samples``, ``(N, C, H, W)`` each.
    """
    pair.eval()
    seed_step(seed, 0, Stream.PICTURES)
    device = next(pair.model.parameters()).device
    if source.num_frames == 1:
        return _single_images(pair, source.dataset(split, num_frames=1))
    given = max(context, context_length(pair.model) + 1)
    data = _longest(source, split, given, horizon)
    dequantization = choose_dequantization(None, source)
    count = min(num_sequences, len(data))
    x = dequantization(torch.stack([data[i] for i in range(count)]).to(device))
    samples = _rolled_out(pair, x[:, :given], num_samples=num_samples, horizon=horizon)
    arrays = {
        "rollout_truth": x,
        "rollout_context": torch.tensor(given),
        "rollout_samples": samples.clamp(0, 1) if dequantization.whole_numbers else samples,
        **_flow_steps(pair, x),
    }
    if not dequantization.whole_numbers and len(source.frame_shape) == 3:
        arrays |= _shown_in_unit_range(arrays)
    return {name: value.cpu().numpy() for name, value in arrays.items()}


def _rolled_out(pair: Pair, past: Tensor, *, num_samples: int, horizon: int) -> Tensor:
    """Sample futures; give them after the past: ``(samples, batch, T, *frame_shape)``."""
    from pyro.infer import Predictive

    predictive = Predictive(pair.model, guide=pair.guide, num_samples=num_samples)
    future = predictive(past, horizon=horizon)["x_future"]
    return torch.cat([past.expand(num_samples, *past.shape), future], 2)


def _flow_steps(pair: Pair, x: Tensor) -> dict[str, Tensor]:
    """Invert the flow; give shift, scale and noise of each step, nothing if it is not affine."""
    flow, skip = flow_of(pair.model), context_length(pair.model)
    if flow is None or not flow.is_affine:
        return {}
    arrays = {"frames": x[:, skip:]}
    steps: Any = flow.condition(history=x[:, :skip]).intermediates(x[:, skip:])  # affine ones
    for m, step in enumerate(steps, 1):
        arrays[f"shift_{m}"] = step.shift
        arrays[f"scale_{m}"] = step.log_scale.exp()
        arrays[f"noise_{m}"] = step.noise
    return arrays


def _single_images(pair: Pair, data: SequenceDataset) -> dict[str, NDArray[np.float32]]:
    device = next(pair.model.parameters()).device
    count = min(IMAGES, len(data))
    x = torch.stack([data[i] for i in range(count)]).to(device)
    arrays = {
        "images": x.squeeze(1),
        "reconstructions": pair.model.reconstruct(pair.guide, x).squeeze(1),  # type: ignore[operator]
        "samples": pair.model.sample_mean(count),  # type: ignore[operator]
    }
    return {name: value.cpu().numpy() for name, value in arrays.items()}


def _shown_in_unit_range(arrays: dict[str, Tensor]) -> dict[str, Tensor]:
    """Put frames of real numbers on the scale of pictures: the truth's range becomes [0, 1]."""
    low, high = arrays["rollout_truth"].aminmax()
    span = high - low
    moved = ("rollout_truth", "rollout_samples", "frames", "shift_1")
    shown = {name: (arrays[name] - low) / span for name in moved if name in arrays}
    return shown | ({"scale_1": arrays["scale_1"] / span} if "scale_1" in arrays else {})


def _longest(source: SequenceSource, split: Split, given: int, horizon: int) -> SequenceDataset:
    """Take sequences of the given frames and as much of the horizon as the source has."""
    for future in range(horizon, 1, -1):
        try:
            return source.dataset(split, num_frames=given + future)
        except ValueError:  # stored sequences may be shorter
            continue
    return source.dataset(split, num_frames=given + 1)
