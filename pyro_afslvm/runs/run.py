"""Run folders: recipe, settings, checkpoints and results of one training."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pyro_afslvm.data import SequenceSource, choose_dequantization, source_from_config
from pyro_afslvm.data.registry import UnknownSourceError
from pyro_afslvm.data.standardization import Standardization
from pyro_afslvm.moved import modern
from pyro_afslvm.runs.beside import Texts, read_source
from pyro_afslvm.runs.checkpoint import FORMAT
from pyro_afslvm.runs.contents import Array, read_curves, read_results, read_settings
from pyro_afslvm.runs.errors import RunError
from pyro_afslvm.runs.recipe import Recipe, RecipeError, execute, is_known, load_recipe
from pyro_afslvm.runs.settings import TrainSettings
from pyro_afslvm.utils.errors import reason
from pyro_afslvm.utils.files import write_atomically, write_json


@dataclass(frozen=True)
class Run:
    """A folder holding one training run.

    ``recipe.py`` (its text) and the files beside that it imports, ``settings.json`` (settings,
    data and their standardization, versions), ``metrics.csv`` (curves of training),
    ``last.ckpt``, ``best.ckpt``, and after evaluation ``results.json`` and ``pictures.npz``.

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
    def weights(self) -> Path:
        """The best weights: the best checkpoint, else the newest, else a file of weights alone."""
        places = (self.best, self.last, self.path / "weights.safetensors")
        return next((place for place in places if place.exists()), self.best)

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
        if run.path.exists() and not run.path.is_dir():
            raise RunError(f"{run.path} is a file, not a folder: choose another --out")
        if run.path.exists() and any(run.path.iterdir()):
            raise RunError(f"{run.path} is not empty: choose another --out, or give --resume")
        try:
            run.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise RunError(f"cannot make {run.path}: {error.strerror}") from None
        kept = source.standardization
        content = {
            "format": FORMAT,
            "training": asdict(settings),
            "data": source.describe(),
            "source": source.config(),
            "frame_shape": list(source.frame_shape),
            "context_features": source.context_features,
            "standardization": None if kept is None else kept.to_json(),
            "recipe_files": run._keep(recipe),
            "recipe_path": str(recipe.path.absolute()),
            "versions": software_versions(),
        }
        write_json(run.path / "settings.json", content)
        return run

    def _keep(self, recipe: Recipe) -> list[str]:
        """Write the recipe, and beside it the files it imports; give their names."""
        if "recipe.py" in recipe.files:
            raise RunError(f"{recipe.path} imports recipe.py, as runs call the recipe: rename it")
        for place, text in {**recipe.files, "recipe.py": recipe.text}.items():
            (self.path / place).parent.mkdir(parents=True, exist_ok=True)
            write_atomically(self.path / place, text.encode())
        return sorted(recipe.files)

    @classmethod
    def open(cls, path: str | Path) -> "Run":
        """Open an existing run.

        Raises:
            RunError: if there is none, or it is of another version.
        """
        run = cls(Path(path))
        if run.path.is_file():
            raise RunError(f"{run.path} is a file, not the folder of a run")
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
            try:
                return source_from_config(config, trust=trust)
            except UnknownSourceError as error:
                name = config.get("class")
                more = reason(error) if trust else "which is no source that is known here"
                others = "" if trust else ", or --trust to import it"
                raise UnknownSourceError(
                    f"the data of {self.path} are of {name}, {more}: give --data {name} and its "
                    f"settings{others}"
                ) from None

    def take(self, source: SequenceSource) -> None:
        """Have a source give its frames as the run's model takes them.

        They are standardized as in training, whatever the source's own moments.

        Raises:
            ValueError: if the frames are of another shape or kind.
        """
        stored, wanted = self.read_settings(), self.settings.dequantization
        shape = tuple(stored.get("frame_shape") or source.frame_shape)
        if shape != tuple(source.frame_shape):
            raise RunError(
                f"{self.path} was trained on frames of {shape}, these data have frames of "
                f"{tuple(source.frame_shape)}"
            )
        known = stored.get("context_features", 0)  # not there in the release before
        if known != source.context_features:
            raise RunError(
                f"{self.path} was trained with {known} covariates of each frame, these data have "
                f"{source.context_features}: choose them by --data.context"
            )
        choose_dequantization(wanted, source)  # which refuses pixels in place of real numbers
        source.of_data = "standardization" in stored  # not so in the release before
        if source.of_data:
            kept = stored["standardization"]
            source.standardize_by(None if kept is None else Standardization.from_json(kept))

    def check_resumable(
        self, recipe: Recipe, settings: TrainSettings, source: SequenceSource
    ) -> None:
        """Refuse to resume with another recipe or changed settings.

        Raises:
            RunError: naming what differs.
        """
        if not self._is_of(recipe):
            raise RunError(f"{self.path} was trained with another recipe than {recipe.path}")
        if changed := settings.changed_from(self.settings):
            raise RunError(f"{self.path} was trained with another {', '.join(changed)}")
        if source.describe() != self.read_settings().get("data"):
            raise RunError(f"{self.path} was trained on other data")

    def update_settings(
        self,
        settings: TrainSettings,
        source: SequenceSource | None = None,
        recipe: Recipe | None = None,
    ) -> None:
        """Note a new budget on resuming, and where the data and the recipe are now."""
        content = self.read_settings() | {"training": asdict(settings)}
        if source is not None:
            content["source"] = source.config()
        if recipe is not None:
            content["recipe_path"] = str(recipe.path.absolute())
        write_json(self.path / "settings.json", content)

    @property
    def recipe_text(self) -> str:
        """Text of the recipe the run was trained with."""
        return self._source("recipe.py")

    @property
    def recipe_files(self) -> dict[str, str]:
        """Files beside it that it imports, as the run was trained with them."""
        names = self.read_settings().get("recipe_files") or []
        return {str(name): self._source(str(name)) for name in names}

    def _source(self, name: str) -> str:
        try:
            return read_source(self.path / name)
        except (OSError, UnicodeDecodeError):
            raise RunError(f"{self.path} holds no readable {name}") from None

    def _is_of(self, recipe: Recipe) -> bool:
        """Whether this is the text of the run's recipe, and of the files it imports."""
        known = "recipe_files" in self.read_settings()  # not in the release before
        files = self.recipe_files if known else recipe.files
        return _modern(recipe.text, recipe.files) == _modern(self.recipe_text, files)

    def was_trained_with(self, path: str | Path) -> bool:
        """Whether a recipe of the user's own is the run's; this executes it.

        Raises:
            RecipeError: it cannot be read or executed.
        """
        return self._is_of(load_recipe(path))

    @property
    def is_known(self) -> bool:
        """Whether the user trained the run's recipe here."""
        return is_known(self.recipe_text, self.recipe_files)

    def recipe(self, *, given: str | Path | None = None, trust: bool = False) -> Recipe:
        """The run's recipe, which is code, made executable.

        Args:
            given: a recipe of the user's own that must have the same text.
            trust: execute the folder's copy whoever wrote it.

        Raises:
            RecipeError: if the text is not one the user has here.
        """
        if given is not None:
            recipe = load_recipe(given)
            if not self._is_of(recipe):
                raise RecipeError(f"{self.path} was trained with another recipe than {given}")
            return recipe
        if not (trust or self.is_known):
            raise RecipeError(
                f"{self.path / 'recipe.py'} is code that was not run here before: read it, then "
                "give --trust, or name your own copy with --recipe FILE"
            )
        known = self.read_settings().get("recipe_path")  # not in the release before
        origin = None if known is None else Path(str(known))
        texts = self.recipe_text, self.recipe_files
        return execute(self.path / "recipe.py", *texts, origin=origin)


def _modern(text: str, files: Texts) -> dict[str, str]:
    return {place: modern(content) for place, content in {**files, "recipe.py": text}.items()}
