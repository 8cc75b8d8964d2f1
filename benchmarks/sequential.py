"""The method as it is often first written: one frame after the other.

A loop over frames encodes its buffer of past frames anew at every step and adds one term of the
bound. Layers are torch's own, in their default memory layout, and share their parameters with a
:class:`~pyro_afslvm.Pair`, so that the loss in evaluation mode is the same by construction. While
training, batch norm sees the frames of one step at a time here, and all of them in the library.
"""

import copy
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.bare import Networks, clamped, standard_log_prob
from pyro_afslvm import ConvConditioner, LSTMConditioner
from pyro_afslvm.networks.layers import PatchConvolution, PixelProjection

PLAIN = {PatchConvolution: nn.Conv2d, PixelProjection: nn.ConvTranspose2d}
State = tuple[Tensor, Tensor]  # of an LSTM, each (layers, batch, hidden)


class Sequential:
    """Loss and rollouts of one of the paper's models, frame after frame.

    Args:
        networks: of the model.
    """

    def __init__(self, networks: Networks) -> None:
        self.networks = networks
        self.flows = [FlowStep(network) for network in networks.flows]
        encoder: Any = networks.encoder
        self.encoder = None if encoder is None else plain(encoder.network)
        self.decoder = None if networks.decoder is None else PlainDecoder(networks.decoder)

    def loss(self, x: Tensor, eps: Tensor | None = None) -> Tensor:
        """Negative bound of ``(batch, T, *frame_shape)`` in nats.

        Args:
            x: the sequences.
            eps: of the posterior, ``(batch, scored frames, latent_size)``; drawn if not given.
        """
        loss = torch.zeros((), dtype=x.dtype, device=x.device)
        buffers, latents = [[] for _ in self.flows], Latents(self, x[:, 0], eps)
        for frame in x.unbind(1):
            inverted = self.invert(frame, buffers)
            if inverted is None:
                continue
            y, log_scale = inverted
            if self.decoder is None:
                loss = loss - standard_log_prob(y, log_scale)
                continue
            z, kl = latents.infer(y)
            location, scale = self.decoder(z)
            loss = loss + kl - standard_log_prob((y - location) / scale, scale.log() + log_scale)
        return loss

    @torch.no_grad()
    def past(self, x: Tensor) -> "Past":
        """Keep of ``(batch, T, *frame_shape)`` what the frames that follow depend on."""
        buffers, latents = [[] for _ in self.flows], Latents(self, x[:, 0], None)
        for frame in x.unbind(1):
            inverted = self.invert(frame, buffers)
            if inverted is not None and self.decoder is not None:
                latents.infer(inverted[0])
        return Past(x[:, -1], buffers, latents)

    @torch.no_grad()
    def sample(self, past: "Past", horizon: int) -> Tensor:
        """Frames that follow: ``(batch, horizon, *frame_shape)``."""
        buffers, latents = [[*buffer] for buffer in past.buffers], copy.copy(past.latents)
        frames = []
        for _ in range(horizon):
            y = torch.randn_like(past.last)
            if self.decoder is not None:
                location, scale = self.decoder(latents.sample())
                y = location + scale * y
            frames.append(self.generate(y, buffers))
        return torch.stack(frames, 1)

    def invert(
        self, x: Tensor, buffers: list[list[Tensor]]
    ) -> tuple[Tensor, Tensor | float] | None:
        """Noise and log-scale behind a frame, ``None`` while a buffer is not full."""
        total: Tensor | float = 0.0
        for flow, buffer in zip(self.flows, buffers, strict=True):
            parameters = flow(buffer) if len(buffer) == flow.window else None
            flow.push(buffer, x)
            if parameters is None:
                return None
            shift, log_scale = parameters
            x = (x - shift) / log_scale.exp()
            total = total + log_scale
        return x, total

    def generate(self, y: Tensor, buffers: list[list[Tensor]]) -> Tensor:
        """The frame of a noise."""
        for flow, buffer in zip(reversed(self.flows), reversed(buffers), strict=True):
            shift, log_scale = flow(buffer)
            y = shift + log_scale.exp() * y
            flow.push(buffer, y)
        return y


class Past(NamedTuple):
    """State that the next frames depend on; sampling leaves it as it is."""

    last: Tensor
    buffers: list[list[Tensor]]
    latents: "Latents"


