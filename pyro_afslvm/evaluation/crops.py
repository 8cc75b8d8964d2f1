"""What of each sequence a model is given, and what is scored."""

from typing import Any, NamedTuple

import numpy as np
from torch import nn
from torch.utils.data import Subset

from pyro_afslvm.data import EmptySplitError, SequenceSource, ShortSplitError, Split
from pyro_afslvm.data.ragged import WholeSequences
from pyro_afslvm.data.sequences import StoredSequences, Windows, with_context
from pyro_afslvm.models.base import context_length

CONTEXT_FRAMES = 3  # of every crop, so that models with and without a flow see as many


def crop_length(model: nn.Module, scored_frames: int, *, most: int | None = None) -> int:
    """Frames of a crop of which the last ``scored_frames`` are reported.

    Args:
        model: what is to score them.
        scored_frames: how many are wanted.
        most: frames of every sequence of the data, where they have no more.

    Raises:
        ValueError: if the model is given as many frames as there are, or more.
    """
    wanted = max(CONTEXT_FRAMES, context_length(model)) + scored_frames
    if most is not None and most <= context_length(model):
        raise ValueError(
            f"the model is given {context_length(model)} frames and scores those that follow, but "
            f"the data have sequences of {most}"
        )
    return wanted if most is None else min(wanted, most)


class Crops(NamedTuple):
    """Sequences of a split, cut to the frames that are given and those that are scored."""

    data: Any  # a SequenceDataset, or some of one, or WholeSequences
    split: Split
    given: int
    scored: int  # of the longest
    context: int  # frames that the model is given and does not score
    windows: Windows
    left_out: int = 0  # stored sequences that are too short

    @property
    def batch_size(self) -> int:
        """How many are scored at a time; of long ones fewer."""
        return 25 if self.windows != "whole" else max(1, 400 // (self.given + self.scored))


def cut(
    model: nn.Module,
    source: SequenceSource,
    split: Split,
    *,
    scored_frames: int,
    limit: int | None = None,
    windows: Windows | None = None,
) -> Crops:
    """Cut the sequences of a split, at most ``limit`` of them, to what the model needs.

    Raises:
        ValueError: there are none of that kind.
    """
    if windows == "whole":
        return _whole(model, source, split, limit)
    frames = crop_length(model, scored_frames, most=source.num_frames)
    context = context_length(model)
    scored = min(scored_frames, frames - context)
    full = source.dataset(split, num_frames=frames)
    if windows == "all" and full.windows == "one":
        raise ValueError(
            f"{source.name} has one crop of each sequence, windows 'all' asks for more"
        )
    chosen = np.arange(len(full))
    if windows == "one":
        chosen = np.unique(full.sequences, return_index=True)[1]
    short = full.lengths < frames if isinstance(full, StoredSequences) else np.zeros(1, bool)
    return Crops(
        Subset(with_context(full), [*chosen[:limit].tolist()]),
        split,
        frames - scored,
        scored,
        context,
        windows or full.windows,
        int(short.sum()),
    )


def _whole(model: nn.Module, source: SequenceSource, split: Split, limit: int | None) -> Crops:
    """Take every frame of the sequences that are stored."""
    context = context_length(model)
    full = source.dataset(split, num_frames=context + 1)
    if not isinstance(full, StoredSequences):
        raise ValueError(
            f"{source.name} makes sequences of any length, windows 'whole' asks for stored ones"
        )
    data = WholeSequences(full, shortest=context + 1)
    left_out, data = len(full.lengths) - len(data), data.first(limit)
    return Crops(
        data, split, context, int(data.lengths.max()) - context, context, "whole", left_out
    )


def training_crops(model: nn.Module, source: SequenceSource, crops: Crops) -> Any:
    """As many training sequences, from all over an epoch; ``None`` where there are none."""
    try:
        if crops.windows == "whole":
            return _whole(model, source, "train", len(crops.data)).data
        full = source.dataset("train", num_frames=crops.given + crops.scored)
    except (EmptySplitError, ShortSplitError):
        return None
    count = min(len(full), len(crops.data))
    return Subset(with_context(full), [round(k) for k in np.linspace(0, len(full) - 1, count)])
