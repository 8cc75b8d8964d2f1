"""The base class of generative models: a Pyro program over batches of sequences."""

import warnings
from typing import Any, NamedTuple

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor, nn

from pyro_afslvm.models.checks import (
    check_horizon,
    check_lengths,
    check_padding,
    check_shape,
    check_values,
)
from pyro_afslvm.models.inputs import as_context, as_frames, as_lengths
from pyro_afslvm.models.param_store import register, restore
from pyro_afslvm.models.random_weights import has_random_weights, weights_drawn, with_weights_of_now
from pyro_afslvm.networks.layers import single_steps
from pyro_afslvm.transforms import TemporalHierarchy, TemporalTransform
from pyro_afslvm.utils.arrays import as_tensor
from pyro_afslvm.utils.renamed import OldNames, Renamed, renamed_keyword


class SequenceBatch(NamedTuple):
    """A batch of sequences, split into frames that are given and frames that are scored."""

    history: Tensor | None  # (batch, context_length, *frame_shape); None without a context
    targets: Tensor  # (batch, T, *frame_shape)
    mask: Tensor | None  # (batch, T), true where a frame counts; None where all do
    context: Tensor | None = None  # covariates of all frames, (batch, context_length + T, F)

    @classmethod
    def of(
        cls,
        x: Tensor,
        *,
        frame_shape: tuple[int, ...],
        context_length: int = 0,
        lengths: Tensor | None = None,
        context: Tensor | None = None,
    ) -> "SequenceBatch":
        """Check sequences and split them.

        Args:
            x: ``(batch, context_length + T, *frame_shape)``.
            frame_shape: ``(C, H, W)`` or ``(D,)``.
            context_length: frames that are given and not scored.
            lengths: ``(batch,)`` whole numbers: frames of each sequence that count.
            context: covariates of all frames, ``(batch, context_length + T, features)``.

        Raises:
            ValueError: for another shape, too few frames, lengths out of range, values that are
                not finite or, for video, not in the units of the model.
        """
        check_shape(x, frame_shape)
        batch, total = x.shape[:2]
        if total <= context_length:
            raise ValueError(
                f"expected more than {context_length} frames, for so many are given as context "
                f"and not scored; got {total}"
            )
        check_values(x, frame_shape)
        history = x[:, :context_length] if context_length else None
        mask = None
        if lengths is not None:
            lengths = as_tensor(lengths, device=x.device)
            check_lengths(lengths, batch, context_length + 1, total)
            mask = torch.arange(context_length, total, device=x.device) < lengths[:, None]
            check_padding(x[:, context_length:], mask)
        return cls(history, x[:, context_length:], mask, context)

    @property
    def size(self) -> int:
        """Number of sequences."""
        return len(self.targets)

    @property
    def values(self) -> Tensor:
        """The old name of the targets, for one release."""
        warnings.warn("SequenceBatch.values is now targets", FutureWarning, stacklevel=2)
        return self.targets

    @property
    def batch(self) -> int:
        """The old name of the size, for one release."""
        warnings.warn("SequenceBatch.batch is now size", FutureWarning, stacklevel=2)
        return self.size


Split, split = SequenceBatch, SequenceBatch.of  # the names before, for one release


class Simulated(NamedTuple):
    """Frames and, where there are any, latents: of one step, or of all."""

    x: Tensor  # (*batch, [T,] *frame_shape)
    z: Tensor | None  # (*batch, [T,] latent_size)


