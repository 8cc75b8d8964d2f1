"""The ResNet VAE: layers of image-shaped latents, inferred in both directions."""

from collections.abc import Sequence
from typing import cast

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor, nn
from torch.nn.functional import elu

from pyro_afslvm.models.vae.base import Gaussian, ImageGuide, ImageModel, gaussian, precise
from pyro_afslvm.models.vae.handover import Handover, Receiver
from pyro_afslvm.networks.layers import on_frames
from pyro_afslvm.networks.residual import ResidualBlock, doubling, halved, halving_3x3, near_zero
from pyro_afslvm.transforms import ConvInverseAutoregressive


class TopDownLayer(nn.Module):
    """One layer of the top-down pass: its prior, and how its latents change the features.

    Args:
        width: channels of the features.
        channels: of the latents.
        doubled: whether the next layer has twice the height and width.
    """

    def __init__(self, width: int, channels: int, *, doubled: bool) -> None:
        super().__init__()
        self.prior = near_zero(nn.Conv2d(width, 2 * channels, 3, padding=1))
        self.inner = nn.Conv2d(width, width, 3, padding=1)
        self.latent = nn.Conv2d(channels, width, 3, padding=1)
        self.outer = near_zero(nn.Conv2d(width, width, 3, padding=1))
        self.up = doubling(width, width) if doubled else None

    def prior_of(self, features: Tensor) -> Gaussian:
        """``p(z_l | z_>l)``, from the features that come from above."""
        return gaussian(on_frames(self.prior, elu(features), 3), -3)

    def below(self, features: Tensor, z: Tensor) -> Tensor:
        """Features of the layer below, ``(*batch, width, H, W)``, with this layer's latents."""
        inner = on_frames(self.inner, elu(features), 3)
        mixed = inner + on_frames(self.latent, z.to(inner), 3)
        features = features + on_frames(self.outer, elu(mixed), 3)
        return features if self.up is None else on_frames(self.up, features, 3)


class ResNetVAE(ImageModel):
    r"""Variational autoencoder with L layers of image-shaped latents, from the top down.

    .. math:: p(x, z) = p(x \mid z_{1:L}) \prod_{l = L}^{1} p(z_l \mid z_{>l})

    Each layer adds to the features that come from above a residual branch with its latents
    ``(channels, H_l, W_l)`` mixed in. The prior of a layer is a diagonal Gaussian whose
    parameters are a convolution of these features.

    Args:
        image_shape: ``(C, H, W)``.
        layers: latent layers at each size; the first is half the image's, each other half of
            the one before.
        channels: of the latents.
        width: channels of the features.

    Sites: ``z_L``, ..., ``z_1``, each with event ``(T, channels, H_l, W_l)``, and ``x``; with a
    horizon the same names with ``_future``.

    Raises:
        ValueError: if a number is out of range or the image cannot be halved so often.

    Source: Kingma et al., *Improving Variational Inference with Inverse Autoregressive Flow*,
    arXiv:1606.04934, Fig. 3 and Appendix C.

    >>> model = ResNetVAE((1, 28, 28), layers=(1, 2), channels=4, width=16)
    >>> model.sites
    ('z_3', 'z_2', 'z_1')
    >>> guide = ResNetVAEGuide(model, iaf_hidden=(16,))
    >>> [tuple(z.shape) for z in guide(torch.rand(5, 1, 1, 28, 28).round())]
    [(5, 1, 4, 7, 7), (5, 1, 4, 7, 7), (5, 1, 4, 14, 14)]
    """

    def __init__(
        self,
        image_shape: tuple[int, ...],
        *,
        layers: Sequence[int] = (1, 2),
        channels: int = 4,
        width: int = 32,
    ) -> None:
        if not layers or min(*layers, channels, width) < 1:
            raise ValueError(
                "expected at least one layer at each size, channel and width, got "
                f"{tuple(layers)}, {channels} and {width}"
            )
        sizes = [halved(image_shape, k + 1) for k in range(len(layers))]
        super().__init__(image_shape)
        self.layers, self.channels, self.width = tuple(layers), channels, width
        # from the top down; the last layer of a size but the finest doubles it
        doubled = [n == 0 for count in layers for n in range(count)][::-1]
        doubled[-1] = False
        self.top = nn.Parameter(0.1 * torch.randn(width, *sizes[-1]))
        self.down = nn.ModuleList(TopDownLayer(width, channels, doubled=up) for up in doubled)
        self.pixels = doubling(width, image_shape[0])

    @property
    def sites(self) -> tuple[str, ...]:
        return tuple(f"z_{n}" for n in range(len(self.down), 0, -1))

    @property
    def top_down(self) -> list[TopDownLayer]:
        """The layers, the top one first."""
        return cast(list[TopDownLayer], list(self.down))

    def features(self, latents: tuple[Tensor, ...]) -> Tensor:
        """Run the top-down pass through the layers of the latents ``z_L, ..., z_l``."""
        features: Tensor = self.top
        for layer, z in zip(self.top_down, latents, strict=False):
            features = layer.below(features, z)
        return features

    def prior(
        self, layer: TopDownLayer, features: Tensor, batch_shape: tuple[int, ...]
    ) -> dist.TorchDistribution:
        """``p(z_l | z_>l)``: event ``(T, channels, H_l, W_l)``."""
        of_z = layer.prior_of(features)
        batch, length = batch_shape
        if of_z.mean.ndim == 3:  # the top, the same for every image
            of_z = Gaussian(*(a.expand(length, *a.shape) for a in of_z))
            return of_z.distribution((batch,), event_dims=4)
        return of_z.distribution(tuple(of_z.mean.shape[:-4]), event_dims=4)

    def draw(self, batch_shape: tuple[int, ...], *, suffix: str = "") -> Tensor:
        features: Tensor = self.top
        for site, layer in zip(self.sites, self.top_down, strict=True):
            with Receiver() as received:
                z = pyro.sample(f"{site}{suffix}", self.prior(layer, features, batch_shape))
            features = received.below(layer, features, z)
        return self._logits(features)

    def logits(self, latents: tuple[Tensor, ...]) -> Tensor:
        """Logits of the pixels, ``(*batch, C, H, W)``, from the latents of all layers."""
        return self._logits(self.features(latents))

    def _logits(self, features: Tensor) -> Tensor:
        return precise(on_frames(self.pixels, elu(features), 3))


