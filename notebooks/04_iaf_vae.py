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
# # Posteriors that are not Gaussian: inverse autoregressive flow in a VAE
#
# The flow that enriches a guide across time was made for a static model, the variational
# autoencoder. Its posterior starts as a diagonal Gaussian and is then transformed in $K$ steps,
# each of one pass of a masked network (Kingma et al., *Improving Variational Inference with
# Inverse Autoregressive Flow*, arXiv:1606.04934, Algorithm 1):
#
# $$z \leftarrow \sigma \odot z + (1 - \sigma) \odot m, \qquad
# (m, s) = \mathrm{MADE}(z, h(x)), \quad \sigma = \mathrm{sigmoid}(s), \qquad
# \log q \leftarrow \log q - \sum_i \log \sigma_i .$$
#
# Here on small digits and with two latents, so that a posterior can be drawn and the true one
# computed on a grid.

# %%
import os

import matplotlib.pyplot as plt
import pandas as pd
import pyro
import torch
from IPython.display import Image
from pyro import poutine
from pyro.infer import SVI, Trace_ELBO
from pyro.optim import ClippedAdam
from sklearn.datasets import load_digits

from pyro_afslvm import (
    VAE,
    InverseAutoregressive,
    Pair,
    ResNetVAE,
    ResNetVAEGuide,
    VAEGuide,
)
from pyro_afslvm.networks import ResidualDecoder, ResidualEncoder
from pyro_afslvm.objectives import FreeBitsELBO, bound_terms, iwae
from pyro_afslvm.plots import image_grid, to_png

SMOKE = bool(os.environ.get("AFSLVM_SMOKE"))  # a few steps, to see that everything runs
STEPS, TEST = (3, 10) if SMOKE else (1200, 200)

pyro.set_rng_seed(0)
torch.set_num_threads(1)
plt.rcParams.update({"figure.dpi": 90, "axes.spines.top": False, "axes.spines.right": False})


def show(figure):
    return Image(to_png(figure, dpi=90))


# %% [markdown]
# ## Data
#
# Handwritten digits of 8 × 8 pixels, whose grey values are the probabilities of a 1; training
# images are drawn afresh at every step. An image is a sequence of one frame, `(1, 1, 8, 8)`, so
# that everything in this library takes it. For MNIST there is `BinarizedMNIST`.

# %%
grey = torch.from_numpy(load_digits().images).float()[:, None, None] / 16  # (1797, 1, 1, 8, 8)
train, test = grey[:-TEST], grey[-TEST:].bernoulli()
SHAPE = (1, 8, 8)
print(len(train), "images for training,", len(test), "for test")
show(image_grid({"grey": grey[:20, 0], "drawn": grey[:20, 0].bernoulli()}))

# %% [markdown]
# ## Model and guides
#
# Both are Pyro programs with the sites `z` and `x`. A first model is trained with the diagonal
# posterior. Then it stays as it is, and guides of different depth are trained on it afresh, so
# that there is one true posterior which all of them try to reach.

# %%
LATENTS = 2
SIZES = {"features": 64, "channels": (16, 32)}


def new_guide(model, depth):
    pyro.set_rng_seed(1)
    iaf = InverseAutoregressive(LATENTS, context_features=16, depth=depth, hidden=(32,))
    return VAEGuide(model, ResidualEncoder(SHAPE, **SIZES), iaf=iaf)


def fit(pair, steps, elbo=None):
    generator = torch.Generator().manual_seed(0)
    svi = SVI(*pair, ClippedAdam({"lr": 2e-3, "clip_norm": 50.0}), elbo or Trace_ELBO())
    bounds = []
    for _ in range(steps):
        chosen = train[torch.randint(len(train), (64,), generator=generator)]
        bounds.append(-svi.step(chosen.bernoulli(generator=generator)) / 64)
    return torch.tensor(bounds)


pyro.set_rng_seed(0)
model = VAE(SHAPE, LATENTS, decoder=ResidualDecoder(LATENTS, SHAPE, **SIZES))
fit(Pair(model, new_guide(model, 0)), STEPS)
model.requires_grad_(False)

depths = {"diagonal": 0, "IAF, 2 steps": 2, "IAF, 4 steps": 4}
pairs = {name: Pair(model, new_guide(model, depth)) for name, depth in depths.items()}
curves = {name: fit(pair, STEPS) for name, pair in pairs.items()}

# %%
figure, axes = plt.subplots(figsize=(7, 3))
for name, curve in curves.items():
    window = min(100, len(curve))
    axes.plot(curve.unfold(0, window, 1).mean(-1), label=name)
