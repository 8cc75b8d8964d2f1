"""The mixture map: an entry may be where the last frame was, or somewhere else altogether."""

import math
from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

import torch
from torch import Tensor
from torch.distributions import Distribution, Normal, Transform, constraints
from torch.nn.functional import logsigmoid

from pyro_afslvm.transforms.univariate.base import Univariate
from pyro_afslvm.transforms.univariate.tails import log_ndtr, log_ndtri, log_normal

Family = Literal["gaussian", "logistic"]
Centre = float | Literal["last", "linear", "predicted"]
LAGS = {"last": (1.0,), "linear": (-1.0, 2.0)}  # weights of the last frames, the latest at the end

MOST = 10.0  # of s, over where it starts: the scale of a component stays a number
ROUNDS = 60  # of the inverse: halving alone comes to single precision within 40


class Standard(NamedTuple):
    """The distribution of a component, around zero with scale one."""

    cdf: Callable[[Tensor], Tensor]
    log_cdf: Callable[[Tensor], Tensor]
    log_density: Callable[[Tensor], Tensor]
    variance: float
    of_normal: Callable[[Tensor], Tensor]  # its quantile at Phi(y)


FAMILIES: dict[Family, Standard] = {
    "gaussian": Standard(
        cdf=torch.special.ndtr,
        log_cdf=log_ndtr,
        log_density=log_normal,
        variance=1.0,
        of_normal=lambda y: y,
    ),
    "logistic": Standard(
        cdf=torch.sigmoid,
        log_cdf=logsigmoid,
        log_density=lambda u: logsigmoid(u) + logsigmoid(-u),
        variance=math.pi**2 / 3,
        of_normal=lambda y: torch.special.log_ndtr(y) - torch.special.log_ndtr(-y),
    ),
}


