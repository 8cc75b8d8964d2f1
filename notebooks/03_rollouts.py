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
# # Rollouts: forecasts with uncertainty, and surprise
#
# After frames $x_{1:T}$, a model samples what follows, one frame after the other:
#
# $$z_{1:T} \sim q(z \mid x), \qquad z_t \sim p(z_t \mid z_{<t}), \quad
# y_t \sim p(y_t \mid z_t), \quad
# x_t = \mu(x_{<t}) + \sigma(x_{<t}) \odot y_t \qquad (t > T).$$
#
# The other way round, $-\log p(x_t \mid x_{<t})$ says how surprising a frame is that came.

# %%
import os
import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pyro
import torch
import xarray as xr
from IPython.display import Image

from pyro_afslvm import (
    SLVM,
    ConvConditioner,
    FilteringGuide,
    LSTMConditioner,
    StreamingFilter,
    TemporalAffine,
    fit,
    rollout,
)
from pyro_afslvm.data import GaussianDequantization, MovingDigits
from pyro_afslvm.metrics import forecast_scores
from pyro_afslvm.networks import ConvDecoder, ConvEncoder, mlp
from pyro_afslvm.plots import frame_strip, score_curves, to_png
from pyro_afslvm.results import infer, load, save

SMOKE = bool(os.environ.get("AFSLVM_SMOKE"))  # a few steps, to see that everything runs
STEPS, TRAIN, TEST, SAMPLES = (3, 16, 2, 3) if SMOKE else (500, 1000, 16, 30)

pyro.set_rng_seed(0)
torch.set_num_threads(1)
plt.rcParams.update({"figure.dpi": 90, "axes.spines.top": False, "axes.spines.right": False})


def show(figure):
    return Image(to_png(figure, dpi=90))


# %% [markdown]
# ## A model
#
# One digit moves over a photograph. Model and guide are those of the notebook `01_svi`; `fit`
# is its SVI loop in one call, with clipped gradients. It gets about a minute of training: enough
# to know where a digit goes next, not what it looks like some frames later.

# %%
GIVEN, HORIZON = 6, 8
source = MovingDigits(size=24, num_digits=1, background="photo")
dequantize = GaussianDequantization()


def sequences(split, count, frames):
    dataset = source.dataset(split, num_frames=frames)
    return dequantize(torch.stack([dataset[i] for i in range(count)]))


FRAME, LATENT = source.frame_shape, 16
model = SLVM(
    FRAME,
    LATENT,
    prior=TemporalAffine(LSTMConditioner(LATENT, hidden=64, pre_network=mlp(LATENT, 64))),
    decoder=ConvDecoder(LATENT, FRAME, width=16),
    flow=TemporalAffine(ConvConditioner(1, hidden=16, norm="group", residual=True)),
)
guide = FilteringGuide(model, ConvEncoder(FRAME, features=64, width=16), hidden=64)
result = fit(
    model,
    guide,
    sequences("train", TRAIN, 13),
    steps=STEPS,
    batch_size=8,
    learning_rate=1e-3,
    progress=False,
)
_ = model.eval(), guide.eval()
print(f"bound: {result.bound[-20:].mean():.0f} nats per frame after {STEPS} steps")

# %% [markdown]
# ## Futures
#
# `rollout` returns an `xarray.Dataset` with named dimensions. Samples are made a few at a time
# (`chunk`) and moved to main memory, so that their number costs no more on the device; the
# given frames are encoded once for all of them.

# %%
x = sequences("test", TEST, GIVEN + HORIZON)
past, future = x[:, :GIVEN], x[:, GIVEN:]
options = {"horizon": HORIZON, "num_samples": SAMPLES, "chunk": 10, "seed": 0}
forecast = rollout(model, guide, past, **options)
print(forecast.x_future.dims)
print(forecast.x_future.shape)

# %%
shown = 0
rows = {
    "truth": future[shown].numpy(),
    "sample 1": forecast.x_future[0, shown].to_numpy(),
    "sample 2": forecast.x_future[1, shown].to_numpy(),
    "mean": forecast.x_future[:, shown].mean("sample").to_numpy(),
    "deviation": forecast.x_future[:, shown].std("sample").to_numpy(),
}
rows = {name: np.concatenate([past[shown], frames]).clip(0, 1) for name, frames in rows.items()}
rows["deviation"][:GIVEN] = 0  # what is given is known
show(frame_strip(rows, context=GIVEN))

# %% [markdown]
# ## Temperature
#
# The draws of latents and frames can be scaled: 1 samples the model, 0 follows the mode of
# every step. Smaller draws make sharper pictures, and forecasts that are too sure of themselves.

