"""Checkpoints: weights, optimizer, and where training stands."""

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pyro_afslvm.models.pair import Pair
from pyro_afslvm.runs.errors import RunError as RunError
from pyro_afslvm.runs.weights import load_weights
from pyro_afslvm.utils.errors import reason
from pyro_afslvm.utils.files import write_atomically

FORMAT = 1
CONTENT = {"model", "guide", "optimizer", "recipe", "step", "seconds"}  # of a checkpoint


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Read a checkpoint, as data only: nothing in it is executed.

    Raises:
        RunError: if it is missing, damaged or of another version.
    """
    import torch

    if path.suffix == ".safetensors":
        return load_weights(path)
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise RunError(f"there is no checkpoint {path}") from None
    except Exception as error:
        raise RunError(f"checkpoint {path} cannot be read: {reason(error)}") from None
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
        said = [line.strip() for line in str(error).splitlines() if not line.endswith(":")]
        more = f" (and {len(said) - 1} more)" if len(said) > 1 else ""
        raise RunError(f"the checkpoint does not fit the recipe: {said[0]}{more}") from None


def load_what_fits(pair: Pair, checkpoint: dict[str, Any]) -> tuple[list[str], int]:
    """Put those of a checkpoint's weights into model and guide that have a place there.

    Returns:
        the names of the tensors that were put, such as ``model.prior.weight``, and the number of
        those that stay as they are.

    Raises:
        RunError: if there is none.
    """
    put: list[str] = []
    fresh = 0
    for part in ("model", "guide"):
        module = getattr(pair, part)
        if module is None:
            continue
        own, weights = module.state_dict(), checkpoint[part] or {}
        same = {k: v for k, v in weights.items() if k in own and own[k].shape == v.shape}
        module.load_state_dict(own | same)
        put += [f"{part}.{name}" for name in same]
        fresh += len(own) - len(same)
    if not put:
        raise RunError("no weights of that run have the names and shapes of this model's")
    return put, fresh


def save_checkpoint(path: Path, content: Mapping[str, Any]) -> None:
    """Write a checkpoint that is whole or not there."""
    import torch

    buffer = io.BytesIO()
    torch.save({"format": FORMAT, **content}, buffer)
    write_atomically(path, buffer.getvalue())