class SequenceModel(OldNames, nn.Module):
    r"""A generative model of sequences of frames, as a Pyro program.

    .. math:: p(x_{C+1:T}, z \mid x_{1:C})

    The first C = ``context_length`` frames are given, the others are scored, and with a horizon
    more of them follow. A subclass says what is sampled, in :meth:`joint` and :meth:`future`;
    for rollouts it also has steps: ``eps_size``, :meth:`given`, :meth:`initial_state` and
    :meth:`step`.

    Args:
        frame_shape: ``(C, H, W)`` or ``(D,)``.
        flow: a transform across time of frames, or a chain of them.
        context_length: frames that are given; by default as many as the flow cannot score.
        context_features: size of covariates that are known of every frame in advance.

    Attributes:
        eps_size: N(0, I) numbers that a step takes; 0 in a model without steps.
        has_density: whether frames are real numbers; otherwise they have probabilities.

    Raises:
        ValueError: for a flow of other frames, or a context that is too short for it.

    Sites: ``x`` with event ``(T - context_length, *frame_shape)`` in the plate ``sequence``,
    and ``x_future`` with event ``(horizon, *frame_shape)``; those of the latents are ``sites``.
    """

    plate_name = "sequence"
    eps_size: int = 0
    has_density: bool = True  # of frames of real numbers; not so, frames have probabilities

    def __init__(
        self,
        frame_shape: tuple[int, ...],
        *,
        flow: TemporalTransform | None = None,
        context_length: int | None = None,
        context_features: int = 0,
    ) -> None:
        super().__init__()
        if flow is not None:
            check_flow(flow, frame_shape)
        self.frame_shape = tuple(frame_shape)
        self.context_length = check_context(flow, context_length)
        self.flow = flow
        if context_features < 0:
            raise ValueError(f"context_features must not be negative, got {context_features}")
        self.context_features = context_features

    @property
    def sites(self) -> tuple[str, ...]:
        """Names of the latents, in the order in which they are drawn."""
        return ()

    def forward(
        self,
        x: Tensor | None = None,
        *,
        horizon: int = 0,
        lengths: Tensor | None = None,
        context: Tensor | None = None,
        covariates: Tensor | None = None,
    ) -> Tensor | None:
        """p(x, z), and the frames that follow.

        Args:
            x: ``(batch, T, *frame_shape)``; ``None`` to sample from nothing.
            horizon: frames to sample after ``x``.
            lengths: ``(batch,)`` whole numbers: frames of each sequence that count.
            context: covariates of all frames, those to come too,
                ``(batch, T + horizon, context_features)``.
            covariates: the same, under the name that goes through Pyro's handlers, ``SVI`` and
                ``Predictive``, which have an argument ``context`` of their own.

        Returns:
            the future frames ``(*batch, horizon, *frame_shape)``, ``None`` without horizon.

        Raises:
            ValueError: as :meth:`batch` does; for no ``x`` and no horizon.
        """
        register(self)
        x = None if x is None else as_frames(x, self, lengths=lengths)
        lengths = as_lengths(lengths)
        check_horizon(x, horizon, lengths)
        context = context if covariates is None else covariates
        if horizon:  # without one they are those of the batch, which checks them
            context = as_context(context, self, x, horizon)
        with weights_drawn(self), self.plate(x):
            z = None
            # of frames that are all given there is nothing to score, but a future
            if x is not None and not (horizon and x.shape[1] == self.context_length):
                past = context
                if horizon and context is not None:
                    past = context[:, : x.shape[1]]
                z = self.joint(self.batch(x, lengths, past))
            if not horizon:
                return None
            known = {} if context is None else {"context": context}
            return self.future(x, z, horizon, **known)

    def plate(self, x: Tensor | None) -> Any:
        """The plate over sequences; over one where they are sampled from nothing."""
        if x is not None:
            check_shape(x, self.frame_shape)
        return pyro.plate(self.plate_name, 1 if x is None else len(x), dim=-1)

    def batch(
        self, x: Tensor, lengths: Tensor | None = None, context: Tensor | None = None
    ) -> SequenceBatch:
        """Check ``x`` and split off the frames that are given; see :meth:`SequenceBatch.of`."""
        restore(self)
        return SequenceBatch.of(
            as_frames(x, self, lengths=lengths),
            frame_shape=self.frame_shape,
            context_length=self.context_length,
            lengths=as_lengths(lengths),
            context=as_context(context, self, x),
        )

    def observe(self, distribution: dist.TorchDistribution, targets: Tensor) -> None:
        """Observe the frames that are scored at the site ``x``."""
        if has_random_weights(self):
            with_weights_of_now(distribution, targets)
        pyro.sample("x", distribution, obs=targets)

    # what a model defines ---------------------------------------------------------------

    def joint(self, batch: SequenceBatch) -> Tensor | None:
        """Sample the latents, observe the frames that are scored, and give the latents."""
        raise NotImplementedError

    def future(
        self, x: Tensor | None, z: Tensor | None, horizon: int, context: Tensor | None = None
    ) -> Tensor:
        """Sample ``x_future``, the frames that follow ``x`` and its latents."""
        raise NotImplementedError

    def given(self, x: Tensor, context: Tensor | None = None) -> Any:
        """Look at frames ``(batch, T, *frame_shape)`` once; give what the model keeps of them."""
        raise self._without_steps()

    def initial_state(
        self, batch_shape: torch.Size, *, given: Any = None, z: Tensor | None = None
    ) -> Any:
        """Give the state from which :meth:`step` makes the next frame.

        Args:
            batch_shape: of the frames to come, ``(*particles, batch)``.
            given: what is kept of the frames before; ``None`` for the first frame of all.
            z: their latents, ``(*batch_shape, T - context_length, latent_size)``.
        """
        raise self._without_steps()

    def step(self, eps: Tensor, state: Any, context: Tensor | None = None) -> tuple[Simulated, Any]:
        """Make the next frame, and the state after it, from draws ``(*batch, eps_size)``.

        Args:
            eps: N(0, I) for samples of the model.
            state: from :meth:`initial_state` or the step before.
            context: covariates of the frame, ``(*batch, context_features)``.
        """
        raise self._without_steps()

    def _without_steps(self) -> TypeError:
        return TypeError(f"expected a model with steps, such as SLVM; got {type(self).__name__}")

    split = Renamed("batch")
    noise_size = Renamed("eps_size")


