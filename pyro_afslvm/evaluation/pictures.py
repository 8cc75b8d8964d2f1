"""Arrays for pictures of a trained model: what its flow does, and what it samples."""

from contextlib import suppress
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.distributions import Normal, Transform
from torch.utils.data import Subset, default_collate

from pyro_afslvm.data import (
    Dequantization,
    SequenceDataset,
    SequenceSource,
    Split,
    choose_dequantization,
)
from pyro_afslvm.data.sequences import with_context
from pyro_afslvm.evaluation.bounds import on_device
from pyro_afslvm.models.base import context_length, flow_of, seen_by_flow
from pyro_afslvm.models.pair import Pair
from pyro_afslvm.transforms.moments import moments
from pyro_afslvm.transforms.univariate import Affine, Mixture
from pyro_afslvm.utils.seeding import Stream, seed_step

Arrays = dict[str, NDArray[Any]]

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
) -> Arrays:
    """Compute the arrays for the flow pictures (Fig. 4) and the rollouts of a model.

    Sequences shorter than what is given and forecast are shown as far as they go: the truth has
    then fewer frames than the samples; with covariates of each frame no more is forecast than they
    are known for. For a data set of single images: some of them, their
    reconstructions and samples instead.

    Returns:
        ``frames`` and, of each transform m from the frames down, ``shift_m``, ``scale_m`` and
        ``noise_m``; of one that is not affine ``mean_m`` and ``deviation_m`` under N(0, 1) noise
        in their place, and of a mixture ``modes_m``, the probability of each component on the
        last axis. ``rollout_truth`` ``(N, T, *frame_shape)``, ``rollout_samples``
        ``(S, N, given + horizon, *frame_shape)``, ``rollout_context``. Frames are on the scale of
        pictures, [0, 1]; vectors are in the units of the data, also where the model has them
        standardized. Or ``images``, ``reconstructions`` and ``samples``, ``(N, C, H, W)`` each.

    Raises:
        ValueError: no sequence is as long as the model needs.
    """
    pair.eval()
    seed_step(seed, 0, Stream.PICTURES)
    device = next(pair.model.parameters()).device
    if source.num_frames == 1:
        return _single_images(pair, source.dataset(split, num_frames=1))
    least = context_length(pair.model) + 1
    ends = int(source.context_features > 0)  # where covariates do, and one frame is to follow
    data, length = longest(source, split, least + ends, max(context, least) + horizon)
    given = min(max(context, least), length - ends)
    if ends:
        horizon = min(horizon, length - given)
    dequantization = choose_dequantization(None, source)
    sequences = Subset(with_context(data), range(min(num_sequences, len(data))))
    frames, known = on_device(
        default_collate([sequences[i] for i in range(len(sequences))]), device
    )
    x = dequantization(frames)
    after = None if known is None else known[:, : given + horizon]
    samples = _rolled_out(pair, x[:, :given], after, num_samples=num_samples, horizon=horizon)
    arrays = {
        "rollout_truth": x,
        "rollout_context": torch.tensor(given),
        "rollout_samples": samples.clamp(0, 1) if dequantization.whole_numbers else samples,
        **_flow_steps(pair, x, known),
    }
    found = {name: value.cpu().numpy() for name, value in arrays.items()}
    if not dequantization.whole_numbers:
        found |= _in_data_units(found, dequantization)
    if not dequantization.whole_numbers and len(source.frame_shape) == 3:
        found |= _shown_in_unit_range(found)
    return found


def _rolled_out(
    pair: Pair, past: Tensor, known: Tensor | None, *, num_samples: int, horizon: int
) -> Tensor:
    """Sample futures; give them after the past: ``(samples, batch, T, *frame_shape)``."""
    from pyro.infer import Predictive

    predictive = Predictive(pair.model, guide=pair.guide, num_samples=num_samples)
    given = {} if known is None else {"covariates": known}
    future = predictive(past, horizon=horizon, **given)["x_future"]
    return torch.cat([past.expand(num_samples, *past.shape), future], 2)


