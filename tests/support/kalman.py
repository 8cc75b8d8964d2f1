"""A linear-Gaussian SLVM, without networks, and the Kalman filter that knows its evidence.

.. math:: z_t = A z_{t-1} + \\mathcal{N}(0, Q), \\quad y_t = C z_t + \\mathcal{N}(0, R),
    \\quad x_t = F x_{t-1} + S y_t

with diagonal Q, R and S, z_0 = 0 and x_0 = 0. Evidence and posterior are known in closed form.
Everything is in the default precision, which a test sets to double with ``float64``.
"""

import math
from collections.abc import Callable
from typing import Any, ClassVar, NamedTuple

import pyro
import pyro.distributions as dist
import pyro.poutine as poutine
import torch
from torch import Tensor, nn
from torch.distributions import constraints

from pyro_afslvm import SLVM, FilteringGuide, Pair, TemporalAffine
from pyro_afslvm.networks import MLPEncoder
from pyro_afslvm.transforms import AffineParameters, Conditioner

BATCH, STEPS = 3, 6

# ---- the model, in the library's own terms ----


class Linear(Conditioner):
    """A constant matrix times the last vector, and a constant log-scale."""

    def __init__(self, matrix: Tensor, scale: Tensor) -> None:
        super().__init__(frame_dims=1, initial_shape=scale.shape, window=0, reach=1)
        self.matrix = nn.Parameter(matrix)
        self.log_scale = nn.Parameter(scale.log())

    def forward(
        self, values: Tensor, *, history: Tensor | None = None, context: Tensor | None = None
    ) -> AffineParameters:
        first = torch.zeros_like(values[..., :1, :]) if history is None else history[..., -1:, :]
        shift = torch.cat([first, values[..., :-1, :]], -2) @ self.matrix.T
        return AffineParameters(shift, self.log_scale.expand_as(shift))

    def initial_state(self, batch_shape: torch.Size, **given: Tensor | None) -> tuple[()]:
        return ()

    def step(
        self, previous: Tensor | None, state: tuple[()], *, context: Tensor | None = None
    ) -> tuple[AffineParameters, tuple[()]]:
        shift = torch.zeros_like(self.log_scale) if previous is None else previous @ self.matrix.T
        return AffineParameters(shift, self.log_scale.expand_as(shift)), ()


class LinearDecoder(nn.Module):
    def __init__(self, matrix: Tensor, scale: Tensor) -> None:
        super().__init__()
        self.matrix, self.log_scale = nn.Parameter(matrix), nn.Parameter(scale.log())

    def forward(self, z: Tensor) -> tuple[Tensor, Tensor]:
        location = z @ self.matrix.T
        return location, self.log_scale.exp().expand_as(location)


class System(NamedTuple):
    A: Tensor  # (Z, Z)
    Q: Tensor  # (Z, Z)
    C: Tensor  # (D, Z)
    R: Tensor  # (D, D)


def build(latent_size: int = 2, size: int = 3, *, flow: bool = False, seed: int = 1) -> SLVM:
    pyro.set_rng_seed(seed)
    A = 0.9 * torch.linalg.qr(torch.randn(latent_size, latent_size))[0]
    prior = TemporalAffine(Linear(A, 0.3 + torch.rand(latent_size)))
    decoder = LinearDecoder(torch.randn(size, latent_size), 0.2 + 0.5 * torch.rand(size))
    front = None
    if flow:
        front = TemporalAffine(Linear(0.4 * torch.randn(size, size), 0.5 + torch.rand(size)))
    return SLVM((size,), latent_size, prior=prior, decoder=decoder, flow=front)


def system(model: SLVM) -> System:
    prior, decoder = model.prior.conditioner, model.decoder
    Q, R = (torch.diag((2 * part.log_scale).exp()) for part in (prior, decoder))
    return System(prior.matrix, Q, decoder.matrix, R)


def sequences(model: SLVM, batch: int = BATCH) -> Tensor:
    """From the model itself."""
    with torch.no_grad(), pyro.plate("runs", batch, dim=-2):
        return model(horizon=STEPS)[:, 0]


# ---- the oracle ----


def noise(model: SLVM, x: Tensor) -> tuple[Tensor, Tensor]:
    """y_t = (x_t - F x_{t-1}) / S, and log det of x with respect to y."""
    if model.flow is None:
        return x, torch.zeros(())
    F, log_scale = model.flow.conditioner.matrix, model.flow.conditioner.log_scale
    y, previous = [], torch.zeros_like(x[:, 0])
    for frame in x.unbind(1):
        y.append((frame - previous @ F.T) / log_scale.exp())
        previous = frame
    return torch.stack(y, 1), x.shape[1] * log_scale.sum()


def log_normal(value: Tensor, mean: Tensor, covariance: Tensor) -> Tensor:
    error = torch.linalg.solve(covariance, (value - mean).unsqueeze(-1)).squeeze(-1)
    mahalanobis = ((value - mean) * error).sum(-1)
    return -0.5 * (mahalanobis + covariance.logdet() + value.shape[-1] * math.log(2 * math.pi))


