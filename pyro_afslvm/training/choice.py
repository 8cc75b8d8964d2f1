"""The best of several recipes for some series, by validation alone, beside classical models."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

from torch import Tensor

from pyro_afslvm.data import SequenceSource
from pyro_afslvm.data.sequences import StoredSequences
from pyro_afslvm.data.splits import Split
from pyro_afslvm.evaluation.baselines import Scores, baselines
from pyro_afslvm.models.base import context_length
from pyro_afslvm.models.pair import Pair
from pyro_afslvm.runs.recipe import Recipe, build_pair
from pyro_afslvm.training.series import Trained, train_series
from pyro_afslvm.utils.seeding import Stream, seed_step

MOST_GIVEN = 96  # frames at the start of validation series that are not scored
SECONDS = 120.0  # for all recipes together


class Candidate(NamedTuple):
    """A recipe that was trained."""

    recipe: Recipe
    pair: Pair
    trained: Trained


class Choice(NamedTuple):
    """All that were tried."""

    candidates: list[Candidate]
    left_out: list[tuple[Recipe, int]]  # recipes that need more frames, and how many
    baselines: Scores
    skip: int  # frames of validation series that are given

    @property
    def best(self) -> Candidate:
        """The candidate with the highest likelihood of the validation data."""
        return max(self.candidates, key=lambda candidate: candidate.trained.score)

    @property
    def baseline_wins(self) -> bool:
        """Whether a classical model is better than all recipes."""
        return self.baselines.by_name[self.baselines.best] > self.best.trained.score


def series_of(source: SequenceSource, split: Split) -> list[tuple[Tensor, Tensor | None]]:
    """All stored sequences of a split, whole, with their covariates.

    Raises:
        ValueError: for frames that are no vectors, and sequences that are not stored.
    """
    if len(source.frame_shape) != 1:
        raise ValueError(f"expected series of vectors, got frames {source.frame_shape}")
    data = source.dataset(split, num_frames=1)
    if not isinstance(data, StoredSequences):
        raise ValueError(f"expected stored series, and {source.name} makes its sequences")
    return [*data.whole()]


def choose(
    recipes: Sequence[Recipe],
    source: SequenceSource,
    *,
    seconds: float = SECONDS,
    skip: int | None = None,
    seed: int = 0,
    report: Callable[[Recipe], None] = lambda recipe: None,
) -> Choice:
    """Train each recipe on the training series for its share of the time, and compare them.

    Args:
        recipes: models of vectors; those that need more than ``skip`` frames are left out.
        source: of stored series.
        seconds: for all of them together; a recipe may need less.
        skip: frames at the start of each validation series that are not scored; by default half
            of the shortest, or 96.
        seed: of weights, crops and latents.
        report: called with each recipe before it is trained.

    Raises:
        ValueError: where no recipe fits, or the series are too short.
    """
    train, validation = series_of(source, "train"), series_of(source, "validation")
    if skip is None:
        skip = max(1, min(MOST_GIVEN, min(len(x) for x, _ in validation) // 2))
    pairs = []
    for recipe in recipes:
        seed_step(seed, 0, Stream.PARAMETERS)
        pairs.append((recipe, build_pair(recipe, source.frame_shape, source.context_features)))
    needed = [(recipe, context_length(pair.model)) for recipe, pair in pairs]
    left_out = [(recipe, length) for recipe, length in needed if length > skip]
    fitting = [(r, p) for r, p in pairs if context_length(p.model) <= skip]
    if not fitting:
        least = min(length for _, length in needed)
        raise ValueError(
            f"the validation series are too short: recipes need at least {least} frames before "
            f"those that are scored, and {skip} are given"
        )
    classical, candidates = baselines(train, validation, skip=skip), []
    for recipe, pair in fitting:
        report(recipe)
        trained = train_series(
            pair, train, validation, skip=skip, seconds=seconds / len(fitting), seed=seed
        )
        candidates.append(Candidate(recipe, pair, trained))
    return Choice(candidates, left_out, classical, skip)
