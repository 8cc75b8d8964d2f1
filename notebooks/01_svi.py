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
# # A sequential latent variable model on the noise of a flow
#
# A video $x_{1:T}$ is mostly explained by its own last frames. An **affine flow across time**
# takes that part out, frame by frame, and leaves noise $y_{1:T}$:
#
# $$x_t = \mu(x_{<t}) + \sigma(x_{<t}) \odot y_t
# \qquad\Longleftrightarrow\qquad
# y_t = \frac{x_t - \mu(x_{<t})}{\sigma(x_{<t})}.$$
#
# A latent variable model then explains the noise, not the pixels:
#
# $$\log p(x, z) = \sum_t \log p(y_t \mid z_t) + \log p(z_t \mid z_{<t})
# - \sum_i \log \sigma_i(x_{<t}).$$
#
# Model and guide below are ordinary Pyro programs, trained by ordinary `SVI`
# (Marino, Chen, He, Mandt, *Improving Sequential Latent Variable Models with Autoregressive
# Flows*).

# %%
import math
import os

import matplotlib.pyplot as plt
import pandas as pd
import pyro
import torch
from IPython.display import Image
from pyro.infer import SVI, Predictive, Trace_ELBO
from pyro.optim import ClippedAdam

from pyro_afslvm import SLVM, ConvConditioner, FilteringGuide, LSTMConditioner, TemporalAffine
from pyro_afslvm.data import GaussianDequantization, MovingDigits
from pyro_afslvm.metrics import temporal_correlation
from pyro_afslvm.networks import ConvDecoder, ConvEncoder, mlp
from pyro_afslvm.objectives import bound_terms
from pyro_afslvm.plots import FlowStep, flow_figure, frame_strip, to_png

SMOKE = bool(os.environ.get("AFSLVM_SMOKE"))  # a few steps, to see that everything runs
STEPS, TEST = (4, 4) if SMOKE else (400, 64)

pyro.set_rng_seed(0)
torch.set_num_threads(1)
plt.rcParams.update({"figure.dpi": 90, "axes.spines.top": False, "axes.spines.right": False})


def show(figure):
    return Image(to_png(figure, dpi=90))


# %% [markdown]
# ## Data
#
# Two digits that move and bounce over a still photograph, 24 × 24 pixels. Pixels are whole
# numbers; for a density they are made real by dequantization,
# $x = v / 255 + \epsilon$, $\epsilon \sim N(0, (1/256)^2)$.

# %%
GIVEN, SCORED = 3, 10  # the first frames of a sequence are given, the others are scored
source = MovingDigits(size=24, background="photo")
train = source.dataset("train", num_frames=GIVEN + SCORED)
dequantize = GaussianDequantization()


def batch(dataset, first, count):
    return dequantize(torch.stack([dataset[i] for i in range(first, first + count)]))


test = batch(source.dataset("test", num_frames=GIVEN + SCORED), 0, TEST)
show(frame_strip({f"test {i}": test[i].numpy() for i in range(3)}))

# %% [markdown]
# ## Model and guide
#
# The same class, `TemporalAffine`, is used three times: as the flow of the frames, as the
# prior $p(z_t \mid z_{<t})$ of the latents, and inside the guide as the filtering posterior
# $q(z_t \mid x_{\le t}, z_{<t})$.

# %%
FRAME, LATENT = source.frame_shape, 16

flow = TemporalAffine(ConvConditioner(1, window=GIVEN, hidden=16, norm="group", residual=True))
prior = TemporalAffine(LSTMConditioner(LATENT, hidden=64, pre_network=mlp(LATENT, 64)))
decoder = ConvDecoder(LATENT, FRAME, width=16)
model = SLVM(FRAME, LATENT, prior=prior, decoder=decoder, flow=flow)
guide = FilteringGuide(model, ConvEncoder(FRAME, features=64, width=16), hidden=64)

for name, part in (("model", model), ("guide", guide)):
    print(name, f"{sum(p.numel() for p in part.parameters()):,} parameters")

# %%
trace = pyro.poutine.trace(model).get_trace(test[:2])
trace.compute_log_prob()
for name in ("z", "x"):
    site = trace.nodes[name]
    value, log_prob = (tuple(site[part].shape) for part in ("value", "log_prob"))
    print(f"site {name}: value {value}, log-probability {log_prob}")

# %% [markdown]
# ## Training
#
# Nothing but `SVI` with `Trace_ELBO`: the bound, in nats, is
#
# $$\mathcal L = \mathbb E_{q(z \mid x)}\left[\log p(x, z) - \log q(z \mid x)\right]
# \le \log p(x).$$

# %%
svi = SVI(model, guide, ClippedAdam({"lr": 2e-3, "lrd": 0.1 ** (1 / STEPS)}), Trace_ELBO())
dims = SCORED * math.prod(FRAME)