class Filtered(NamedTuple):
    log_evidence: Tensor  # (batch,)
    means: list[Tensor]  # of p(z_t | y_1:t), (batch, Z)
    covariances: list[Tensor]


def kalman(s: System, y: Tensor) -> Filtered:
    mean, covariance = torch.zeros(len(y), len(s.A)), torch.zeros_like(s.A)
    evidence, means, covariances = torch.zeros(len(y)), [], []
    for frame in y.unbind(1):
        mean, covariance = mean @ s.A.T, s.A @ covariance @ s.A.T + s.Q
        innovation = s.C @ covariance @ s.C.T + s.R
        evidence = evidence + log_normal(frame, mean @ s.C.T, innovation)
        gain = torch.linalg.solve(innovation, s.C @ covariance).T
        mean = mean + (frame - mean @ s.C.T) @ gain.T
        covariance = covariance - gain @ s.C @ covariance
        means.append(mean)
        covariances.append(covariance)
    return Filtered(evidence, means, covariances)


def smoother(s: System, y: Tensor) -> tuple[Tensor, Tensor]:
    """Rauch, Tung, Striebel: means and covariances of p(z_t | y_1:T)."""
    _, means, covariances = kalman(s, y)
    smooth = [(means[-1], covariances[-1])]
    for mean, covariance in reversed(list(zip(means[:-1], covariances[:-1], strict=True))):
        predicted = s.A @ covariance @ s.A.T + s.Q
        gain = torch.linalg.solve(predicted, s.A @ covariance).T
        later_mean, later_covariance = smooth[0]
        mean = mean + (later_mean - mean @ s.A.T) @ gain.T
        smooth.insert(0, (mean, covariance + gain @ (later_covariance - predicted) @ gain.T))
    return torch.stack([m for m, _ in smooth], 1), torch.stack([c for _, c in smooth])


class Chain(NamedTuple):
    """q(z_t | z_{t-1}) = N(K_t z_{t-1} + b_t, L_t L_t'), forward in time."""

    K: Tensor  # (T, Z, Z)
    b: Tensor  # (batch, T, Z)
    L: Tensor  # (T, Z, Z)


def exact_posterior(s: System, y: Tensor) -> Chain:
    """p(z_t | z_{t-1}, y_t:T) from the information that y_t:T holds about z_t."""
    eye, J, h = torch.eye(len(s.A)), torch.zeros_like(s.A), torch.zeros(len(y), len(s.A))
    precision_Q, C_R = s.Q.inverse(), torch.linalg.solve(s.R, s.C).T
    links = []
    for frame in reversed(y.unbind(1)):
        to_past = s.A.T @ (eye + J @ s.Q).inverse()  # through the dynamics, to the time before
        J, h = to_past @ J @ s.A + C_R @ s.C, h @ to_past.T + frame @ C_R.T
        covariance = (precision_Q + J).inverse()
        L = torch.linalg.cholesky((covariance + covariance.T) / 2)
        links.insert(0, (covariance @ precision_Q @ s.A, h @ covariance, L))
    K, b, L = zip(*links, strict=True)
    return Chain(torch.stack(K), torch.stack(b, 1), torch.stack(L))


def moments(chain: Chain) -> tuple[Tensor, Tensor]:
    """Mean ``(batch, T Z)`` and covariance ``(T Z, T Z)`` of the whole of z."""
    steps, size, _ = chain.K.shape
    root = torch.zeros(steps * size, steps * size)  # z = mean + root · standard normal
    mean = torch.zeros(len(chain.b), steps * size)
    for t in range(steps):
        now, before = (slice(i * size, (i + 1) * size) for i in (t, t - 1))
        root[now, now], mean[:, now] = chain.L[t], chain.b[:, t]
        if t:
            root[now] += chain.K[t] @ root[before]
            mean[:, now] += mean[:, before] @ chain.K[t].T
    return mean, root @ root.T


def dense(s: System, steps: int) -> tuple[Tensor, Tensor]:
    """Covariance of the whole of z, and the matrix from z to the whole of y."""
    prior = Chain(
        s.A.expand(steps, *s.A.shape),
        torch.zeros(1, steps, len(s.A)),
        s.Q.sqrt().expand(steps, *s.A.shape),
    )
    return moments(prior)[1], torch.block_diag(*[s.C] * steps)


def divergence(q: Chain, p: Chain) -> Tensor:
    """KL(q || p), ``(batch,)``."""
    (q_mean, q_covariance), (p_mean, p_covariance) = moments(q), moments(p)
    ratio = torch.linalg.solve(p_covariance, q_covariance)
    error = (q_mean - p_mean).unsqueeze(-1)
    distance = (error * torch.linalg.solve(p_covariance, error)).sum((-2, -1))
    return 0.5 * (ratio.trace() - len(ratio) + distance - ratio.logdet())