def _flow_steps(pair: Pair, x: Tensor, known: Tensor | None = None) -> dict[str, Tensor]:
    """Invert the flow; give what it makes of each step, nothing of one without such a map."""
    flow, skip = flow_of(pair.model), context_length(pair.model)
    if flow is None:
        return {}
    history, frames = x[:, :skip] if skip else None, x[:, skip:]
    context = seen_by_flow(pair.model, known)
    try:
        maps = flow.maps(frames, history=history, context=context)
    except TypeError:  # a transform of one's own, which does not say what it makes of the past
        return {}
    arrays = {"frames": frames}
    steps = flow.condition(history=history, context=context).intermediates(frames)
    for m, (transform, step) in enumerate(zip(maps, steps, strict=True), 1):
        arrays |= {f"{name}_{m}": value for name, value in _of_map(transform, frames).items()}
        arrays[f"noise_{m}"] = step.noise
    return arrays


def _of_map(transform: Transform, like: Tensor) -> dict[str, Tensor]:
    """What is to be seen of the map of each frame from its noise."""
    if isinstance(transform, Affine):
        return {"shift": transform.shift, "scale": transform.log_scale.exp()}
    found = moments(transform, Normal(torch.zeros_like(like), torch.ones_like(like)))
    arrays = {"mean": found.mean, "deviation": found.scale}
    if isinstance(transform, Mixture):
        arrays["modes"] = transform.mode_probabilities
    return arrays


def _single_images(pair: Pair, data: SequenceDataset) -> Arrays:
    device = next(pair.model.parameters()).device
    count = min(IMAGES, len(data))
    x = torch.stack([data[i] for i in range(count)]).to(device)
    arrays = {
        "images": x.squeeze(1),
        "reconstructions": pair.model.reconstruct(pair.guide, x).squeeze(1),  # type: ignore[operator]
        "samples": pair.model.sample_mean(count),  # type: ignore[operator]
    }
    return {name: value.cpu().numpy() for name, value in arrays.items()}


_LEVELS = ("rollout_truth", "rollout_samples", "frames", "shift_1", "mean_1")
_SPREADS = ("scale_1", "deviation_1")


def _in_data_units(arrays: Arrays, dequantization: Dequantization) -> Arrays:
    """Undo a standardization in what is of frames; the noise has no units."""
    kept = getattr(dequantization, "standardization", None)
    if kept is None:
        return {}
    levels = {name: kept.restored(arrays[name]) for name in _LEVELS if name in arrays}
    return levels | {name: arrays[name] * kept.scale for name in _SPREADS if name in arrays}


def _shown_in_unit_range(arrays: Arrays) -> Arrays:
    """Put frames of real numbers on the scale of pictures: the truth's range becomes [0, 1].

    That of each channel, for they may have units of their own; colours share one.
    """
    truth = arrays["rollout_truth"]  # (N, T, C, H, W)
    spread = None if truth.shape[2] == 3 else (0, 1, 3, 4)
    low, high = truth.min(spread, keepdims=True)[0, 0], truth.max(spread, keepdims=True)[0, 0]
    span = np.where(high > low, high - low, 1.0)
    shown = {name: (arrays[name] - low) / span for name in _LEVELS if name in arrays}
    return shown | {name: arrays[name] / span for name in _SPREADS if name in arrays}


def longest(
    source: SequenceSource, split: Split, least: int, most: int
) -> tuple[SequenceDataset, int]:
    """Take the longest sequences of a split, within bounds, and say how long they are.

    Raises:
        ValueError: none is as long as ``least``.
    """
    for length in range(most, least, -1):
        with suppress(ValueError):  # stored sequences may be shorter
            return source.dataset(split, num_frames=length), length
    return source.dataset(split, num_frames=least), least