def nats_per_dim(nats):
    """Units of 8-bit pixels: densities of x in [0, 1] are 256 times as large."""
    return nats / dims - math.log(256)


curve = []
for step in range(STEPS):
    x = batch(train, 8 * step, 8)
    curve.append(nats_per_dim(-svi.step(x) / len(x)))

# %% [markdown]
# Two lines to read the curve by: a Normal around the *last frame* with the best single scale,
# and the negative entropy of the noise in the pixels, which no model can exceed.

# %%
scale = (test[:, GIVEN:] - test[:, GIVEN - 1 : -1]).square().mean().sqrt()
copy = float(-0.5 * (2 * math.pi * math.e * scale**2).log()) - math.log(256)
ceiling = -0.5 * math.log(2 * math.pi * math.e)

figure, axes = plt.subplots(figsize=(7, 2.8), layout="constrained")
axes.plot(curve, lw=0.6, color="#0072B2", alpha=0.4)
smooth = pd.Series(curve).rolling(20, min_periods=1).mean()
axes.plot(smooth, color="#0072B2", label="bound, training batches")
axes.axhline(copy, color="#222222", ls="--", lw=1, label="copy the last frame")
axes.axhline(ceiling, color="#777777", ls=":", lw=1, label="noise of the pixels")
axes.set(xlabel="step", ylabel="nats per dimension", ylim=(copy - 0.4, ceiling + 0.2))
_ = axes.legend(frameon=False, ncols=3, loc="upper center", bbox_to_anchor=(0.5, 1.18))

# %% [markdown]
# On test sequences (other digits over another photograph), term by term:

# %%
with torch.no_grad():
    terms = bound_terms(model, guide, test, num_particles=2 if SMOKE else 8)
per_sequence = terms.bound.sum(-1).mean(0)  # over samples; (sequences,)
pd.Series(
    {
        "copy the last frame, nats/dim": copy,
        "bound, nats/dim": nats_per_dim(per_sequence.mean()).item(),
        "its standard error": (per_sequence.std() / len(test) ** 0.5 / dims).item(),
        "log p(x | z), nats/sequence": terms.log_likelihood.sum(-1).mean().item(),
        "log q(z | x) − log p(z), nats/sequence": terms.kl.sum(-1).mean().item(),
    }
).to_frame("test").round(3)

# %% [markdown]
# ## What the flow sees
#
# The shift $\mu$ is its prediction of the frame, the scale $\sigma$ says where it is unsure:
# around the digits, whose next step it does not know. What is left over, $y$, is what the
# latents have to explain; photograph and outlines are gone from it.

# %%
x = test[:1]
with torch.no_grad():
    (step,) = model.flow.condition(history=x[:, :GIVEN]).intermediates(x[:, GIVEN:])
    y = step.noise
drawn = FlowStep(step.shift[0], step.log_scale.exp()[0], y[0])
show(flow_figure(x[0, GIVEN:], [FlowStep(*(part.numpy() for part in drawn))], first=GIVEN + 1))

# %% [markdown]
# Less of the past is left in $y$: the correlation of a pixel with itself one frame later, a signed
# mean over pixels. (Near zero it is no proof of white noise: signs may cancel, and most pixels show
# nothing but the noise of their dequantization. Where a flow takes off the mean of the last $W$
# frames of such noise, $-1/(W^2 + W)$ is left.)

# %%
with torch.no_grad():
    y = model.flow.condition(history=test[:, :GIVEN]).inv(test[:, GIVEN:])
print(f"x: {temporal_correlation(test[:, GIVEN:]):.2f}   y: {temporal_correlation(y):.2f}")

# %% [markdown]
# ## Futures
#
# `Predictive` runs the guide on what is given and the model on what follows. The latents and
# frames of the future are sites of their own, `z_future` and `x_future`, so the guide needs to
# know nothing of them. After so short a training a sample carries much pixel noise; the mean
# of many shows where the model believes the digits to go.

# %%
past, future = test[:2, :6], test[:2, 6:]
predictive = Predictive(model, guide=guide, num_samples=2 if SMOKE else 50)
samples = predictive(past, horizon=future.shape[1])["x_future"]
print(tuple(samples.shape), "= samples, sequences, frames, channels, height, width")

# %%
rows = {"truth": future[0], "sample 1": samples[0, 0], "sample 2": samples[1, 0]}
rows["mean of all"] = samples[:, 0].mean(0)
strip = {name: torch.cat([past[0], frames]).clamp(0, 1).numpy() for name, frames in rows.items()}
show(frame_strip(strip, context=len(past[0])))

# %% [markdown]
# To keep the model, keep `model.state_dict()` and `guide.state_dict()`. Training with
# progress, checks and clipping in one call is `pyro_afslvm.fit(model, guide, data)`; the
# notebook `02_swap_guides` tries other guides, `03_rollouts` looks at forecasts.