class Mixture(Transform):
    r"""Map of N(0, 1) noise to a mixture, entry by entry.

    .. math:: y = \Phi^{-1}\Bigl(\sum_k \pi_k F\bigl(\tfrac{x - \mu_k}{\sigma_k}\bigr)\Bigr),
        \qquad \log \frac{dx}{dy} = \log \phi(y) - \log \sum_k \tfrac{\pi_k}{\sigma_k}
        f\bigl(\tfrac{x - \mu_k}{\sigma_k}\bigr)

    From x to y it is in closed form, by the nearer tail; from y to x a bracketed Newton
    iteration, whose gradients are those of the implicit function.

    Args:
        log_weights: :math:`\log \pi`, ``(*batch, *frame, K)``.
        locations: :math:`\mu`, of the same shape.
        log_scales: :math:`\log \sigma`, of the same shape.
        family: of the components.
    """

    domain = codomain = constraints.real
    bijective = True
    sign = +1

    def __init__(
        self,
        log_weights: Tensor,
        locations: Tensor,
        log_scales: Tensor,
        *,
        family: Family = "gaussian",
    ) -> None:
        super().__init__()
        least = torch.promote_types(locations.dtype, torch.float32)  # as its functions need
        self.log_weights = log_weights.to(least)
        self.locations, self.log_scales = locations.to(least), log_scales.to(least)
        self._standard = FAMILIES[family]

    @property
    def mode_probabilities(self) -> Tensor:
        """Probability of each component, ``(*batch, *frame, K)``."""
        return self.log_weights.exp()

    def log_density(self, x: Tensor) -> Tensor:
        """Log-density of the mixture at x, of the shape of x."""
        each = self._standard.log_density(self._distances(x))
        return torch.logsumexp(self.log_weights + each - self.log_scales, -1).to(x.dtype)

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        """Log-derivative of ``y``, the frames, with respect to ``x``, the noise."""
        return log_normal(x) - self.log_density(y)

    def _distances(self, x: Tensor) -> Tensor:
        """Distances from each component in units of its scale, ``(*batch, *frame, K)``."""
        return (x.unsqueeze(-1) - self.locations) * torch.exp(-self.log_scales)

    def _inverse(self, x: Tensor) -> Tensor:
        u = self._distances(x)
        # the nearer tail: which one it is follows from the median, without a gradient
        with torch.no_grad():
            below = (self.log_weights.exp() * self._standard.cdf(u)).sum(-1) < 0.5
        side = torch.where(below, 1.0, -1.0).to(u)
        tails = self.log_weights + self._standard.log_cdf(u * side.unsqueeze(-1))
        return (side * log_ndtri(torch.logsumexp(tails, -1))).to(x.dtype)

    def _call(self, y: Tensor) -> Tensor:
        with torch.no_grad():
            x = self._solve(y)
        if not torch.is_grad_enabled():
            return x
        # one more step of Newton's iteration, whose derivative is the implicit one
        slope = torch.exp(self.log_abs_det_jacobian(y, x)).detach()
        found = self._inverse(x)
        return x - slope * (found - found.detach() + y.detach() - y)

    def _solve(self, y: Tensor) -> Tensor:
        """Find the entries; those that are found are left alone while others are looked for."""
        shape = torch.broadcast_shapes(y.shape, self.locations.shape[:-1])
        flat = [
            p.expand(*shape, p.shape[-1]).reshape(-1, p.shape[-1])
            for p in (self.log_weights, self.locations, self.log_scales)
        ]
        noise = y.expand(shape).flatten().to(self.locations)
        search = _Search.begin(self._of(flat), noise)
        if y.is_meta:
            return search.x.reshape(shape).to(y)
        found, places = torch.empty_like(noise), torch.arange(len(noise), device=y.device)
        for _ in range(ROUNDS):
            search, done = search.round(self._of(flat), noise)
            found[places] = search.x
            waiting = ~done
            if not bool(waiting.any()):
                break
            places, noise = places[waiting], noise[waiting]
            flat = [p[waiting] for p in flat]
            search = _Search(*(part[waiting] for part in search))
        return found.reshape(shape).to(y)

    def _of(self, parameters: list[Tensor]) -> "Mixture":
        mixture = Mixture(*parameters)
        mixture._standard = self._standard
        return mixture

    def _bracket(self, y: Tensor) -> tuple[Tensor, Tensor]:
        """Where the components alone would put the entry: all of them are below, or above."""
        ends = self.locations + self.log_scales.exp() * self._standard.of_normal(y).unsqueeze(-1)
        return ends.amin(-1), ends.amax(-1)

    def _guess(self, y: Tensor) -> Tensor:
        """Where the entry is if the components do not overlap."""
        locations, order = self.locations.sort(-1)
        weights, log_scales = (p.gather(-1, order) for p in (self.log_weights, self.log_scales))
        weights = weights.exp()
        until, level = weights.cumsum(-1), torch.special.ndtr(y).unsqueeze(-1)
        own = (level > until[..., :-1]).sum(-1, keepdim=True)
        weights, until, log_scales, locations = (
            p.gather(-1, own) for p in (weights, until, log_scales, locations)
        )
        within = ((level - until + weights) / weights).clamp(1e-3, 1 - 1e-3)
        place = self._standard.of_normal(torch.special.ndtri(within))
        return (locations + log_scales.exp() * place).squeeze(-1)

    def moments(self, noise: Distribution) -> tuple[Tensor, Tensor] | None:
        """Mean and standard deviation of x under N(0, 1) noise; ``None`` for another."""
        if not isinstance(noise, Normal) or (noise.loc != 0).any() or (noise.scale != 1).any():
            return None
        weights = self.mode_probabilities
        mean = (weights * self.locations).sum(-1)
        spread = (
            self._standard.variance * (2 * self.log_scales).exp()
            + (self.locations - mean.unsqueeze(-1)).square()
        )
        return mean, (weights * spread).sum(-1).sqrt()


class _Search(NamedTuple):
    """Where entries have been found so far, and the bracket around what they are to be."""

    x: Tensor
    low: Tensor
    high: Tensor
    step: Tensor

    @classmethod
    def begin(cls, mixture: Mixture, y: Tensor) -> "_Search":
        low, high = mixture._bracket(y)
        return cls(mixture._guess(y).clamp(low, high), low, high, high - low)

    def round(self, mixture: Mixture, y: Tensor) -> tuple["_Search", Tensor]:
        """One of Newton's iterations, or halve the bracket where that does not halve the step."""
        x, low, high, step = self
        found = mixture._inverse(x)
        low, high = torch.where(found < y, x, low), torch.where(found > y, x, high)
        newton = (y - found) * torch.exp(mixture.log_abs_det_jacobian(found, x))
        least = 4 * torch.finfo(x.dtype).eps
        allowed = least * (mixture.log_scales.amin(-1).exp() + x.abs())
        near = newton.abs() <= allowed
        inside = (x + newton >= low) & (x + newton <= high) & (2 * newton.abs() <= step)
        after = torch.where(near | inside, x + newton, 0.5 * (low + high))
        return _Search(after, low, high, (after - x).abs()), near | (high - low <= allowed)


