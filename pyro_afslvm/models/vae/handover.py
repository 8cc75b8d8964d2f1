"""Handing the features of a top-down pass from a guide to the model that is replayed with it."""

from typing import Any

from pyro.poutine.messenger import Messenger
from torch import Tensor

from pyro_afslvm.transforms.cache import Snapshot


class Handover:
    """Features below a layer, on their way from the guide to the model.

    The guide's top-down pass needs them first. It puts them beside the layer's latents, into the
    ``infer`` of their site, and Pyro's replay hands these to the model along with the latents'
    values. They are taken once, and not if the features above, the latents or the layer are no
    longer those that they were made of: a model with another guide, or with other latents or
    parameters than its guide saw, computes them itself.

    A layer is a module whose method ``below`` makes features of those above and its latents.
    """

    KEY = "features_below"

    def __init__(self) -> None:
        self._made_of: Snapshot | None = None
        self._below: Tensor | None = None

    @property
    def infer(self) -> Any:
        """The argument of that name for the latents' site."""
        return {self.KEY: self}

    def give(self, layer: Any, features: Tensor, z: Tensor) -> Tensor:
        """Compute the features below a layer, and hold them for the model."""
        below: Tensor = layer.below(features, z)
        self._below, self._made_of = below, Snapshot.of((layer,), (features, z))
        return below

    def take(self, layer: Any, features: Tensor, z: Tensor) -> Tensor | None:
        """Take the features if they were made of these."""
        made_of, below = self._made_of, self._below
        self._made_of = self._below = None
        return below if made_of is not None and made_of.holds((layer,), (features, z)) else None


class Receiver(Messenger):
    """Sees what the guide has put beside the latents that are sampled within."""

    def __init__(self) -> None:
        super().__init__()
        self._handed: Handover | None = None

    def _pyro_post_sample(self, message: Any) -> None:
        self._handed = message["infer"].get(Handover.KEY)

    def below(self, layer: Any, features: Tensor, z: Tensor) -> Tensor:
        """The features below a layer, from the guide where it handed them over."""
        handed = None if self._handed is None else self._handed.take(layer, features, z)
        computed: Tensor = layer.below(features, z) if handed is None else handed
        return computed
