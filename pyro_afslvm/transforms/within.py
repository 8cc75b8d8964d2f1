"""Bijections of single frames, the same at every step: what mixes the entries of a frame."""

from collections.abc import Sequence

import torch
from pyro.distributions.transforms import GeneralizedChannelPermute
from torch import Tensor, nn
from torch.distributions import ComposeTransform, Transform

from pyro_afslvm.transforms.base import TemporalTransform
from pyro_afslvm.transforms.mixing import Fresh, Squeeze, TriangularMixing
from pyro_afslvm.transforms.steps import Prediction
from pyro_afslvm.transforms.univariate import invert
from pyro_afslvm.transforms.univariate.base import log_scale


class WithinFrame(TemporalTransform):
    r"""Bijection of each frame by itself, the same at every step, with any of Pyro's transforms.

    .. math:: x_t = g(y_t)

    An autoregressive transform is elementwise within a step; chained with this one the entries
    of a frame depend on each other given the past.

    Args:
        transforms: of frames, from the noise on; those that are modules are learned.
        frame_dims: dimensions of a frame.

    Raises:
        ValueError: for no transforms, or one of events of more dimensions than a frame has.

    >>> import torch
    >>> from pyro.distributions.transforms import Householder
    >>> WithinFrame([Householder(3)], frame_dims=1)(torch.randn(5, 10, 3)).shape
    torch.Size([5, 10, 3])
    """

    def __init__(self, transforms: Sequence[Transform], *, frame_dims: int) -> None:
        if not transforms or any(t.domain.event_dim > frame_dims for t in transforms):
            raise ValueError(f"expected transforms of frames of {frame_dims} dimensions")
        super().__init__(frame_dims=frame_dims, context_length=0, reach=0)
        self.transforms = list(transforms)
        self.learned = nn.ModuleList(t for t in transforms if isinstance(t, nn.Module))

    def given_past(
        self, x: Tensor, *, history: Tensor | None = None, context: Tensor | None = None
    ) -> Transform:
        return ComposeTransform([Fresh(transform) for transform in self.transforms])

    def initial_state(
        self,
        batch_shape: torch.Size,
        *,
        history: Tensor | None = None,
        context: Tensor | None = None,
    ) -> tuple[()]:
        return ()

    def step(
        self, noise: Tensor, state: tuple[()], *, context: Tensor | None = None
    ) -> tuple[Tensor, Tensor, tuple[()]]:
        transform = self.given_past(noise)
        frame = transform(noise)
        return frame, log_scale(transform, noise, frame, self.frame_dims), ()

    def predict(
        self, like: Tensor, state: tuple[()], *, context: Tensor | None = None
    ) -> Prediction:
        return Prediction(self.given_past(like), ())

    def absorb(self, frame: Tensor, predicted: Prediction) -> tuple[Tensor, Tensor, tuple[()]]:
        return *invert(predicted.transform, frame, self.frame_dims), ()


def triangular_mixing(features: int) -> WithinFrame:
    """Static unit lower triangular mixing of vectors, as a transform across time.

    >>> triangular_mixing(3)(torch.ones(2, 3)).tolist()  # the identity, at the start
    [[1.0, 1.0, 1.0], [1.0, 1.0, 1.0]]
    """
    return WithinFrame([TriangularMixing(features)], frame_dims=1)


def channel_mixing(channels: int) -> WithinFrame:
    """Invertible 1×1 convolution of squeezed frames, as a transform across time.

    Source: Kingma, Dhariwal, *Glow*, arXiv:1807.03039; the convolution is Pyro's.

    >>> channel_mixing(1)(torch.randn(5, 1, 8, 8)).shape  # height and width even
    torch.Size([5, 1, 8, 8])
    """
    squeeze = Squeeze()
    mixing = GeneralizedChannelPermute(4 * channels)
    return WithinFrame([squeeze, mixing, squeeze.inv], frame_dims=3)
