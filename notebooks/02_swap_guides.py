# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Swap the guide, tighten the bound
#
# The evidence lower bound is loose by the divergence of the guide from the true posterior,
#
# $$\log p(x) - \mathcal L(q) = D_\mathrm{KL}\left(q(z \mid x) \,\|\, p(z \mid x)\right).$$
#
# There are two ways to tighten it: a better guide $q$, or more samples of the one at hand. Any
# guide with a site `z` fits any model with a site `z`, so one line swaps them.
#
# | guide | $q(z_t \mid \cdot)$ |
# |---|---|
# | `FilteringGuide` | $z_{<t}$, $x_{\le t}$; Gaussian |
# | `SmoothingGuide` | $z_{<t}$, *all* frames $x_{1:T}$; Gaussian |
# | `InverseAutoregressive` on top of either | not Gaussian any more |
# | `IterativeGuide` | $z_{<t}$, $x_{\le t}$ through gradients of the bound |

# %%
import math
import os
import time
import warnings

import arviz as az
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pyro
import torch
from pyro.infer import SVI, Trace_ELBO, TraceMeanField_ELBO
from pyro.optim import ClippedAdam
from torch.distributions import MultivariateNormal

from pyro_afslvm import (
    SLVM,
    FilteringGuide,
    InverseAutoregressive,
    IterativeGuide,
    SmoothingGuide,
    TemporalAffine,
)
from pyro_afslvm.networks import MLPEncoder
from pyro_afslvm.objectives import bound_terms, iwae, smc
from pyro_afslvm.results import infer, to_arviz
from pyro_afslvm.transforms import AffineParameters, Conditioner

SMOKE = bool(os.environ.get("AFSLVM_SMOKE"))  # a few steps, to see that everything runs
STEPS, TEST, PARTICLES = (3, 6, 4) if SMOKE else (600, 100, 64)
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00")

pyro.set_rng_seed(0)
torch.set_num_threads(1)
plt.rcParams.update({"figure.dpi": 90, "axes.spines.top": False, "axes.spines.right": False})

# %% [markdown]
# ## A model whose evidence is known
#
# A point swings around the origin of a plane, pushed at random, and is seen through noise.
# Latents are its position and velocity:
#
# $$z_t = A z_{t-1} + N(0, Q), \qquad x_t = C z_t + N(0, R).$$
#
# Linear and Gaussian, so $\log p(x)$ is that of one big Gaussian, and the posterior is known
# too. For the library it is an `SLVM` like any other. Its prior is a `TemporalAffine`, whose
# *conditioner* says what shift and scale of $z_t$ are given $z_{<t}$: in parallel for all $t$
# (`forward`), and one step after the other (`step`).

# %%
LATENT, SIZE, FRAMES = 4, 2, 15
eye = torch.eye(2)
c, s = 0.95 * math.cos(0.6), 0.95 * math.sin(0.6)
A = torch.cat([torch.cat([c * eye, s * eye], 1), torch.cat([-s * eye, c * eye], 1)])
C = torch.cat([eye, 0 * eye], 1)
Q, R = 0.3**2 * torch.ones(LATENT), 0.5**2 * torch.ones(SIZE)  # variances


class Linear(Conditioner):
    """The matrix A times the last latents, and a constant scale."""

    def __init__(self):
        super().__init__(frame_dims=1, initial_shape=(LATENT,), window=0, reach=1)

    def forward(self, values, *, history=None, context=None):
        first = torch.zeros_like(values[..., :1, :]) if history is None else history[..., -1:, :]
        shift = torch.cat([first, values[..., :-1, :]], -2) @ A.T
        return AffineParameters(shift, Q.sqrt().log().expand_as(shift))

    def initial_state(self, batch_shape, **given):
        return ()  # it keeps nothing but the last latents, which step is given

    def step(self, previous, state, *, context=None):
        shift = torch.zeros(LATENT) if previous is None else previous @ A.T
        return AffineParameters(shift, Q.sqrt().log().expand_as(shift)), ()


class Position(torch.nn.Module):
    def forward(self, z):
        location = z @ C.T
        return location, R.sqrt().expand_as(location)


model = SLVM((SIZE,), LATENT, prior=TemporalAffine(Linear()), decoder=Position())

# %% [markdown]
# Data come from the model itself; the evidence of each sequence from the covariance of all
# its frames.

# %%
with torch.no_grad(), pyro.plate("sequences", 2000 + TEST, dim=-2):
    x = model(horizon=FRAMES)[:, 0]
train, test = x[:2000], x[2000:]

lag = torch.stack([torch.matrix_power(A, t) for t in range(FRAMES)])  # z_t = Σ_u A^(t-u) noise_u
root = torch.zeros(FRAMES, LATENT, FRAMES, LATENT)
for t in range(FRAMES):
    for u in range(t + 1):
        root[t, :, u] = lag[t - u] * Q.sqrt()
