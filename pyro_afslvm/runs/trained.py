"""Trained pairs: a run's model and guide with its weights, and how its data were read."""

from pathlib import Path
from typing import Any

from pyro_afslvm.data import SequenceSource
from pyro_afslvm.data.standardization import Standardization
from pyro_afslvm.models.pair import Pair
from pyro_afslvm.runs.checkpoint import RunError, load_checkpoint, load_pair, save_checkpoint
from pyro_afslvm.runs.recipe import Recipe, build_pair, digest, load_recipe, remember
from pyro_afslvm.runs.run import Run
from pyro_afslvm.runs.settings import TrainSettings


class TrainedPair(Pair):
    """A pair of a run folder, which unpacks to model and guide like any other.

    Attributes:
        run: its folder.
        recipe: what built it.
        checkpoint: of its weights.
    """

    run: Run
    recipe: Recipe
    checkpoint: dict[str, Any]

    @property
    def name(self) -> str:
        """Name of the recipe."""
        return self.recipe.name

    @property
    def source_settings(self) -> dict[str, Any]:
        """The class and the settings of the source it was trained on."""
        return dict(self.run.read_settings().get("source", {}))

    @property
    def standardization(self) -> Standardization | None:
        """Moments its frames were standardized by; none if they are taken as stored."""
        kept = self.run.read_settings().get("standardization")
        return None if kept is None else Standardization.from_json(kept)


def load(
    folder: str | Path, *, recipe: str | Path | None = None, trust: bool = False
) -> TrainedPair:
    """Load model and guide of a run in evaluation mode; see :meth:`Pair.load`."""
    run = Run.open(folder)
    known = run.recipe(given=recipe, trust=trust)
    checkpoint = load_checkpoint(run.weights)
    if checkpoint["recipe"] not in (known.digest, digest(known.text)):  # which was all, once
        raise RunError(f"the checkpoint in {run.path} is of another recipe than {known.path}")
    stored = run.read_settings()
    if "frame_shape" not in stored:  # not there in the release before
        stored["frame_shape"] = run.load_source(recipe=recipe, trust=trust).frame_shape
    built = build_pair(known, tuple(stored["frame_shape"]), stored.get("context_features", 0))
    load_pair(built, checkpoint)
    pair = TrainedPair(*built.eval())
    pair.run, pair.recipe, pair.checkpoint = run, known, checkpoint
    return pair


def save(
    pair: Pair, folder: str | Path, recipe: str | Path | None, source: SequenceSource | None
) -> Run:
    """Write a pair into a run folder; see :meth:`Pair.save`."""
    trained = pair if isinstance(pair, TrainedPair) else None
    if trained is None and (recipe is None or source is None):
        raise RunError(
            "a pair that was not loaded from a run is saved with recipe=FILE, which builds it "
            "again, and source=, the data it was trained on"
        )
    kept = load_recipe(recipe) if recipe is not None else _recipe_of(pair)
    if source is None and trained is not None:
        source = trained.run.load_source(recipe=recipe, trust=True)  # its recipe was executed
        trained.run.take(source)
    assert source is not None
    settings = trained.run.settings if trained else TrainSettings()
    fresh = build_pair(kept, source.frame_shape, source.context_features)
    content = {
        "model": pair.model.state_dict(),
        "guide": None if pair.guide is None else pair.guide.state_dict(),
        "optimizer": {},
        "recipe": kept.digest,
        "step": trained.checkpoint["step"] if trained else 0,
        "seconds": trained.checkpoint["seconds"] if trained else 0.0,
    }
    load_pair(fresh, content)  # refuses weights of another recipe before anything is written
    run = Run.create(folder, kept, settings, source)
    for path in (run.last, run.best):
        save_checkpoint(path, content)
    remember(kept)
    return run


def _recipe_of(pair: Pair) -> Recipe:
    assert isinstance(pair, TrainedPair)
    return pair.recipe