# %%
temperatures = (1.0, 0.5, 0.0)
forecasts = {
    f"T = {t:g}": rollout(model, guide, past, temperature=t, **options) for t in temperatures
}
rows = {"truth": future[shown].numpy()} | {
    name: found.x_future[0, shown].to_numpy() for name, found in forecasts.items()
}
rows = {name: np.concatenate([past[shown], frames]).clip(0, 1) for name, frames in rows.items()}
show(frame_strip(rows, context=GIVEN))

# %% [markdown]
# ## How good are they?
#
# Beside copying the last frame: the continuous ranked probability score of the samples (lower
# is better), PSNR and SSIM of the best sample, and how many pixels lie in the central 90 %
# interval. Of a calibrated forecast with $S$ samples that is $0.9\,(S - 1) / (S + 1)$.

# %%
copied = past[:, -1:].expand_as(future).expand(2, *future.shape)
scores = {
    name: forecast_scores(found.x_future.to_numpy(), future, levels=[0.9])
    for name, found in forecasts.items()
}
scores["copy"] = forecast_scores(copied, future, levels=[0.9])

titles = {"crps": "CRPS", "psnr": "PSNR, dB", "ssim": "SSIM", "coverage": "coverage 90 %"}
panels = {
    title: {
        name: found[kind].mean("sequence").to_numpy().reshape(-1)
        for name, found in scores.items()
        if (kind, name) != ("coverage", "copy")
    }
    for kind, title in titles.items()
}
calibrated = 0.9 * (SAMPLES - 1) / (SAMPLES + 1)
show(
    score_curves(
        panels,
        ahead=range(1, HORIZON + 1),
        baseline="copy",
        calibrated={"coverage 90 %": calibrated},
    )
)

# %%
table = xr.concat(list(scores.values()), xr.Variable("forecast", list(scores)))
table[list(titles)].sel(level=0.9).mean(("sequence", "time_future")).to_dataframe()[
    list(titles)
].round(3)

# %% [markdown]
# ## Surprise in a stream
#
# `StreamingFilter` takes one frame at a time, in constant time and memory: a particle filter
# whose estimate of $-\log p(x_t \mid x_{<t})$ is an anomaly score, exact for a flow without
# latents. Here four frames are missing, so that the digit jumps, and later on another video
# begins.

# %%
FRAMES = 22
normal, other = sequences("test", 2, FRAMES + 4).split(1)
stream = torch.cat([normal[:, :10], normal[:, 14:20], other[:, :6]], 1)
normal = normal[:, :FRAMES]

scored, forecasted = [], []
for video in (normal, stream):
    pyro.set_rng_seed(0)
    filtering = StreamingFilter(model, guide, num_particles=4 if SMOKE else 32)
    updates = [filtering.update(frame) for frame in video.unbind(1)]
    scored.append([-float(update.log_likelihood) for update in updates])
    forecasted.append([update.forecast for update in updates])

figure, axes = plt.subplots(figsize=(9, 2.8), layout="constrained")
time, pixels = range(1, FRAMES + 1), normal[0, 0].numel()
for scores, colour, label in zip(
    scored,
    ("#0072B2", "#D55E00"),
    ("as it was", "four frames missing, then another video"),
    strict=True,
):
    axes.plot(time, np.array(scores) / pixels, "o-", ms=3, color=colour, label=label)
axes.set(xlabel="time $t$", ylabel="$-\\log p(x_t \\mid x_{<t})$, nats/pixel", xticks=time[3::2])
_ = axes.legend(frameon=False)

# %% [markdown]
# The forecast that the filter makes before each frame, and the error it turned out to have in
# units of its own standard deviation (white: five of them):

# %%
frames = stream[0]
first = next(t for t, found in enumerate(forecasted[1]) if found is not None) + 1
means = torch.stack([found.mean[0] for found in forecasted[1][first - 1 : -1]]).clamp(0, 1)
scales = torch.stack([found.scale[0] for found in forecasted[1][first - 1 : -1]])
errors = ((frames[first:] - means).abs() / scales / 5).clamp(0, 1)
window = slice(4, 18)
rows = {
    "stream": frames[first:][window].clamp(0, 1).numpy(),
    "forecast": means[window].numpy(),
    "error": errors[window].numpy(),
}
times = list(range(first + 1, FRAMES + 1))[window]
show(frame_strip(rows, times=times))

# %% [markdown]
# ## All of it, on disk
#
# `infer` gathers draws of the latents, forecasts, evidence and data in one tree, in the groups
# of ArviZ; `save` and `load` write and open it lazily, as netCDF or zarr.

# %%
tree = infer(model, guide, past[:4], num_samples=min(SAMPLES, 10), horizon=HORIZON)
with tempfile.TemporaryDirectory() as folder:
    path = Path(folder) / "results.nc"
    save(tree, path)
    print(f"{path.name}: {path.stat().st_size / 1e6:.1f} MB")
    with load(path) as stored:
        for group, node in stored.children.items():
            print(f"{group:<22}", {name: dict(v.sizes) for name, v in node.data_vars.items()})
