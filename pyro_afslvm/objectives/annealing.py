"""Bounds in which the divergence counts less than it should, for the start of training."""

from collections.abc import Callable, Sequence
from typing import Any

from pyro.poutine.messenger import Messenger
from pyro.poutine.util import site_is_subsample
from torch import Tensor


class KLScale(Messenger):
    r"""Scale the log-probabilities of the latents, in the model and in the guide alike.

    .. math:: E_q \log p(x \mid z) - \beta \, D_\mathrm{KL}(q(z \mid x) \,\|\, p(z))

    Wrap both programs with the same one; with :math:`\beta` risen to 1 the bound is whole.

    Args:
        scale: :math:`\beta`, positive; the attribute of that name may be changed at any time.
        sites: names of the latents to scale; by default every site that is not observed, those
            of a future too.

    Raises:
        ValueError: if the scale is not positive.

    Source: Bowman et al., *Generating Sentences from a Continuous Space*, arXiv:1511.06349.

    >>> from pyro_afslvm.objectives import KLScale
    >>> beta = KLScale(0.1)
    >>> # Trace_ELBO().loss(beta(model), beta(guide), x)
    """

    def __init__(self, scale: float | Tensor = 1.0, *, sites: Sequence[str] | None = None) -> None:
        super().__init__()
        if not float(scale) > 0:
            raise ValueError(f"expected a positive scale of the latents, got {float(scale):g}")
        self.scale = scale
        self.sites = None if sites is None else frozenset(sites)

    def __call__(self, program: Callable[..., Any]) -> Callable[..., Any]:
        """The program with its latents scaled."""
        wrapped: Callable[..., Any] = super().__call__(program)
        return wrapped

    def _pyro_sample(self, msg: Any) -> None:
        if self._scales(msg):
            msg["scale"] = self.scale * msg["scale"]

    def _scales(self, msg: Any) -> bool:
        if self.sites is not None:
            return msg["name"] in self.sites
        return not (msg["is_observed"] or site_is_subsample(msg))


LatentScale = KLScale  # the name before, for one release


def warmed_up(step: int, steps: int) -> float:
    """Scale of the latents at a step of a linear warm-up: above 0, and 1 after ``steps``.

    >>> [warmed_up(step, 4) for step in (0, 1, 3, 9)]
    [0.25, 0.5, 1.0, 1.0]
    """
    return 1.0 if steps < 1 else min(1.0, (step + 1) / steps)