class ResNetVAEGuide(ImageGuide):
    r"""Posterior of a :class:`ResNetVAE`, by bidirectional inference.

    .. math:: q(z \mid x) = \prod_{l = L}^{1} q(z_l \mid z_{>l}, x)

    A deterministic pass from the bottom up sees the image; then the latents are drawn from the
    top down, where each layer's posterior adds what came from below to the features that the
    model's own top-down pass has there. Each is a diagonal Gaussian with an IAF of masked
    convolutions; the context of the IAF is made in the same way.

    Args:
        model: the model it is for; not owned.
        iaf_depth: steps of each layer's IAF; with 0 the posteriors are diagonal.
        iaf_hidden: channels of its hidden layers.
        context_channels: of its context.

    Source: Kingma et al., *Improving Variational Inference with Inverse Autoregressive Flow*,
    arXiv:1606.04934, Fig. 3 and Appendix C.
    """

    def __init__(
        self,
        model: ResNetVAE,
        *,
        iaf_depth: int = 1,
        iaf_hidden: Sequence[int] = (32,),
        context_channels: int = 16,
    ) -> None:
        super().__init__(model)
        width, channels = model.width, model.channels
        context = context_channels if iaf_depth else 0
        # from the bottom up, and so in the reverse order of the model's layers
        self.stem = halving_3x3(model.frame_shape[0], width)
        up: list[nn.Module] = []
        for layer in model.top_down[::-1]:
            block = ResidualBlock(width)
            up.append(
                block if layer.up is None else nn.Sequential(halving_3x3(width, width), block)
            )
        self.up = nn.ModuleList(up)
        outputs = 2 * channels + context
        self.from_below = nn.ModuleList(nn.Conv2d(width, outputs, 3, padding=1) for _ in up)
        self.from_above = nn.ModuleList(nn.Conv2d(width, outputs, 3, padding=1) for _ in up)
        self.iaf = nn.ModuleList(
            ConvInverseAutoregressive(
                channels, context_channels=context, depth=iaf_depth, hidden=iaf_hidden
            )
            for _ in up
        )
        self.channels, self.iaf_depth = channels, iaf_depth

    @property
    def model(self) -> ResNetVAE:
        """The model this guide was made for."""
        return cast(ResNetVAE, self._model[0])

    def bottom_up(self, x: Tensor) -> list[Tensor]:
        """Give what every layer's posterior gets from the image, the top layer first."""
        features, found = on_frames(self.stem, x, 3), []
        for block, head in zip(self.up, self.from_below, strict=True):
            features = on_frames(block, features, 3)
            found.append(on_frames(head, elu(features), 3))
        return found[::-1]

    def draw(self, x: Tensor) -> tuple[Tensor, ...]:
        latents: tuple[Tensor, ...] = ()
        features: Tensor = self.model.top
        layers = zip(self.model.sites, self.model.top_down, self.bottom_up(x), strict=True)
        for index, (site, layer, below) in enumerate(layers):
            handover = Handover()
            posterior = self.posterior(index, below, features)
            z = pyro.sample(site, posterior, infer=handover.infer)
            latents = (*latents, z)
            if len(latents) < len(self.up):  # no posterior sees what is below the last layer
                features = handover.give(layer, features, z)
        return latents

    def posterior(self, index: int, below: Tensor, above: Tensor) -> dist.TorchDistribution:
        """``q(z_l | z_>l, x)``: event ``(T, channels, H_l, W_l)``.

        Args:
            index: of the layer, the top one first.
            below: what :meth:`bottom_up` has for the layer.
            above: the features of the model's top-down pass.
        """
        index = len(self.up) - 1 - index  # guides count from the bottom
        both = below + on_frames(self.from_above[index], elu(above), 3)
        of_z = gaussian(both[..., : 2 * self.channels, :, :], -3)
        base = of_z.distribution(tuple(of_z.mean.shape[:-4]), event_dims=4)
        if not self.iaf_depth:
            return base
        iaf = cast(ConvInverseAutoregressive, self.iaf[index])
        context = elu(both[..., 2 * self.channels :, :, :])
        conditioned = iaf.condition(context if iaf.context_channels else None)
        moved: dist.TorchDistribution = dist.TransformedDistribution(base, [conditioned])
        return moved
