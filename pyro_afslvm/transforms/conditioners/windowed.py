"""Conditioners that look at a window of past frames, and at none before it."""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from pyro_afslvm.networks.layers import (
    WindowConvolution,
    activated,
    convolution,
    in_full_precision,
    on_frames,
    side_by_side,
)
from pyro_afslvm.networks.mlp import mlp
from pyro_afslvm.transforms.conditioners.base import Conditioner
from pyro_afslvm.transforms.time_axis import join, time_length

Ring = tuple[Tensor, ...]  # encodings of the last frames, oldest first


class WindowedConditioner(Conditioner):
    """Conditioner that encodes each frame once and fuses the encodings of the last ``window``.

    .. math:: \\theta_t = g(e(x_{t-W}), \\dots, e(x_{t-1}))

    Args:
        encoder: one frame to its encoding.
        fuse: ``window`` encodings, concatenated on their first axis, to features; a
            :class:`~pyro_afslvm.networks.layers.WindowConvolution` does all windows at once.
        body: these features to others.
        heads: features to the parameters, one after the other on their first axis.
        frame_dims: dimensions of a frame.
        initial_shape: shape of a shift that serves every frame.
        window: number of past frames.
        num_parameters: parameters of each entry.
        residual: whether the shift is the change from the last frame, in units of the scale.
        context_features: size of a context c_t of each frame, of which a linear map is added to
            what was fused; with 0 a context is not looked at.
        fused: size of what was fused, on its first axis, where there is a context.
    """

    def __init__(
        self,
        *,
        encoder: nn.Module,
        fuse: nn.Module,
        body: nn.Module,
        heads: nn.Module,
        frame_dims: int,
        initial_shape: tuple[int, ...],
        window: int,
        num_parameters: int = 2,
        residual: bool,
        context_features: int = 0,
        fused: int = 0,
    ) -> None:
        super().__init__(
            frame_dims=frame_dims,
            initial_shape=initial_shape,
            window=window,
            reach=window,
            num_parameters=num_parameters,
            residual=residual,
        )
        self.encoder = encoder
        self.fuse = fuse
        self.body = body
        self.heads = heads
        self.context_features = context_features
        self.embed = nn.Linear(context_features, fused) if context_features else None

    def forward(
        self, values: Tensor, *, history: Tensor | None = None, context: Tensor | None = None
    ) -> Tensor:
        dim = -1 - self.frame_dims
        length = time_length(values, self.frame_dims)
        past = join(self._recent(history), values, self.frame_dims)
        past = past.narrow(dim, 0, self.window + length - 1)  # the present is never visible
        fused = self._over_time(self._encode(past), length)
        if context is not None:
            context = context.narrow(-2, context.shape[-2] - length, length)
        return self._parameters_from(self._with_context(fused, context))

    def initial_state(
        self,
        batch_shape: torch.Size,
        *,
        history: Tensor | None = None,
        context: Tensor | None = None,
    ) -> Ring:
        return self._encode(self._recent(history)).unbind(-1 - self.frame_dims)

    def step(
        self, previous: Tensor | None, state: Ring, *, context: Tensor | None = None
    ) -> tuple[Tensor, Ring]:
        if previous is None:
            raise ValueError(f"a window of {self.window} frames needs them before the first step")
        # after the history its last frame is among the codes: however many futures share it
        ring = state if len(state) == self.window else (*state, self._encode(previous))
        features = on_frames(self.fuse, side_by_side(ring, self.frame_dims), self.frame_dims)
        return self._parameters_from(self._with_context(features, context)), ring[1:]

    def _recent(self, history: Tensor | None) -> Tensor:
        dim, past = -1 - self.frame_dims, 0
        if history is not None:
            past = history.shape[dim]
        if history is None or past < self.window:
            raise ValueError(f"a window of {self.window} frames needs as many, got {past}")
        return history.narrow(dim, past - self.window, self.window)

    def _encode(self, frames: Tensor) -> Tensor:
        return on_frames(self.encoder, frames, self.frame_dims)

    def _over_time(self, codes: Tensor, length: int) -> Tensor:
        """Fuse the windows of ``(*batch, W + T - 1, *code)``."""
        dim = -1 - self.frame_dims
        if isinstance(self.fuse, WindowConvolution):
            batch = codes.shape[:dim]
            features = self.fuse.over_time(codes.reshape(-1, *codes.shape[dim:]))
            return features.reshape(*batch, *features.shape[1:])
        windows = [codes.narrow(dim, i, length) for i in range(self.window)]
        return on_frames(self.fuse, side_by_side(windows, self.frame_dims), self.frame_dims)

    def _with_context(self, fused: Tensor, context: Tensor | None) -> Tensor:
        if self.embed is None:
            return fused
        found = 0 if context is None else context.shape[-1]
        if context is None or found != self.context_features:
            raise ValueError(f"expected {self.context_features} context features, got {found}")
        added: Tensor = self.embed(context.to(self.embed.weight.dtype)).to(fused)
        return fused + added.reshape(*added.shape, *[1] * (self.frame_dims - 1))

    def _parameters_from(self, features: Tensor) -> Tensor:
        features = on_frames(self.body, features, self.frame_dims)
        found = in_full_precision(self.heads, features, self.frame_dims)
        channels = -self.frame_dims
        by_parameter: Tensor = found.unflatten(channels, (self.num_parameters, -1))
        return by_parameter.movedim(channels - 1, -1)


