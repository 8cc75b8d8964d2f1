"""The bound as one torch module, and how many frames it needs."""

from pyro.infer import ELBO, Trace_ELBO
from torch import Tensor, nn

from pyro_afslvm.objectives import LatentScale
from pyro_afslvm.pair import Pair
from pyro_afslvm.programs import no_guide

CONTEXT_FRAMES = 3  # of every crop, so that models with and without a flow see as many


class BoundLoss(nn.Module):
    """The negative bound in nats per sequence and scored frame, as one torch module.

    Args:
        pair: model and guide.
        elbo: the objective, ``Trace_ELBO()`` by default.

    Attributes:
        latents: by how much the divergence of the latents counts; fully, until it is changed.
    """

    def __init__(self, pair: Pair, elbo: ELBO | None = None) -> None:
        super().__init__()
        self.model = pair.model
        self.guide = pair.guide
        self.elbo = elbo or Trace_ELBO()
        self.latents = LatentScale(sites=getattr(pair.model, "sites", ("z",)))

    def forward(self, x: Tensor) -> Tensor:  # (batch, T, *frame_shape) -> ()
        loss: Tensor = self.elbo.differentiable_loss(  # type: ignore[attr-defined]
            self.latents(self.model), self.latents(self.guide or no_guide), x
        )
        return loss / (x.shape[0] * (x.shape[1] - context_length(self.model)))


def context_length(model: nn.Module) -> int:
    """Frames the model is given and does not score."""
    return int(getattr(model, "context_length", 0))


def crop_length(model: nn.Module, scored_frames: int, *, most: int | None = None) -> int:
    """Frames of a crop of which the last ``scored_frames`` are reported.

    Args:
        model: what is to score them.
        scored_frames: how many are wanted.
        most: frames of every sequence of the data, where they have no more.

    Raises:
        ValueError: if the model is given as many frames as there are, or more.
    """
    wanted = max(CONTEXT_FRAMES, context_length(model)) + scored_frames
    if most is not None and most <= context_length(model):
        raise ValueError(
            f"the model is given {context_length(model)} frames and scores those that follow, but "
            f"the data have sequences of {most}"
        )
    return wanted if most is None else min(wanted, most)
