"""The length of the crops that a model is given."""

from torch import nn

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
