"""Weights alone, in a file of safetensors: what a model needs once its training is over."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pyro_afslvm.runs.errors import RunError
from pyro_afslvm.utils.errors import reason
from pyro_afslvm.utils.files import write_atomically

NUMBERS = {"step": int, "seconds": float, "format": int}  # of a checkpoint, in the metadata
PARTS = ("model", "guide")


def save_weights(path: Path, checkpoint: Mapping[str, Any]) -> None:
    """Write the weights of a checkpoint, and the recipe's digest, step and seconds.

    Args:
        path: the file, ``.safetensors``.
        checkpoint: as :func:`pyro_afslvm.runs.checkpoint.load_checkpoint` gives it.
    """
    from safetensors.torch import save

    tensors = {
        f"{part}.{name}": value.detach().clone().contiguous()  # none may share its memory
        for part in PARTS
        for name, value in (checkpoint[part] or {}).items()
    }
    about = {name: str(checkpoint[name]) for name in ("recipe", *NUMBERS)}
    write_atomically(path, save(tensors, metadata=about))


def load_weights(path: Path) -> dict[str, Any]:
    """Read what :func:`save_weights` wrote, as a checkpoint without an optimizer.

    Raises:
        RunError: if it is missing or damaged.
    """
    from safetensors import SafetensorError, safe_open

    parts: dict[str, dict[str, Any]] = {part: {} for part in PARTS}
    try:
        with safe_open(path, framework="pt") as file:
            about = file.metadata() or {}
            for key in file.keys():  # noqa: SIM118  # it is no dictionary
                part, _, name = key.partition(".")
                parts[part][name] = file.get_tensor(key)
        found = {name: read(about[name]) for name, read in NUMBERS.items()}
    except FileNotFoundError:
        raise RunError(f"there are no weights {path}") from None
    except (SafetensorError, OSError, KeyError, ValueError) as error:
        raise RunError(f"weights {path} cannot be read: {reason(error)}") from None
    return {**parts, **found, "recipe": about.get("recipe"), "optimizer": None}
