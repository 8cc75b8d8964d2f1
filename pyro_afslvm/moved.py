"""Old module paths, for one release: recipes of stored runs import them."""

import sys
import warnings
from collections.abc import Sequence
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType

_PREFIX = "pyro_afslvm."
MOVED = {  # where what was in a module is to be found, the likeliest place first
    "acceleration": ("training.acceleration",),
    "averaging": ("training.averaging",),
    "console": ("cli.console", "training.interrupt"),
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
    "data.video": ("data.videos.decoding",),
    "flow": ("models.flow", "models.base"),
    "layers": ("networks.layers",),
    "loss": ("objectives.loss", "evaluation.crops", "models.base"),
    "memory": ("networks.history_encoder",),
    "objectives.unwatched": ("objectives.elbo",),
    "pair": ("models.pair",),
    "pictures": ("evaluation.pictures",),
    "processes": ("utils.distributed", "runs.settings"),
    "programs": ("models.base", "models.checks", "models.param_store", "models.programs"),
    "progress": ("utils.progress", "training.progress"),
    "recipes": ("runs.recipe",),
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


class _Moved(ModuleType):
    """A module that is not there any more, and knows where its names went."""

    __path__: list[str]

    def __getattr__(self, name: str) -> object:
        if not name.startswith("__"):
            for place in MOVED[self.__name__.removeprefix(_PREFIX)]:
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
