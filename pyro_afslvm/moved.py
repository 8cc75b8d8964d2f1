"""Old paths of modules and names, for one release: recipes of stored runs import them."""

import re
import sys
import warnings
from collections.abc import Callable, Sequence
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType

_PREFIX = "pyro_afslvm."
MOVED = {  # where what was in a module is to be found, the likeliest place first
    "acceleration": ("training.acceleration",),
    "averaging": ("training.averaging",),
    "console": ("cli.console", "training.interrupt"),
    "data.ahead": ("data.videos.prefetch",),
    "data.base": ("data.source", "data.splits", "data.dequantize", "data.registry", "utils.checks"),
    "data.binarized": ("data.datasets.binarized_mnist",),
    "data.bair": ("data.datasets.bair",),
    "data.digits": ("data.datasets.moving_digits",),
    "data.files": ("data.arrays.formats", "data.datasets.mnist_files"),
    "data.guess": ("data.registry",),
    "data.kth": ("data.datasets.kth",),
    "data.layout": ("data.arrays.reader", "utils.dims"),
    "data.mnist": ("data.datasets.moving_mnist",),
    "data.motion": ("data.datasets.bouncing", "data.datasets.resize"),
    "data.noise": ("data.dequantize", "data.source"),
    "data.prepared": ("data.videos.prepared",),
    "data.shards": ("data.videos.store",),
    "data.store": ("data.videos.store",),
    "data.tfrecord": ("data.datasets.tfrecord",),
    "data.video": ("data.videos.decoding",),
    "flow": ("models.flow", "models.base"),
    "inspecting": ("cli.inspect",),
    "layers": ("networks.layers",),
    "loss": ("objectives.loss", "evaluation.crops", "models.base"),
    "memory": ("networks.history_encoder",),
    "metrics.arguments": ("metrics.inputs",),
    "objectives.unwatched": ("objectives.elbo",),
    "pair": ("models.pair",),
    "pictures": ("evaluation.pictures",),
    "preparing": ("cli.prepare",),
    "processes": ("utils.distributed", "runs.settings"),
    "programs": ("models.base", "models.checks", "models.param_store", "models.programs"),
    "progress": ("utils.progress", "training.progress"),
    "report.runs": ("runs.contents",),
    "residual": ("networks.residual", "networks.masked"),
    "rollout": ("forecasting.rollout",),
    "sampling": ("training.sampler", "utils.seeding"),
    "settings": ("runs.settings",),
    "slvm": ("models.slvm",),
    "streaming": ("forecasting.streaming",),
    "svi": ("training.fit", "training.errors"),
    "training_module": ("training.loop",),
    "transforms.iaf_conv": ("transforms.iaf.images",),
    "transforms.inverse": ("transforms.iaf.base",),
    "transforms.memo": ("transforms.cache",),
    "trees": ("utils.trees",),
    "vae": ("models.vae",),
    "vae.base": ("models.vae.base",),
    "vae.ladder": ("models.vae.resnet",),
    "vae.single": ("models.vae.single",),
    "workflow": ("cli.workflow",),
}