seen = torch.einsum("dz,tzuk->tduk", C, root).reshape(FRAMES * SIZE, -1)
covariance = seen @ seen.T + torch.diag(R.repeat(FRAMES))
exact = MultivariateNormal(torch.zeros(FRAMES * SIZE), covariance).log_prob(test.flatten(1))
print(f"log p(x) of test sequences: {exact.mean():.2f} nats on average")

figure, axes = plt.subplots(1, 4, figsize=(9, 2.4), layout="constrained")
for panel, path in zip(axes, test, strict=False):
    panel.plot(*path.T, ".-", lw=0.8, ms=4, color=COLOURS[0])
    panel.plot(*path[0], "o", ms=6, color=COLOURS[1])
    panel.set(aspect="equal", xlabel="$x_{t1}$")
_ = axes[0].set_ylabel("$x_{t2}$")


# %%
def train_guide(guide):
    """Plain SVI; a batch of sequences is drawn for every step."""
    generator = torch.Generator().manual_seed(0)
    svi = SVI(model, guide, ClippedAdam({"lr": 1e-2, "lrd": 0.02 ** (1 / STEPS)}), Trace_ELBO())
    start, bound = time.perf_counter(), []
    for _ in range(STEPS):
        chosen = train[torch.randint(len(train), (32,), generator=generator)]
        bound.append(-svi.step(chosen) / len(chosen))
    return time.perf_counter() - start, bound


# %% [markdown]
# ## Five guides for it
#
# The model has no parameters; each guide gets the same steps. Of a diagonal Gaussian at every
# step two things may be missing: what later frames say of $z_t$, and that position and velocity
# are correlated. Smoothing brings the one, IAF the other.


# %%
FEATURES = 16


def encoder():
    return MLPEncoder(SIZE, features=FEATURES)


def iaf(context_features):
    """Sees the guide's context: the encoding of a frame, and summaries from both sides."""
    return InverseAutoregressive(LATENT, context_features=context_features, depth=2, hidden=(32,))


guides = {
    "filtering": FilteringGuide(model, encoder(), hidden=32),
    "filtering, IAF": FilteringGuide(model, encoder(), hidden=32, iaf=iaf(FEATURES)),
    "iterative": IterativeGuide(model, iterations=2, hidden=(32, 32)),
    "smoothing": SmoothingGuide(model, encoder(), summary=16, hidden=32),
    "smoothing, IAF": SmoothingGuide(
        model, encoder(), summary=16, hidden=32, iaf=iaf(FEATURES + 2 * 16)
    ),
}
seconds, curves = {}, {}
for name, guide in guides.items():
    seconds[name], curves[name] = train_guide(guide)

figure, axes = plt.subplots(figsize=(8, 2.8), layout="constrained")
for colour, (name, curve) in zip(COLOURS, curves.items(), strict=True):
    axes.plot(pd.Series(curve).rolling(25, min_periods=1).mean(), color=colour, label=name)
axes.axhline(exact.mean(), color="#222222", ls="--", lw=1, label="log p(x), test")
axes.set(xlabel="step", ylabel="bound, nats/sequence", ylim=(exact.mean() - 22, exact.mean() + 2))
_ = axes.legend(frameon=False, loc="upper left", bbox_to_anchor=(1, 1))

# %% [markdown]
# ## Bounds
#
# $$\mathrm{ELBO} = \mathbb E \log w \;\le\;
# \mathrm{IWAE}_K = \mathbb E \log \tfrac{1}{K} \sum_k w_k \;\le\; \log p(x),
# \qquad w = \frac{p(x, z)}{q(z \mid x)},$$
#
# and the particle filter (SMC), which weighs and resamples after every frame instead of once at
# the end. All in nats per sequence, on the same test sequences; differences are paired.

# %%
elbo, importance, filtered = {}, {}, {}
with torch.no_grad():
    for name, guide in guides.items():
        elbo[name] = bound_terms(model, guide, test, num_particles=PARTICLES).bound.sum(-1).mean(0)
        importance[name] = iwae(model, guide, test, num_particles=PARTICLES, chunk=16).log_evidence
        filtered[name] = smc(model, guide, test, num_particles=PARTICLES)

first = "filtering"
rows = {}
for name in guides:
    better = elbo[name] - elbo[first]
    rows[name] = {
        "ELBO": elbo[name].mean().item(),
        f"IWAE-{PARTICLES}": importance[name].mean().item(),
        f"SMC-{PARTICLES}": filtered[name].log_evidence.mean().item(),
        "ELBO over filtering": better.mean().item(),
        "± s.e.": (better.std() / len(better) ** 0.5).item(),
        "log p(x) − ELBO": (exact - elbo[name]).mean().item(),
        "training, s": seconds[name],
    }
pd.DataFrame(rows).T.round(2)

# %% [markdown]
# What the filter cannot know, it pays for: most of its gap is what later frames say. IAF adds
# little to it, and more to smoothing, where correlations within a step are what is left. The
# iterative guide sees a frame only through two gradients of four latents, and needs more steps
# of training than the others.
#
# With more samples every guide's bound rises towards the same evidence, the faster the better
# the guide. A particle filter gets there sooner: it drops, frame by frame, the particles that
# turned out wrong.

