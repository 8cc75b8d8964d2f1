"""Arrays for pictures of a trained model: what its flow does, and what it samples."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pyro_afslvm.data import SequenceDataset, SequenceSource, Split, choose_dequantization
from pyro_afslvm.models.pair import Pair
from pyro_afslvm.utils.seeding import Stream, seed_step

IMAGES = 40  # shown of a data set of single images


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
    """Arrays for the flow pictures (Fig. 4) and the rollouts of a model.

    Of a data set of single images, some of them, their reconstructions and samples instead.

    Returns:
        ``frames``, ``shift_m``, ``scale_m``, ``noise_m`` of each transform m from the frames
        down; ``rollout_truth``, ``rollout_samples``, ``rollout_context``. Frames are on the
        scale of pictures, [0, 1]; vectors are in their own units. Or ``images``,
        ``reconstructions`` and ``samples``, ``(N, C, H, W)`` each.
    """
    from pyro.infer import Predictive

    pair.eval()
    seed_step(seed, 0, Stream.PICTURES)
    device = next(pair.model.parameters()).device
    if source.num_frames == 1:
        return _single_images(pair, source.dataset(split, num_frames=1))
    given = max(context, getattr(pair.model, "context_length", 0) + 1)
    data = _longest(source, split, given, horizon)
    dequantization = choose_dequantization(None, source)
    count = min(num_sequences, len(data))
    x = dequantization(torch.stack([data[i] for i in range(count)]).to(device))
    arrays = {"rollout_truth": x, "rollout_context": torch.tensor(given)}
    predictive = Predictive(pair.model, guide=pair.guide, num_samples=num_samples)
    past = x[:, :given]
    future = predictive(past, horizon=horizon)["x_future"]
    repeated = past.expand(num_samples, *past.shape)
    samples = torch.cat([repeated, future], 2)
    arrays["rollout_samples"] = samples.clamp(0, 1) if dequantization.whole_numbers else samples
    flow, skip = getattr(pair.model, "flow", None), getattr(pair.model, "context_length", 0)
    if flow is not None and flow.is_affine:  # else there is no shift to show
        arrays["frames"] = x[:, skip:]
        levels = flow.condition(history=x[:, :skip]).intermediates(x[:, skip:])
        for m, level in enumerate(levels, 1):
            arrays[f"shift_{m}"] = level.shift
            arrays[f"scale_{m}"] = level.log_scale.exp()
            arrays[f"noise_{m}"] = level.noise
    if not dequantization.whole_numbers and len(source.frame_shape) == 3:
        arrays |= _shown_in_unit_range(arrays)
    return {name: value.cpu().numpy() for name, value in arrays.items()}


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
    """Frames of real numbers on the scale of pictures: the truth's range becomes [0, 1]."""
    low, high = arrays["rollout_truth"].aminmax()
    span = high - low
    moved = ("rollout_truth", "rollout_samples", "frames", "shift_1")
    shown = {name: (arrays[name] - low) / span for name in moved if name in arrays}
    return shown | ({"scale_1": arrays["scale_1"] / span} if "scale_1" in arrays else {})


def _longest(source: SequenceSource, split: Split, given: int, horizon: int) -> SequenceDataset:
    """Sequences of the given frames and as much of the horizon as the source has."""
    for future in range(horizon, 1, -1):
        try:
            return source.dataset(split, num_frames=given + future)
        except ValueError:  # stored sequences may be shorter
            continue
    return source.dataset(split, num_frames=given + 1)
