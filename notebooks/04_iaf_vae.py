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
from pyro_afslvm.objectives import bound_terms, iwae
from pyro_afslvm.plots import image_grid, to_png
from pyro_afslvm.residual import ResidualDecoder, ResidualEncoder

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
show(image_grid({"grey": grey[:20, 0], "drawn": grey[:20, 0].bernoulli()}))

# %% [markdown]
# ## Model and guides
#
# Both are Pyro programs with the sites `z` and `x`. Only the guides differ: with `depth=0` the
# posterior is exactly the diagonal Gaussian.

# %%
LATENTS = 2


def build(depth):
    pyro.set_rng_seed(1)
    sizes = {"features": 64, "channels": (16, 32)}
    model = VAE(SHAPE, LATENTS, decoder=ResidualDecoder(LATENTS, SHAPE, **sizes))
    iaf = InverseAutoregressive(LATENTS, context_features=16, depth=depth, hidden=(32,))
    return Pair(model, VAEGuide(model, ResidualEncoder(SHAPE, **sizes), iaf=iaf))


def fit(pair, steps):
    generator = torch.Generator().manual_seed(0)
    svi = SVI(*pair, ClippedAdam({"lr": 2e-3, "clip_norm": 50.0}), Trace_ELBO())
    bounds = []
    for _ in range(steps):
        chosen = train[torch.randint(len(train), (64,), generator=generator)]
        bounds.append(-svi.step(chosen.bernoulli(generator=generator)) / 64)
    return torch.tensor(bounds)


pairs = {"diagonal": build(0), "IAF, 2 steps": build(2), "IAF, 4 steps": build(4)}
curves = {name: fit(pair, STEPS) for name, pair in pairs.items()}

# %%
figure, axes = plt.subplots(figsize=(7, 3))
for name, curve in curves.items():
    window = min(50, len(curve))
    axes.plot(curve.unfold(0, window, 1).mean(-1), label=name)
axes.set(xlabel="step", ylabel="bound, nats per image", ylim=(-32, None) if not SMOKE else None)
axes.legend(frameon=False)
plt.show()

# %% [markdown]
# ## Bound and evidence
#
# The gap between log p(x), estimated by importance sampling, and the bound is the divergence of
# the posterior from the true one. A better posterior closes it, and the model trained with it
# uses its latents in ways that a Gaussian could not follow.

# %%
SAMPLES = 8 if SMOKE else 256


def figures(pair):
    vlb = bound_terms(*pair, test, num_particles=8).bound.mean((0, 2))
    log_p = iwae(*pair, test, num_particles=SAMPLES, chunk=64).log_evidence
    gap = log_p - vlb
    error = float(vlb.std() / len(vlb) ** 0.5)
    return {"VLB": vlb.mean(), "±": error, "log p": log_p.mean(), "gap": gap.mean()}


table = {name: figures(pair) for name, pair in pairs.items()}
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


figure, panels = plt.subplots(len(pairs), 6, figsize=(9.5, 4.8), sharex=True, sharey=True)
for row, (name, pair) in zip(panels, pairs.items(), strict=True):
    for i in range(3):
        true, approximate = densities(pair, test[i])
        for axes, density, kind in zip(row[2 * i :], (true, approximate), ("p", "q"), strict=False):
            axes.pcolormesh(axis, axis, density.reshape(121, 121).T, cmap="magma", rasterized=True)
            axes.set_title(f"{kind}(z | x), image {i + 1}" if row is panels[0] else "", fontsize=8)
    row[0].set_ylabel(name)
plt.show()

# %% [markdown]
# ## Layers of latents
#
# The ResNet VAE has several layers of image-shaped latents, `z_L` on top. A deterministic pass
# from the bottom up sees the image; latents are then drawn from the top down, where model and
# guide share one pass. Each layer's posterior has an IAF of masked convolutions of its own.

# %%
pyro.set_rng_seed(2)
ladder = ResNetVAE(SHAPE, layers=(1, 1), channels=2, width=16)
layered = Pair(ladder, ResNetVAEGuide(ladder, iaf_depth=1, iaf_hidden=(16,)))
fit(layered, STEPS // 3)

trace = poutine.trace(layered.guide).get_trace(test)
prior = poutine.trace(poutine.replay(layered.model, trace=trace)).get_trace(test)
for site in ladder.sites:
    q, p = trace.nodes[site], prior.nodes[site]
    kl = (q["fn"].log_prob(q["value"]) - p["fn"].log_prob(q["value"])).mean()
    print(site, "of", tuple(q["value"].shape[2:]), f"costs {float(kl):.1f} nats per image")

# %%
reconstructions = {
    "test image": test[:20, 0],
    "diagonal": pairs["diagonal"].model.reconstruct(pairs["diagonal"].guide, test[:20])[:, 0],
    "IAF, 4 steps": pairs["IAF, 4 steps"].model.reconstruct(pairs["IAF, 4 steps"].guide, test[:20])[
        :, 0
    ],
    "two layers": ladder.reconstruct(layered.guide, test[:20])[:, 0],
    "sampled": ladder.sample_mean(20),
}
count = min(map(len, reconstructions.values()))
show(image_grid({name: images[:count] for name, images in reconstructions.items()}))