# %%
counts = [1, 2, 4] if SMOKE else [1, 2, 4, 8, 16, 32, 64, 128]
some = test[: len(test) // 2]
figure, axes = plt.subplots(1, 2, figsize=(9, 3), sharey=True, layout="constrained")
with torch.no_grad():
    for colour, (name, guide) in zip(COLOURS, guides.items(), strict=True):
        weighted = [iwae(model, guide, some, num_particles=k, chunk=32) for k in counts]
        particles = [smc(model, guide, some, num_particles=k) for k in counts]
        for panel, found in zip(axes, (weighted, particles), strict=True):
            means = [each.log_evidence.mean() for each in found]
            panel.plot(counts, means, "o-", ms=3, color=colour, label=name)
for panel, title in zip(axes, ("importance weights (IWAE)", "particle filter (SMC)"), strict=True):
    panel.set(xscale="log", xlabel="samples $K$", title=title)
    panel.set_xticks(counts[::2], [str(count) for count in counts[::2]], minor=False)
    panel.minorticks_off()
    panel.axhline(exact[: len(some)].mean(), color="#222222", ls="--", lw=1, label="log p(x)")
axes[0].set(ylabel="bound, nats/sequence")
_ = axes[1].legend(frameon=False)

# %% [markdown]
# ## Particles that count
#
# After each frame, the effective number of particles out of the $K$ in the filter; where it
# has fallen below half, they are resampled. It measures how well a guide proposes for a *filter*,
# whose weights know nothing of later frames. The smoothing guides look ahead, so their particles
# are unequal at first and right in the end: fewer effective ones, and the tighter bound.

# %%
figure, axes = plt.subplots(figsize=(8, 2.6), layout="constrained")
for colour, name in zip(COLOURS, guides, strict=True):
    sizes = filtered[name].effective_sizes.mean(0)
    axes.plot(range(1, FRAMES + 1), sizes, color=colour, label=name)
axes.set(xlabel="time $t$", ylabel=f"effective of {PARTICLES}", ylim=(0, None))
_ = axes.legend(frameon=False, loc="upper left", bbox_to_anchor=(1, 1))

# %% [markdown]
# ## The divergence in closed form
#
# Where the guide samples forward in time with Gaussian steps, the divergence from the prior is
# known at every step, and `TraceMeanField_ELBO` uses it. Both estimate the same bound. Which is
# the less noisy depends on the guide: at the exact posterior $\log p(x, z) - \log q(z \mid x)$
# is a constant, and sampling it beats any closed form.

# %%
repeats = 3 if SMOKE else 200
losses = {}
with torch.no_grad():
    for objective in (Trace_ELBO(), TraceMeanField_ELBO()):
        found = [objective.loss(model, guides[first], test[:4]) for _ in range(repeats)]
        losses[type(objective).__name__] = -np.array(found) / 4
columns = {
    "mean": {name: values.mean() for name, values in losses.items()},
    "standard deviation": {name: values.std() for name, values in losses.items()},
}
pd.DataFrame(columns).round(2)

# %% [markdown]
# A guide with IAF has no such form. It is refused, with the reason, instead of being scored
# wrongly:

# %%
try:
    TraceMeanField_ELBO().loss(model, guides["filtering, IAF"], test[:4])
except TypeError as error:
    print(error)

# %% [markdown]
# ## In ArviZ
#
# `infer` puts draws, evidence and data into one tree of labelled arrays; `to_arviz` hands it
# to ArviZ. Parameters are fixed here and every sequence has latents of its own, so `compare`
# ranks by the evidence of test sequences as each guide's samples see it: the model is one, a
# difference is the guide's fault. A Pareto $k$ above 0.7 says that a few samples carry it.

# %%
DRAWS = 30 if SMOKE else 200
trees = {
    name: infer(model, guide, test[:20], num_samples=DRAWS, num_particles=4, chunk=20)
    for name, guide in guides.items()
}
for group, node in trees["smoothing"].children.items():
    print(f"{group:<16}", {name: values.dims for name, values in node.data_vars.items()})

# %%
chosen = {"sequence": 0, "time": [0, 7, 14], "latent": [0, 2]}
az.summary(to_arviz(trees["smoothing"]), var_names=["z"], coords=chosen, kind="stats")

# %%
with warnings.catch_warnings():  # on large k, which is in the table
    warnings.simplefilter("ignore")
    loo = {
        name: az.loo(to_arviz(tree), var_name="x", pointwise=True) for name, tree in trees.items()
    }
    table = az.compare(loo)[["rank", "elpd_loo", "se", "elpd_diff", "dse"]].round(1)
table.assign(worst_k={name: float(found.pareto_k.max()) for name, found in loo.items()}).round(2)

# %% [markdown]
# Here the difference is between guides. Between *models* the same table ranks by evidence. For
# the models of the papers on video, `python -m inference.swap_guides` trains and measures every
# guide with one command.