@renamed_keyword("noise", "eps")
def simulate(
    model: SequenceModel, eps: Tensor, state: Any, context: Tensor | None = None
) -> Simulated:
    """Make the frames (and latents) that follow a state, at a cost per frame that does not grow.

    Args:
        model: a model with steps.
        eps: ``(*batch, horizon, eps_size)``, N(0, I) for samples of the model.
        state: from :meth:`SequenceModel.initial_state`.
        context: covariates of the frames to come, ``(batch, horizon, context_features)``.
    """
    steps = []
    with single_steps():
        for t, entry in enumerate(eps.unbind(-2)):
            known = {} if context is None else {"context": context[..., t, :]}
            frame, state = model.step(entry, state, **known)
            steps.append(frame)
    x = torch.stack([step.x for step in steps], eps.ndim - 2)
    latents = [step.z for step in steps if step.z is not None]
    return Simulated(x, torch.stack(latents, -2) if latents else None)


def check_flow(flow: TemporalTransform, frame_shape: tuple[int, ...]) -> None:
    """Refuse a flow of frames of another rank, and a hierarchy, which is for latents."""
    if any(isinstance(part, TemporalHierarchy) for part in flow.modules()):
        raise ValueError("a hierarchy is for latents: expected a flow of whole frames")
    if flow.frame_dims != len(frame_shape):
        raise ValueError(
            f"expected a flow of frames {tuple(frame_shape)}, got one of frames with "
            f"{flow.frame_dims} dimensions"
        )


def check_context(flow: TemporalTransform | None, context_length: int | None) -> int:
    """Give the number of frames before the scored ones, as few as the flow needs by default."""
    needed = 0 if flow is None else flow.context_length
    if context_length is not None and context_length < needed:
        raise ValueError(
            f"expected a context of at least {needed} frames for this flow, got {context_length}"
        )
    return needed if context_length is None else context_length


def context_length(program: Any) -> int:
    """Number of frames that a program is given and does not score.

    That of a Pyro program of the user's own is its attribute of this name, or 0.
    """
    return int(getattr(program, "context_length", 0))


def takes_context(flow: nn.Module) -> bool:
    """Tell whether a conditioner of the flow takes covariates."""
    return any(getattr(part, "context_features", 0) for part in flow.modules())


def seen_by_flow(program: Any, context: Tensor | None) -> Tensor | None:
    """Give the covariates to a program's flow that takes any, else ``None``."""
    flow = flow_of(program)
    if context is None or flow is None or not takes_context(flow):
        return None
    return context


def context_features(program: Any) -> int:
    """Number of covariates of each frame that a program takes."""
    return int(getattr(program, "context_features", 0))


def flow_of(program: Any) -> TemporalTransform | None:
    """Flow of frames under a program; ``None`` without one.

    That of a Pyro program of the user's own is its attribute ``flow``.
    """
    flow: TemporalTransform | None = getattr(program, "flow", None)
    return flow