axes.set(xlabel="step", ylabel="bound, nats per image")
if not SMOKE:
    axes.set_ylim(curve[-200:].mean() - 2, curve[-200:].mean() + 1)
axes.legend(frameon=False)
plt.show()

# %% [markdown]
# ## Bound and evidence
#
# The model is one and the same, and so is its evidence, which importance sampling estimates. What
# is left between it and the bound is the divergence of the guide from the true posterior.

# %%
SAMPLES = 8 if SMOKE else 256


@torch.no_grad()
def metrics(pair):
    vlb = bound_terms(*pair, test, num_particles=8).bound.mean((0, 2))
    log_p = iwae(*pair, test, num_particles=SAMPLES, chunk=64).log_evidence
    gap = log_p - vlb
    error = float(vlb.std() / len(vlb) ** 0.5)
    return {"VLB": vlb.mean(), "±": error, "log p": log_p.mean(), "gap": gap.mean()}


table = {name: metrics(pair) for name, pair in pairs.items()}
pd.DataFrame(table).T.astype(float).round(2)

# %% [markdown]
# ## What a posterior looks like
#
# Of one test image: the true posterior on a grid, $p(z \mid x) \propto p(x \mid z)\, p(z)$, and
# the density $q(z \mid x)$ of the guide. To score points that it did not draw, an IAF has to be
# inverted entry by entry, which with two latents is nothing.

# %%
axis = torch.linspace(-3.0, 3.0, 121)
grid = torch.cartesian_prod(axis, axis)[:, None, None]  # (points, 1, 1, 2)


@torch.no_grad()
def densities(pair, image):
    log_prior = torch.distributions.Normal(0.0, 1.0).log_prob(grid).sum((-3, -2, -1))
    pixels = torch.distributions.Bernoulli(logits=pair.model.logits(grid))
    log_joint = pixels.log_prob(image).flatten(1).sum(-1) + log_prior
    log_q = pair.guide.distribution(image[None]).log_prob(grid)
    return log_joint.softmax(0), log_q.flatten().softmax(0)


figure, panels = plt.subplots(3, 1 + len(pairs), figsize=(8, 6), sharex=True, sharey=True)
for image, row in zip(test, panels, strict=False):
    found = {name: densities(pair, image) for name, pair in pairs.items()}
    shown = {"true posterior": found["diagonal"][0]} | {name: q for name, (_, q) in found.items()}
    for axes, (name, density) in zip(row, shown.items(), strict=True):
        axes.pcolormesh(axis, axis, density.reshape(121, 121).T, cmap="magma", rasterized=True)
        axes.set_title(name, fontsize=9)
plt.show()

# %% [markdown]
# ## Layers of latents
#
# The ResNet VAE has several layers of image-shaped latents, `z_L` on top. A deterministic pass
# from the bottom up sees the image; latents are then drawn from the top down, where model and
# guide share one pass. Each layer's posterior has an IAF of masked convolutions of its own.
#
# The upper layer tends to stay unused. Free bits charge every layer for at least so many nats,
# whether it uses them or not; the bound that is reported is the plain one.


# %%
def layers(free_bits):
    pyro.set_rng_seed(2)
    ladder = ResNetVAE(SHAPE, layers=(1, 1), channels=2, width=16)
    pair = Pair(ladder, ResNetVAEGuide(ladder, iaf_depth=1, iaf_hidden=(16,)))
    fit(pair, STEPS // 2, FreeBitsELBO(free_bits) if free_bits else None)
    return pair


@torch.no_grad()
def costs(pair):
    trace = poutine.trace(pair.guide).get_trace(test)
    prior = poutine.trace(poutine.replay(pair.model, trace=trace)).get_trace(test)
    sites = {name: (trace.nodes[name], prior.nodes[name]) for name in pair.model.sites}
    kl = {
        f"KL of {name}": float((q["fn"].log_prob(q["value"]) - p["fn"].log_prob(q["value"])).mean())
        for name, (q, p) in sites.items()
    }
    return {"VLB": float(bound_terms(*pair, test, num_particles=8).bound.mean())} | kl


ladders = {f"{nats:g} free bits": layers(nats) for nats in (0.0, 1.0)}
pd.DataFrame({name: costs(pair) for name, pair in ladders.items()}).T.round(2)

# %%
shown = {"test image": test[:20, 0]}
for name, pair in {
    "two latents": pairs["IAF, 4 steps"],
    "two layers": ladders["1 free bits"],
}.items():
    shown[name] = pair.model.reconstruct(pair.guide, test[:20])[:, 0]
shown["sampled"] = ladders["1 free bits"].model.sample_mean(len(shown["test image"]))
show(image_grid(shown))