class MixtureMap(Univariate):
    r"""Mixture of K components around given centres, with parameters from the past.

    .. math:: \mu_k = c_k + \sigma_k m_k, \qquad
        \sigma_k = \sqrt{\sigma_{\min}^2 + e^{2 s_k}}, \qquad \pi = \mathrm{softmax}(w)

    A pixel beside a moving digit is ink or background, and one Gaussian must cover both; a
    mixture pays for a choice. Parameters of an entry are w, m and s of each component, and then
    the predicted centres. Where several components share a centre, they start with scales of
    their own, each four times the one before.

    Args:
        centres: of each component: a number, ``"last"`` for :math:`x_{t-1}`, ``"linear"`` for
            :math:`2 x_{t-1} - x_{t-2}`, or ``"predicted"``, which the conditioner gives as one
            more parameter; K of them.
        scale: at which the components of a fresh network start, in units of the frames.
        min_scale: :math:`\sigma_{\min}`, in the same units. For 8-bit pixels with Gaussian
            noise a little below its 1/256: a component that is narrower than the noise would
            gain density only from frames that it has seen.
        family: ``"gaussian"`` or ``"logistic"`` components.

    Raises:
        ValueError: for no centres, one that is not known, or scales that are not positive.

    Source: the mixture CDF as a flow is of Ho, Chen, Srinivas, Duan, Abbeel, *Flow++*,
    arXiv:1902.00275, §3.2; here across time.

    >>> mixture = MixtureMap(["last", 0.0], scale=0.1)
    >>> transform = mixture(torch.zeros(6), torch.tensor([1.0]))
    >>> transform.mode_probabilities.tolist()
    [0.5, 0.5]
    >>> [round(transform(torch.tensor(y)).item(), 2) for y in (-1.0, 1.0)]
    [-0.05, 1.05]
    """

    def __init__(
        self,
        centres: Sequence[Centre] = ("last",) * 3,
        *,
        scale: float = 0.1,
        min_scale: float = 1e-3,
        family: Family = "gaussian",
    ) -> None:
        for centre in centres:
            if isinstance(centre, str) and centre not in (*LAGS, "predicted"):
                known = ", ".join(map(repr, (*LAGS, "predicted")))
                raise ValueError(f"expected a number or one of {known}, got {centre!r}")
        if not centres or not 0 < min_scale < scale:
            raise ValueError(
                "expected at least one centre and 0 < min_scale < scale, got "
                f"{list(centres)}, {min_scale} and {scale}"
            )
        if family not in FAMILIES:
            raise ValueError(f"expected components of {list(FAMILIES)}, got {family!r}")
        weights = [LAGS.get(centre, ()) if isinstance(centre, str) else () for centre in centres]
        lags = max(map(len, weights))
        predicted = [k for k, centre in enumerate(centres) if centre == "predicted"]
        super().__init__(3 * len(centres) + len(predicted), lags=lags)
        self.family: Family = family
        self.min_scale = min_scale
        numbers = [0.0 if isinstance(centre, str) else float(centre) for centre in centres]
        self.register_buffer("fixed", torch.tensor(numbers), persistent=False)
        padded = [[0.0] * (lags - len(w)) + list(w) for w in weights]
        self.register_buffer("moving", torch.tensor(padded), persistent=False)
        self.register_buffer("own", torch.eye(len(centres))[predicted], persistent=False)
        start = 0.5 * math.log(scale**2 - min_scale**2)
        ladder = torch.tensor([start + math.log(4.0) * rung for rung in _rungs(list(centres))])
        self.register_buffer("start", ladder, persistent=False)

    fixed: Tensor
    moving: Tensor
    own: Tensor
    start: Tensor

    def forward(self, parameters: Tensor, recent: Tensor | None = None) -> Mixture:
        # a density of many components wants single precision at least
        parameters = parameters.to(torch.promote_types(parameters.dtype, torch.float32))
        each, predicted = parameters.split([3 * len(self.fixed), len(self.own)], -1)
        logits, changes, scales = each.unflatten(-1, (3, -1)).unbind(-2)
        centres = self._centres(predicted, recent)
        log_scales = 0.5 * torch.logaddexp(
            2 * (scales.clamp(max=MOST) + self.start.to(parameters)),
            parameters.new_tensor(self.min_scale).log() * 2,
        )
        locations = centres + log_scales.exp() * changes
        return Mixture(logits.log_softmax(-1), locations, log_scales, family=self.family)

    def _centres(self, predicted: Tensor, recent: Tensor | None) -> Tensor:
        """Centres ``(*batch, *frame, K)``, or what broadcasts to it."""
        centres = self.fixed.to(predicted)
        if recent is not None:
            centres = centres + recent.to(predicted) @ self.moving.to(predicted).T
        return centres + predicted @ self.own.to(predicted) if len(self.own) else centres


def _rungs(centres: list[Centre]) -> list[float]:
    """Steps of the scale around the first one, for components that share a centre."""
    found = []
    for k, centre in enumerate(centres):
        before, of_all = centres[:k].count(centre), centres.count(centre)
        found.append(before - 0.5 * (of_all - 1))
    return found
