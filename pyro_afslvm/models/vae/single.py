"""The variational autoencoder with one vector of latents."""

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor, nn

from pyro_afslvm.distributions import standard_normal
from pyro_afslvm.models.inputs import as_weights
from pyro_afslvm.models.vae.base import ImageGuide, ImageModel, gaussian, precise
from pyro_afslvm.transforms import InverseAutoregressive
from pyro_afslvm.transforms.iaf.vectors import check_iaf


class VAE(ImageModel):
    r"""Variational autoencoder of binary images: N(0, I) latents, Bernoulli pixels.

    .. math:: z \sim N(0, I), \qquad x_i \sim \operatorname{Bernoulli}(\operatorname{logits}_i(z))

    Args:
        image_shape: ``(C, H, W)``.
        latent_size: size of a latent vector.
        decoder: maps ``(*batch, latent_size)`` to logits ``(*batch, C, H, W)``.

    Raises:
        ValueError: if a size is out of range.

    Sites: ``z`` with event ``(T, latent_size)`` and ``x``; with a horizon ``z_future`` and
    ``x_future``. The images of a sequence are independent; an image is a sequence of one.

    Source: Kingma, Welling, *Auto-Encoding Variational Bayes*, arXiv:1312.6114.

    >>> import torch
    >>> from pyro_afslvm.networks import ResidualDecoder, ResidualEncoder
    >>> model = VAE((1, 28, 28), 8, decoder=ResidualDecoder(8, (1, 28, 28)))
    >>> iaf = InverseAutoregressive(8, context_features=16, depth=2, hidden=(32,))
    >>> guide = VAEGuide(model, ResidualEncoder((1, 28, 28), features=64), iaf=iaf)
    >>> x = torch.rand(5, 1, 1, 28, 28).round()
    >>> guide(x)[0].shape
    torch.Size([5, 1, 8])
    """

    def __init__(
        self, image_shape: tuple[int, ...], latent_size: int, *, decoder: nn.Module
    ) -> None:
        super().__init__(image_shape)
        if latent_size < 1:
            raise ValueError(f"latent_size must be at least 1, got {latent_size}")
        self.latent_size = latent_size
        self.decoder = decoder

    @property
    def sites(self) -> tuple[str, ...]:
        return ("z",)

    def draw(self, batch_shape: tuple[int, ...], *, suffix: str = "") -> Tensor:
        batch, length = batch_shape
        like = precise(next(self.decoder.parameters(), torch.zeros(())).detach())
        prior = standard_normal((length, self.latent_size), like).expand([batch])
        return self.logits(pyro.sample(f"z{suffix}", prior))

    def logits(self, z: Tensor) -> Tensor:
        """Logits of the pixels, ``(*batch, C, H, W)``, from z ``(*batch, latent_size)``.

        Raises:
            ValueError: if z is of another size, or the decoder's images are.
        """
        if z.shape[-1] != self.latent_size:
            raise ValueError(
                f"expected z of {self.latent_size} entries, got {z.shape[-1]}: the guide was made "
                "for another model"
            )
        logits: Tensor = self.decoder(as_weights(z, self.decoder))
        if logits.shape[-3:] != self.frame_shape:
            raise ValueError(
                f"expected a decoder of images {self.frame_shape}, got {tuple(logits.shape[-3:])}"
            )
        return precise(logits)


class VAEGuide(ImageGuide):
    r"""Posterior of a :class:`VAE`: a diagonal Gaussian, or its IAF.

    .. math:: z_0 \sim N(\mu(x), \sigma(x)^2), \qquad z = f_\mathrm{IAF}(z_0; h(x))

    Args:
        model: the model it is for; not owned.
        encoder: maps ``(*batch, C, H, W)`` to ``(*batch, encoder.features)``.
        iaf: transform of the latents, with or without a context h; without it, and with one of
            depth 0, the posterior is diagonal.

    Raises:
        ValueError: if the IAF is not of the model's latents.

    Source: Kingma et al., *Improving Variational Inference with Inverse Autoregressive Flow*,
    arXiv:1606.04934, Algorithm 1.
    """

    def __init__(
        self, model: VAE, encoder: nn.Module, *, iaf: InverseAutoregressive | None = None
    ) -> None:
        super().__init__(model)
        check_iaf(iaf, model.latent_size)
        features = int(encoder.features)  # type: ignore[arg-type]
        self.encoder = encoder
        self.posterior = nn.Linear(features, 2 * model.latent_size)
        self.iaf = iaf if iaf is not None and iaf.depth else None
        self.context = None
        if self.iaf is not None and self.iaf.context_features:
            self.context = nn.Linear(features, self.iaf.context_features)

    def draw(self, x: Tensor) -> tuple[Tensor, ...]:
        return (pyro.sample("z", self.distribution(x)),)

    def distribution(self, x: Tensor) -> dist.TorchDistribution:
        """q(z | x): event ``(T, latent_size)``."""
        features = self.encoder(x)
        of_z = gaussian(self.posterior(features), -1)
        base = of_z.distribution(x.shape[:1], event_dims=2)
        if self.iaf is None:
            return base
        context = None if self.context is None else self.context(features)
        moved: dist.TorchDistribution = dist.TransformedDistribution(
            base, [self.iaf.condition(context)]
        )
        return moved