class FlowStep:
    """Shift and log-scale of the next frame from a buffer of past ones."""

    def __init__(self, network: ConvConditioner) -> None:
        self.window = network.window
        self.encoder, self.body = plain(network.encoder), plain(network.body)
        self.fuse, self.heads = network.fuse, network.heads

    def __call__(self, buffer: list[Tensor]) -> tuple[Tensor, Tensor]:
        codes = self.encoder(torch.cat(buffer)).split(len(buffer[0]))  # each frame anew
        features = self.body(self.fuse(torch.cat(codes, 1)))
        pairs = zip(self.heads.weight.chunk(2), self.heads.bias.chunk(2), strict=True)
        shift, log_scale = (
            functional.conv2d(features, weight, bias, padding=1).to(buffer[0].dtype)
            for weight, bias in pairs
        )
        return shift, clamped(log_scale)

    def push(self, buffer: list[Tensor], frame: Tensor) -> None:
        """Keep a frame in place of the oldest."""
        buffer.append(frame)
        del buffer[: -self.window]


class Latents:
    """Latents drawn from posterior or prior, one after the other."""

    def __init__(self, model: Sequential, like: Tensor, eps: Tensor | None) -> None:
        self.encoder, self.eps, self.t = model.encoder, eps, 0
        networks = model.networks
        if networks.prior is not None and networks.posterior is not None:
            self.prior, self.posterior = networks.prior, networks.posterior
            self.of_prior = _start(networks.prior, len(like))
            self.of_posterior = _start(networks.posterior, len(like))
            self.z = like.new_zeros(len(like), networks.prior.features)

    def infer(self, y: Tensor) -> tuple[Tensor, Tensor]:
        """z given a frame's noise, and log q(z) - log p(z)."""
        shift, log_scale, self.of_posterior = _lstm_step(
            self.posterior, self.z, self.of_posterior, self.encoder(y)
        )
        eps = torch.randn_like(shift) if self.eps is None else self.eps[:, self.t]
        prior_shift, prior_log_scale = self._predict()
        self.z, self.t = shift + log_scale.exp() * eps, self.t + 1
        error = (self.z - prior_shift) / prior_log_scale.exp()
        kl = standard_log_prob(eps, log_scale) - standard_log_prob(error, prior_log_scale)
        return self.z, kl

    def sample(self) -> Tensor:
        """z from the prior."""
        shift, log_scale = self._predict()
        self.z = shift + log_scale.exp() * torch.randn_like(shift)
        return self.z

    def _predict(self) -> tuple[Tensor, Tensor]:
        shift, log_scale, self.of_prior = _lstm_step(self.prior, self.z, self.of_prior)
        return shift, log_scale


class PlainDecoder:
    """Location and scale of y, from two heads."""

    def __init__(self, decoder: Any) -> None:
        self.network, self.heads, self.squash = (
            plain(decoder.network),
            decoder.heads,
            decoder.squash,
        )

    def __call__(self, z: Tensor) -> tuple[Tensor, Tensor]:
        features = self.network(z)
        pairs = zip(self.heads.weight.chunk(2, 1), self.heads.bias.chunk(2), strict=True)
        location, log_scale = (
            functional.conv_transpose2d(features, weight, bias, stride=2, padding=1).to(z.dtype)
            for weight, bias in pairs
        )
        location = location.sigmoid() if self.squash else location
        return location, log_scale.clamp(-15.0, 5.0).exp()


def plain(network: nn.Module) -> nn.Module:
    """The layers as torch has them, with the same parameters."""
    kind = PLAIN.get(type(network))
    if kind is not None:
        return _as(kind, network)
    if isinstance(network, nn.Sequential):
        return nn.Sequential(*(plain(child) for child in network))
    return network


def _as(kind: type[Any], layer: Any) -> nn.Module:
    sizes = layer.in_channels, layer.out_channels, layer.kernel_size, layer.stride, layer.padding
    same: nn.Module = kind(*sizes)
    same.weight, same.bias = layer.weight, layer.bias
    return same


def _start(network: LSTMConditioner, batch: int) -> State:
    hidden, cell = network.initial_hidden, network.initial_cell
    shape = (hidden.shape[0], batch, hidden.shape[1])
    return hidden[:, None].expand(shape).contiguous(), cell[:, None].expand(shape).contiguous()


def _lstm_step(
    network: LSTMConditioner, z: Tensor, state: State, features: Tensor | None = None
) -> tuple[Tensor, Tensor, State]:
    with torch.autocast(z.device.type, enabled=False):
        inputs = network.pre_network(z)
        if features is not None:
            inputs = torch.cat([inputs, features.to(z.dtype)], -1)
        outputs, after = network.lstm(inputs[:, None], state)
        shift, log_scale = network.heads(outputs[:, 0]).chunk(2, -1)
    return shift, clamped(log_scale), after
