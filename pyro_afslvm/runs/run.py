"""Run folders: recipe, settings, checkpoints and results of one training."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pyro_afslvm.data import SequenceSource, source_from_config
from pyro_afslvm.data.registry import UnknownSourceError
from pyro_afslvm.moved import modern
from pyro_afslvm.runs.checkpoint import FORMAT
from pyro_afslvm.runs.contents import Array, read_curves, read_results, read_settings
from pyro_afslvm.runs.errors import RunError
from pyro_afslvm.runs.recipe import Recipe, RecipeError, execute, is_known, load_recipe
from pyro_afslvm.runs.settings import TrainSettings
from pyro_afslvm.utils.files import write_atomically, write_json


@dataclass(frozen=True)
class Run:
    """A folder holding one training run.

    ``recipe.py`` (its text), ``settings.json`` (settings, data, versions), ``metrics.csv``
    (curves of training), ``last.ckpt``, ``best.ckpt``, and after evaluation ``results.json``
    and ``pictures.npz``.

    Args:
        path: the folder.
    """

    path: Path

    @property
    def last(self) -> Path:
        """The newest checkpoint."""
        return self.path / "last.ckpt"

    @property
    def best(self) -> Path:
        """The checkpoint with the best nats/dim in validation."""
        return self.path / "best.ckpt"

    @property
    def metrics(self) -> Path:
        """Curves of training: step, seconds, nats/dim."""
        return self.path / "metrics.csv"

    @property
    def results(self) -> Path:
        """Metrics on the test set, with their protocol."""
        return self.path / "results.json"

    @property
    def pictures(self) -> Path:
        """Arrays that pictures are drawn from."""
        return self.path / "pictures.npz"

    @classmethod
    def create(
        cls, path: str | Path, recipe: Recipe, settings: TrainSettings, source: SequenceSource
    ) -> "Run":
        """Start a run in a new or empty folder.

        Raises:
            RunError: if the folder holds anything.
        """
        from pyro_afslvm.data import software_versions

        run = cls(Path(path))
        if run.path.exists() and (not run.path.is_dir() or any(run.path.iterdir())):
            raise RunError(f"{run.path} is not empty: choose another --out, or give --resume")
        try:
            run.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise RunError(f"cannot make {run.path}: {error.strerror}") from None
        write_atomically(run.path / "recipe.py", recipe.text.encode())
        content = {
            "format": FORMAT,
            "training": asdict(settings),
            "data": source.describe(),
            "source": source.config(),
            "versions": software_versions(),
        }
        write_json(run.path / "settings.json", content)
        return run

    @classmethod
    def open(cls, path: str | Path) -> "Run":
        """Open an existing run.

        Raises:
            RunError: if there is none, or it is of another version.
        """
        run = cls(Path(path))
        if not (run.path / "settings.json").is_file():
            raise RunError(f"{run.path} holds no run: settings.json is missing")
        version = run.read_settings().get("format")
        if version != FORMAT:
            raise RunError(f"{run.path} is of format {version}, this version reads {FORMAT}")
        return run

    def read_settings(self) -> dict[str, Any]:
        """Read ``settings.json``."""
        return read_settings(self.path / "settings.json")

    def read_results(self) -> dict[str, Any]:
        """Read ``results.json``."""
        return read_results(self.results)

    def read_curves(self) -> dict[str, Array]:
        """Read the columns of ``metrics.csv``."""
        return read_curves(self.metrics)

    @property
    def settings(self) -> TrainSettings:
        """Settings the run was trained with."""
        stored = self.read_settings()
        try:
            return TrainSettings(**stored["training"])
        except (KeyError, TypeError, ValueError) as error:
            raise RunError(f"{self.path / 'settings.json'} is damaged: {error}") from None

    @property
    def source(self) -> SequenceSource:
        """The data the run was trained on; see :meth:`load_source`."""
        return self.load_source()

    def load_source(
        self, *, recipe: str | Path | None = None, trust: bool = False
    ) -> SequenceSource:
        """The data the run was trained on, of a source that its recipe may define.

        Args:
            recipe: a recipe of the user's own that must have the same text.
            trust: execute the folder's recipe, and import the source, whoever wrote them.

        Raises:
            RecipeError: if only the recipe can define it, and that is not one the user has here.
            ValueError: if the source is not registered, unless trusted.
        """
        config = self.read_settings().get("source", {})
        try:
            return source_from_config(config)
        except UnknownSourceError:
            self.recipe(given=recipe, trust=trust)
            return source_from_config(config, trust=trust)

    def check_resumable(
        self, recipe: Recipe, settings: TrainSettings, source: SequenceSource
    ) -> None:
        """Refuse to resume with another recipe or changed settings.

        Raises:
            RunError: naming what differs.
        """
        if modern(recipe.text) != modern(self.recipe_text):
            raise RunError(f"{self.path} was trained with another recipe than {recipe.path}")
        if changed := settings.changed_from(self.settings):
            raise RunError(f"{self.path} was trained with another {', '.join(changed)}")
        if source.describe() != self.read_settings().get("data"):
            raise RunError(f"{self.path} was trained on other data")

    def update_settings(self, settings: TrainSettings) -> None:
        """Note a new budget on resuming."""
        content = self.read_settings() | {"training": asdict(settings)}
        write_json(self.path / "settings.json", content)

    @property
    def recipe_text(self) -> str:
        """Text of the recipe the run was trained with."""
        try:
            return (self.path / "recipe.py").read_text()
        except (OSError, UnicodeDecodeError):
            raise RunError(f"{self.path} holds no readable recipe.py") from None

    def recipe(self, *, given: str | Path | None = None, trust: bool = False) -> Recipe:
        """The run's recipe, which is code, made executable.

        Args:
            given: a recipe of the user's own that must have the same text.
            trust: execute the folder's copy whoever wrote it.

        Raises:
            RecipeError: if the text is not one the user has here.
        """
        text = self.recipe_text
        if given is not None:
            recipe = load_recipe(given)
            if modern(recipe.text) != modern(text):
                raise RecipeError(f"{self.path} was trained with another recipe than {given}")
            return recipe
        if not (trust or is_known(text)):
            raise RecipeError(
                f"{self.path / 'recipe.py'} is code that was not run here before: read it, then "
                "give --trust, or name your own copy with --recipe FILE"
            )
        return execute(self.path / "recipe.py", text)
