"""Trained models that come with this package, each a run folder without its optimizer."""

import json
import shutil
from pathlib import Path
from typing import Any

from pyro_afslvm.runs.checkpoint import load_checkpoint
from pyro_afslvm.runs.errors import RunError
from pyro_afslvm.runs.recipe import execute, remember
from pyro_afslvm.runs.run import Run
from pyro_afslvm.runs.trained import TrainedPair, load
from pyro_afslvm.runs.weights import save_weights
from pyro_afslvm.utils.files import write_json

SHIPPED = Path(__file__).parent / "pretrained"
MOST_BYTES = 4 * 2**20  # of a model's weights
CLAIM = ("nats_per_dim", "nats_per_dim_error", "num_sequences", "protocol", "train_seconds")


def shipped_names() -> list[str]:
    """Names of the models, sorted."""
    return sorted(folder.parent.name for folder in SHIPPED.glob("*/settings.json"))


def unpack(name: str, folder: str | Path) -> Run:
    """Copy a model into a run folder, where it can be evaluated and sampled like any other.

    Args:
        name: one of :func:`shipped_names`.
        folder: of the run; if the model is there already, it is used as it is.

    Raises:
        RunError: if there is no such model, or something else is in the folder.
    """
    run, kept = Run(Path(folder)), _shipped(name)
    if not run.path.exists():
        shutil.copytree(kept.path, run.path)
    elif _claimed(run) != _claimed(kept):
        raise RunError(f"{run.path} is not the model {name}: name another folder")
    remember(execute(kept.path / "recipe.py", kept.recipe_text))  # it is the package's own
    return Run.open(run.path)


def pretrained(name: str) -> TrainedPair:
    """Load a trained model and its guide, in evaluation mode.

    Args:
        name: one of :func:`shipped_names`.

    Raises:
        RunError: if there is no such model.

    >>> model, guide = pretrained("moving_mnist_64_slvm_mix")
    >>> model.frame_shape
    (1, 64, 64)
    """
    return load(_shipped(name).path, trust=True)


def claim(run: Run) -> dict[str, Any] | None:
    """Figures that a shipped model claims, with their protocol; ``None`` for other runs."""
    return _claimed(run) or None


def ship(run: Run, name: str, *, source: dict[str, Any] | None = None) -> Path:
    """Make a shipped model of an evaluated run.

    Args:
        run: the run, with its ``results.json``.
        name: of the model.
        source: arguments of the run's source in place of its own, such as no path.

    Returns:
        its folder.

    Raises:
        RunError: if the weights are too large to be shipped.
    """
    folder = SHIPPED / name
    folder.mkdir(parents=True, exist_ok=True)
    checkpoint = load_checkpoint(run.weights)
    save_weights(folder / "weights.safetensors", checkpoint)
    size = (folder / "weights.safetensors").stat().st_size
    if size > MOST_BYTES:
        shutil.rmtree(folder)
        raise RunError(f"the weights of {run.path} are {size / 2**20:.1f} MiB, more than 4")
    settings, results = run.read_settings(), run.read_results()
    settings["source"]["arguments"] |= source or {}
    settings["training"] |= {"start_from": None, "hold": 0}
    settings["recipe_path"] = "recipe.py"
    write_json(folder / "settings.json", settings)
    write_json(folder / "claim.json", {key: results[key] for key in CLAIM})
    for file in ("recipe.py", "metrics.csv"):
        shutil.copyfile(run.path / file, folder / file)
    return folder


def _shipped(name: str) -> Run:
    if name not in (names := shipped_names()):
        raise RunError(f"there is no model {name!r} in this package, only {', '.join(names)}")
    return Run(SHIPPED / name)


def _claimed(run: Run) -> dict[str, Any]:
    try:
        found: dict[str, Any] = json.loads((run.path / "claim.json").read_text())
    except (OSError, ValueError):
        return {}
    return found