class ConvConditioner(WindowedConditioner):
    r"""Conditioner of convolutions on a window of past frames, the network of the paper.

    Four 3×3 convolutions encode each frame; the last ``window`` encodings, side by side, go
    through four more and two heads. With 64 channels and a window of 3: 335,042 parameters
    for grey frames.

    Args:
        channels: channels of a frame.
        hidden: channels of every hidden layer.
        window: number of past frames.
        norm: ``"batch"`` (the paper's recipes), ``"group"`` or ``None``. Batch norm couples
            sequences, and with time folded into the batch also frames, while training.
        residual: whether the shift is the change from the last frame, in units of the scale.
        depth: convolutions per frame and after fusing.
        context_features: size of a context of each frame; 0 for none.

    Source: Marino et al., Appendix B.

    >>> import torch
    >>> network = ConvConditioner(1, hidden=8, norm="group")
    >>> history, x = torch.rand(2, 3, 1, 16, 16), torch.rand(2, 10, 1, 16, 16)
    >>> network(x, history=history).shape  # shift and log-scale
    torch.Size([2, 10, 1, 16, 16, 2])
    """

    def __init__(
        self,
        channels: int,
        *,
        hidden: int = 64,
        window: int = 3,
        norm: Literal["batch", "group"] | None = "group",
        num_parameters: int = 2,
        residual: bool = False,
        depth: int = 4,
        context_features: int = 0,
    ) -> None:
        _check_window(window)

        def stack(*sizes: int) -> list[nn.Sequential]:
            return [convolution(size, hidden, norm=norm) for size in sizes]

        super().__init__(
            encoder=nn.Sequential(*stack(channels, *[hidden] * (depth - 1))),
            fuse=WindowConvolution(window, hidden, hidden),
            body=nn.Sequential(*activated(norm, hidden), *stack(*[hidden] * (depth - 1))),
            heads=nn.Conv2d(hidden, num_parameters * channels, 3, padding=1),
            frame_dims=3,
            initial_shape=(channels, 1, 1),
            window=window,
            num_parameters=num_parameters,
            residual=residual,
            context_features=context_features,
            fused=hidden,
        )


class MLPConditioner(WindowedConditioner):
    r"""Conditioner of a multilayer perceptron on a window of past vectors.

    Args:
        features: size of a vector.
        hidden: sizes of the hidden layers.
        window: number of past vectors.
        num_parameters: parameters of each entry.
        residual: whether the shift is the change from the last vector, in units of the scale.
        context_features: size of a context of each vector; 0 for none.

    >>> import torch
    >>> MLPConditioner(3, window=2)(torch.rand(7, 3), history=torch.rand(2, 3)).shape
    torch.Size([7, 3, 2])
    """

    def __init__(
        self,
        features: int,
        *,
        hidden: Sequence[int] = (64, 64),
        window: int = 3,
        num_parameters: int = 2,
        residual: bool = False,
        context_features: int = 0,
    ) -> None:
        _check_window(window)
        if not hidden:
            raise ValueError("an MLP conditioner needs at least one hidden layer")
        layers: list[nn.Module] = [*mlp(window * features, *hidden)]
        first = 1 if context_features else len(layers)  # it comes in before a nonlinearity
        super().__init__(
            encoder=nn.Identity(),
            fuse=nn.Sequential(*layers[:first]),
            body=nn.Sequential(*layers[first:]),
            heads=nn.Linear(hidden[-1], num_parameters * features),
            frame_dims=1,
            initial_shape=(features,),
            window=window,
            num_parameters=num_parameters,
            residual=residual,
            context_features=context_features,
            fused=hidden[0],
        )


def _check_window(window: int) -> None:
    if window < 1:
        raise ValueError(f"window must be at least 1 frame, got {window}")
