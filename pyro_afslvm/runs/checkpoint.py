"""Checkpoints: weights, optimizer, and where training stands."""

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pyro_afslvm.models.pair import Pair
from pyro_afslvm.runs.errors import RunError as RunError
from pyro_afslvm.utils.files import write_atomically

FORMAT = 1
CONTENT = {"model", "guide", "optimizer", "recipe", "step", "seconds"}  # of a checkpoint


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Read a checkpoint, as data only: nothing in it is executed.

    Raises:
        RunError: if it is missing, damaged or of another version.
    """
    import torch

    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise RunError(f"there is no checkpoint {path}") from None
    except Exception as error:
        reason = str(error).split("\n")[0][:120]
        raise RunError(f"checkpoint {path} cannot be read: {reason}") from None
    version = checkpoint.get("format") if isinstance(checkpoint, dict) else None
    if version != FORMAT:
        raise RunError(f"checkpoint {path} is of format {version}, this version reads {FORMAT}")
    if missing := CONTENT - checkpoint.keys():
        raise RunError(f"checkpoint {path} lacks {', '.join(sorted(missing))}")
    return dict(checkpoint)


def load_pair(pair: Pair, checkpoint: dict[str, Any]) -> None:
    """Put a checkpoint's weights into model and guide.

    Raises:
        RunError: if they do not fit.
    """
    try:
        pair.model.load_state_dict(checkpoint["model"])
        if pair.guide is not None:
            pair.guide.load_state_dict(checkpoint["guide"])
    except (KeyError, RuntimeError, TypeError, AttributeError) as error:
        reason = " ".join(str(error).split())[:160]
        raise RunError(f"the checkpoint does not fit the recipe: {reason}") from None


def save_checkpoint(path: Path, content: Mapping[str, Any]) -> None:
    """Write a checkpoint that is whole or not there."""
    import torch

    buffer = io.BytesIO()
    torch.save({"format": FORMAT, **content}, buffer)
    write_atomically(path, buffer.getvalue())