NAMES = {  # where one name went that its module's entry above does not find; or what to use instead
    "averaging.RunningAverage": "use pyro_afslvm.training.averaging.running_average",
    "cli.COMMANDS": "cli.main.COMMANDS",
    "cli.DATA_COMMANDS": "cli.main.DATA_COMMANDS",
    "cli.SOURCES": "data.registry.SOURCES",
    "cli.build_parser": "cli.main.build_parser",
    "cli.out_folder": "cli.main.out_folder",
    "data.archives.Reader": "use pyro_afslvm.data.archives.unpack",
    "data.arrays.Part": "data.arrays.source.Part",
    "data.arrays.Values": "data.arrays.source.Values",
    "data.datasets.Frames": "data.sequences.Frames",
    "data.datasets.GeneratedSequences": "data.sequences.GeneratedSequences",
    "data.datasets.SequenceDataset": "data.sequences.SequenceDataset",
    "data.datasets.StoredSequences": "data.sequences.StoredSequences",
    "data.datasets.Values": "data.sequences.Values",
    "data.datasets.generator": "data.sequences.generator",
    "data.download.Progress": "use pyro_afslvm.data.download.download",
    "data.download.Resuming": "use pyro_afslvm.data.download.download",
    "data.inspection.noise_variance": "data.inspection.added_variance",
    "data.shards.ShardWriter": "use pyro_afslvm.data.videos.store.store_frames",
    "data.videos.SUFFIXES": "data.videos.source.SUFFIXES",
    "evaluation.Likelihood": "evaluation.metrics.Likelihood",
    "evaluation.Progress": "evaluation.metrics.Progress",
    "evaluation.correlations": "evaluation.metrics.correlations",
    "evaluation.evaluate": "evaluation.metrics.evaluate",
    "evaluation.likelihood": "evaluation.metrics.likelihood",
    "layers.halving": "networks.layers.halving_4x4",
    "memory.FrameMemory": "networks.history_encoder.HistoryEncoder",
    "memory.MemoryState": "networks.history_encoder.HistoryState",
    "networks.pyramid": "networks.convolutional.pyramid",
    "plots.style.checked": "plots.checks.as_frames",
    "plots.style.first_of": "plots.checks.first_of",
    "programs.batch_size": "use len(x)",
    "report.T": "report.page.T",
    "report.load_runs": "report.labels.load_runs",
    "report.runs.Run": "runs.contents.RunContents",
    "report.runs.load_run": "runs.contents.read_contents",
    "report.runs.load_runs": "report.labels.load_runs",
    "residual.halving": "networks.residual.halving_3x3",
    "results.tree.Array": "results.variables.Array",
    "results.particles.futures": "forecasting.futures.futures",
    "runs.CONTENT": "runs.checkpoint.CONTENT",
    "recipes.Recipe": "runs.recipe.Recipe",
    "recipes.RecipeError": "runs.recipe.RecipeError",
    "recipes.build_pair": "runs.recipe.build_pair",
    "recipes.digest": "runs.recipe.digest",
    "recipes.execute": "runs.recipe.execute",
    "recipes.is_known": "runs.recipe.is_known",
    "recipes.load_recipe": "runs.recipe.load_recipe",
    "recipes.remember": "runs.recipe.remember",
    "runs.FORMAT": "runs.checkpoint.FORMAT",
    "runs.Run": "runs.run.Run",
    "runs.RunError": "runs.errors.RunError",
    "runs.load_checkpoint": "runs.checkpoint.load_checkpoint",
    "runs.load_pair": "runs.checkpoint.load_pair",
    "runs.read_json": "runs.contents.read_json",
    "runs.save_checkpoint": "runs.checkpoint.save_checkpoint",
    "runs.write_atomically": "utils.files.write_atomically",
    "runs.write_json": "utils.files.write_json",
    "training.train": "training.run.train",
    "training.watched": "training.run.watched",
    "training_module.Training": "use pyro_afslvm.training.run.train",
    "transforms.Level": "transforms.steps.AffineStep",
    "transforms.affine.AffineState": "transforms.autoregressive.AutoregressiveState",
    "transforms.base.Level": "transforms.steps.AffineStep",
    "transforms.base.compose": "transforms.steps.compose",
    "transforms.base.join": "transforms.time_axis.join",
    "transforms.iaf.LAST_LAYER": "transforms.iaf.vectors.LAST_LAYER",
    "transforms.iaf.check_iaf": "transforms.iaf.vectors.check_iaf",
    "transforms.memo.Memo": "use pyro_afslvm.transforms.cache.Cache",
    "transforms.memo.Result": "use pyro_afslvm.transforms.steps.Inverse",
    "vae.ladder.Level": "use pyro_afslvm.models.vae.base.Gaussian",
}


def old_names(module: str) -> Callable[[str], object]:
    """Make the ``__getattr__`` of a module that some names have left.

    It gives them from where they are now, with a warning.

    Raises:
        ImportError: for a name that is no more, saying what to use.
    """
    old = module.removeprefix(_PREFIX)

    def find(name: str) -> object:
        new = NAMES.get(f"{old}.{name}")
        if new is None:
            raise AttributeError(f"module {module!r} has no attribute {name!r}")
        value = _there(f"{old}.{name}", new)
        warnings.warn(
            f"{module}.{name} has moved: import {_PREFIX}{new}", FutureWarning, stacklevel=2
        )
        return value

    return find


def _there(old: str, new: str) -> object:
    """The object of an entry of :data:`NAMES`."""
    if " " in new:  # AttributeError would lose its message on the way through an import
        raise ImportError(f"{_PREFIX}{old} is no more: {new}")
    module, _, name = new.rpartition(".")
    return getattr(import_module(_PREFIX + module), name)


def modern(text: str) -> str:
    """Write present paths of modules into a program, and present names where they changed."""
    for old, places in MOVED.items():
        text = re.sub(rf"\b{re.escape(_PREFIX + old)}(?=\s)", _PREFIX + places[0], text)
    for old, new in NAMES.items():
        before, now = (path.rpartition(".")[-1] for path in (old, new))
        if " " not in new and before != now:
            text = re.sub(rf"\b{before}\b", now, text)
    return text


class _Moved(ModuleType):
    """A module that is not there any more, and knows where its names went."""

    __path__: list[str]

    def __getattr__(self, name: str) -> object:
        if not name.startswith("__"):
            old = self.__name__.removeprefix(_PREFIX)
            if new := NAMES.get(f"{old}.{name}"):
                return _there(f"{old}.{name}", new)
            for place in MOVED[old]:
                module = import_module(_PREFIX + place)
                if hasattr(module, name):
                    return getattr(module, name)
        raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")


class OldPaths(MetaPathFinder, Loader):
    """Finds the modules of :data:`MOVED` where nothing else does, with a warning."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        name = fullname.removeprefix(_PREFIX)
        if name == fullname or name not in MOVED:
            return None
        return ModuleSpec(fullname, self, is_package=name == "vae")

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        return _Moved(spec.name)

    def exec_module(self, module: ModuleType) -> None:
        places = " or ".join(_PREFIX + place for place in MOVED[module.__name__[len(_PREFIX) :]])
        warnings.warn(
            f"{module.__name__} has moved: import from {places}", FutureWarning, stacklevel=2
        )


sys.meta_path.append(OldPaths())
