"""Models of binary images and their guides: what every autoencoder shares."""

from typing import Any, NamedTuple

import pyro
import pyro.distributions as dist
import pyro.poutine as poutine
import torch
from torch import Tensor, nn

from pyro_afslvm.models.base import SequenceBatch, SequenceModel
from pyro_afslvm.models.checks import check_horizon, check_shape
from pyro_afslvm.models.inputs import as_context, as_frames
from pyro_afslvm.models.param_store import register, restore
from pyro_afslvm.utils.checks import check_image
from pyro_afslvm.utils.tracing import checks_values


class Gaussian(NamedTuple):
    """A diagonal Gaussian, in single precision or better, whatever the networks ran in."""

    mean: Tensor
    log_scale: Tensor

    def distribution(
        self, batch_shape: tuple[int, ...], *, event_dims: int
    ) -> dist.TorchDistribution:
        """Make the distribution over ``(*batch_shape, T, *latent)``, as one event per sequence."""
        shape = (*batch_shape, *self.mean.shape[len(self.mean.shape) - event_dims :])
        mean, scale = self.mean.expand(shape), self.log_scale.exp().expand(shape)
        distribution: dist.TorchDistribution = dist.Normal(mean, scale).to_event(event_dims)
        return distribution


def gaussian(parameters: Tensor, dim: int) -> Gaussian:
    """Split a network's output along ``dim`` into mean and log-scale, which is clamped."""
    mean, log_scale = precise(parameters).chunk(2, dim)
    return Gaussian(mean, log_scale.clamp(-15.0, 5.0))


def precise(x: Tensor) -> Tensor:
    """Bring a tensor to single precision, unless it is in double."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


class ImageModel(SequenceModel):
    r"""A latent variable model of binary images, independent pixels given the latents.

    .. math:: p(x, z) = p(z) \prod_i \operatorname{Bernoulli}(x_i \mid \operatorname{logits}_i(z))

    A subclass defines :meth:`draw`. So that everything of this library takes it, its input is
    a batch of sequences whose images are independent of each other; an image is a sequence of
    one: ``(batch, 1, C, H, W)``.

    Args:
        image_shape: ``(C, H, W)``.

    Raises:
        ValueError: if it is not.
    """

    plate_name = "image"
    has_density = False

    def __init__(self, image_shape: tuple[int, ...]) -> None:
        check_image(image_shape)
        super().__init__(image_shape)

    def draw(self, batch_shape: tuple[int, ...], *, suffix: str = "") -> Tensor:
        """Sample the latents of images ``(batch, T)`` within a Pyro program.

        Args:
            batch_shape: ``(batch, T)``.
            suffix: after the names of the sites.

        Returns:
            the pixels' logits, ``(*particles, batch, T, *image_shape)``.
        """
        raise NotImplementedError

    def batch(
        self, x: Tensor, lengths: Tensor | None = None, context: Tensor | None = None
    ) -> SequenceBatch:
        """Check images of zeros and ones ``(batch, T, *image_shape)``, all of which count."""
        restore(self)
        x = as_frames(x, self)
        check_images(x, self.frame_shape, lengths)
        as_context(context, self, x)  # there is none
        return SequenceBatch(None, x, None)

    def joint(self, batch: SequenceBatch) -> None:
        """p(x, z)."""
        x = batch.targets
        pyro.sample("x", pixels(self.draw(tuple(x.shape[:2]))), obs=x)

    def future(
        self, x: Tensor | None, z: Tensor | None, horizon: int, context: Tensor | None = None
    ) -> Tensor:
        """Sample more images, which do not depend on those before."""
        logits = self.draw((1 if x is None else len(x), horizon), suffix="_future")
        images: Tensor = pyro.sample("x_future", pixels(logits))
        return images

    @torch.no_grad()
    def sample_mean(self, num_images: int) -> Tensor:
        """E[x | z] of images sampled from nothing, ``(num_images, *image_shape)``."""
        restore(self)
        with poutine.block(), pyro.plate("image", num_images, dim=-1):
            return self.draw((num_images, 1)).sigmoid().squeeze(-4)

    @torch.no_grad()
    def reconstruct(self, guide: "ImageGuide", x: Tensor) -> Tensor:
        """E[x | z] with a sample of the guide for each image, of the shape of ``x``."""
        with poutine.block():
            sampled = poutine.trace(guide).get_trace(x)
            replayed = poutine.replay(self, trace=sampled)
            observed: Any = poutine.trace(replayed).get_trace(x).nodes["x"]
        mean: Tensor = observed["fn"].mean
        return mean


class ImageGuide(nn.Module):
    """Approximate posterior of an :class:`ImageModel`; a subclass defines :meth:`draw`.

    Args:
        model: the model it is for, which is not owned.
    """

    def __init__(self, model: ImageModel) -> None:
        super().__init__()
        self._model = (model,)  # in a tuple: its parameters have one owner

    def draw(self, x: Tensor) -> tuple[Tensor, ...]:
        """Sample the latents of images ``(batch, T, *image_shape)`` within a Pyro program."""
        raise NotImplementedError

    def forward(
        self, x: Tensor | None = None, *, horizon: int = 0, lengths: Tensor | None = None
    ) -> tuple[Tensor, ...] | None:
        """q(z | x); the arguments are those of the model.

        Returns:
            the latents in the order of the model's sites.
        """
        register(self)
        x = None if x is None else as_frames(x, self)
        check_horizon(x, horizon, lengths)
        if x is None:
            return None
        with self._model[0].plate(x):
            return self.draw(self._model[0].batch(x, lengths).targets)


def pixels(logits: Tensor) -> dist.TorchDistribution:
    """Make the distribution of independent pixels of sequences ``(*batch, T, C, H, W)``."""
    bernoulli: dist.TorchDistribution = dist.Bernoulli(logits=precise(logits)).to_event(4)
    return bernoulli


def check_images(x: Tensor, image_shape: tuple[int, ...], lengths: Tensor | None = None) -> None:
    """Check that x is a batch of sequences of binary images.

    Raises:
        ValueError: for another shape, pixels that are not 0 or 1, or lengths.
    """
    check_shape(x, image_shape)
    if lengths is not None:
        raise ValueError("expected no lengths: images are independent, and every one counts")
    if not x.is_floating_point():
        raise ValueError(f"expected binary images as floating point numbers, got {x.dtype}")
    if not checks_values(x):
        return
    odd = x[(x != 0) & (x != 1)]  # NaN is neither
    if len(odd):
        raise ValueError(
            f"x holds {float(odd[0]):g}; expected binary pixels 0 and 1 such as those of "
            "pyro_afslvm.data.BinarizedMNIST"
        )