class ForwardGaussian(dist.TorchDistribution):
    """A chain as a distribution of sequences, sampled forward in time."""

    arg_constraints: ClassVar[dict[str, constraints.Constraint]] = {}
    support = constraints.independent(constraints.real, 2)
    has_rsample = True

    def __init__(self, chain: Chain, batch_shape: torch.Size | None = None) -> None:
        self.chain = chain
        shape = chain.b.shape[:1] if batch_shape is None else batch_shape
        super().__init__(shape, chain.b.shape[1:], validate_args=False)

    def expand(self, batch_shape: torch.Size, _instance: Any = None) -> "ForwardGaussian":
        return ForwardGaussian(self.chain, torch.Size(batch_shape))

    def rsample(self, sample_shape: torch.Size | tuple[()] = ()) -> Tensor:
        eps = torch.randn(self.shape(torch.Size(sample_shape)))
        z, frames = torch.zeros_like(eps[..., 0, :]), []
        for t, (K, L) in enumerate(zip(self.chain.K, self.chain.L, strict=True)):
            z = z @ K.T + self.chain.b[:, t] + eps[..., t, :] @ L.T
            frames.append(z)
        return torch.stack(frames, -2)

    def log_prob(self, z: Tensor) -> Tensor:
        total, previous = torch.zeros(()), torch.zeros_like(z[..., 0, :])
        for t, (K, L) in enumerate(zip(self.chain.K, self.chain.L, strict=True)):
            mean = previous @ K.T + self.chain.b[:, t]
            total = total + log_normal(z[..., t, :], mean, L @ L.T)
            previous = z[..., t, :]
        return total


def plain_guide(chain: Chain) -> Callable[..., None]:
    """A plain Pyro guide, for data of its own only."""

    def guide(x: Tensor, **_: Any) -> None:
        with pyro.plate("sequence", len(x), dim=-1):
            pyro.sample("z", ForwardGaussian(chain))

    return guide


# ---- bounds and guides ----


def evidence(model: SLVM, x: Tensor) -> Tensor:
    y, log_det = noise(model, x)
    return kalman(system(model), y).log_evidence - log_det


def bounds(model: SLVM, guide: Callable[..., Any], x: Tensor, n: int) -> Tensor:
    """Integrand of the bound for n samples of each sequence, ``(n, batch)``."""
    with torch.no_grad(), pyro.plate("particles", n, dim=-2):
        posterior = poutine.trace(guide).get_trace(x)
        joint = poutine.trace(poutine.replay(model, trace=posterior)).get_trace(x)
    p, q = (
        {k: v["fn"].log_prob(v["value"]) for k, v in trace.nodes.items() if k in ("z", "x")}
        for trace in (joint, posterior)
    )
    return p["z"] + p["x"] - q["z"]


def random_guide(model: SLVM, seed: int) -> FilteringGuide:
    pyro.set_rng_seed(seed)
    encoder = MLPEncoder(model.frame_shape[0], features=4, hidden=(5,))
    guide = FilteringGuide(model, encoder, hidden=6)
    for p in guide.parameters():
        p.data = 0.5 * torch.randn_like(p)
    return guide


# ---- the exact posterior as a transform across time with a context ----


class BackwardInformation(nn.Module):
    """An encoder that sees y_t:T: the links of the exact posterior of a scalar latent."""

    features = 3

    def __init__(self, model: SLVM) -> None:
        super().__init__()
        self._model = (model,)

    def forward(self, y: Tensor) -> Tensor:  # (batch, T, D) -> (batch, T, 3)
        chain = exact_posterior(system(self._model[0]), y)
        K, L = (link[:, :, 0].expand(len(y), -1, -1) for link in (chain.K, chain.L))
        return torch.cat([K, chain.b, L.log()], -1)


class FromContext(Conditioner):
    """Gain, shift and log-scale of a scalar, all from the context."""

    def __init__(self) -> None:
        super().__init__(frame_dims=1, initial_shape=(1,), window=0, reach=1)

    def forward(
        self, values: Tensor, *, history: Tensor | None = None, context: Tensor | None = None
    ) -> AffineParameters:
        first = torch.zeros_like(values[..., :1, :])
        return self._link(torch.cat([first, values[..., :-1, :]], -2), context)

    def initial_state(self, batch_shape: torch.Size, **given: Tensor | None) -> tuple[()]:
        return ()

    def step(
        self, previous: Tensor | None, state: tuple[()], *, context: Tensor | None = None
    ) -> tuple[AffineParameters, tuple[()]]:
        return self._link(torch.zeros(1) if previous is None else previous, context), ()

    @staticmethod
    def _link(previous: Tensor, context: Tensor) -> AffineParameters:
        gain, shift, log_scale = context.split(1, -1)
        return AffineParameters(gain * previous + shift, log_scale)


def exact_pair(*, flow: bool) -> Pair:
    model = build(1, flow=flow)
    posterior = TemporalAffine(FromContext())
    return Pair(model, FilteringGuide(model, BackwardInformation(model), posterior=posterior))
