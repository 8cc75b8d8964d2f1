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
# # Series: from a CSV to forecasts with bands, gaps and anomalies
#
# A table of dates and columns goes in; forecasts come out in its units, with its names and dates.
# In between is one affine flow across time,
#
# $$x_t = \mu(x_{<t}, c_t) + \sigma(x_{<t}, c_t) \odot y_t, \qquad y_t \sim N(0, I),$$
#
# with covariates $c_t$ that are known in advance.

# %%
import os
import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pyro
import torch
from IPython.display import Image
from matplotlib.dates import AutoDateLocator, ConciseDateFormatter

from pyro_afslvm import FlowModel, MLPConditioner, Pair, TemporalAffine, backtest, fit, forecast
from pyro_afslvm.data import Series
from pyro_afslvm.forecasting.anomalies import anomalies
from pyro_afslvm.forecasting.backtest import summary
from pyro_afslvm.forecasting.missing import fill
from pyro_afslvm.forecasting.series import as_rows
from pyro_afslvm.plots import anomaly_lines, forecast_bands, to_png

SMOKE = bool(os.environ.get("AFSLVM_SMOKE"))  # a few steps, to see that everything runs
STEPS, SAMPLES = (3, 8) if SMOKE else (300, 200)

pyro.set_rng_seed(0)
torch.set_num_threads(1)
plt.rcParams.update({"figure.dpi": 90, "axes.spines.top": False, "axes.spines.right": False})
folder = Path(tempfile.mkdtemp())

# %% [markdown]
# ## The data: two years of a made-up shop
#
# Visitors come mostly at weekends, sales follow them, and both wander. The weekday is known in
# advance: the last 28 rows have nothing else, so that they are of days to come.

# %%
rng = np.random.default_rng(0)
days = pd.date_range("2023-01-01", periods=758, name="day")
level = np.full(758, 200.0)
for t in range(1, 758):
    level[t] = 200 + 0.9 * (level[t - 1] - 200) + rng.normal(scale=8)
weekend = (days.day_of_week > 4).astype(float)
visitors = level * (1 + 0.5 * weekend) + rng.normal(scale=6, size=758)
sales = 12 * visitors + 3000 * weekend + rng.normal(scale=250, size=758)
week = 2 * np.pi * days.day_of_week / 7
table = pd.DataFrame({"visitors": visitors, "sales": sales}, index=days)
for k in (1, 2, 3):
    table[f"sin{k}"], table[f"cos{k}"] = np.sin(k * week), np.cos(k * week)
table.loc[days[-28:], ["visitors", "sales"]] = np.nan
table.to_csv(folder / "shop.csv")
print((folder / "shop.csv").read_text()[:200])

# %%
calendar = [f"{wave}{k}" for k in (1, 2, 3) for wave in ("sin", "cos")]
source = Series(path=str(folder / "shop.csv"), context=calendar)
print(source.table.names, len(source.table.times[0]), source.table.step)

# %% [markdown]
# Mistakes in a table are named in one line, with the column or the date:

# %%
for wrong in (table.iloc[[0, 2, 1]], table.assign(sales=3.0), table.drop(days[100])):
    try:
        _ = Series.of(wrong, context=calendar).table
    except ValueError as error:
        print(error)

# %% [markdown]
# ## A model
#
# Training crops have 28 days; they are standardized by the training split, which all results undo.

# %%
train = source.dataset("train", num_frames=28)
crops = range(16 * len(train))
x = torch.stack([train[i] for i in crops])
known = torch.stack([torch.from_numpy(train.context(i)) for i in crops])

conditioner = MLPConditioner(
    2, window=7, hidden=(64,), residual=True, context_features=len(calendar)
)
model = FlowModel(TemporalAffine(conditioner), (2,), context_features=len(calendar))
result = fit(
    model, None, x, context=known, steps=STEPS, batch_size=32, learning_rate=2e-3, progress=False
)
pair = Pair(model, None)

figure, axes = plt.subplots(figsize=(6, 2.5))
axes.plot(pd.Series(np.asarray(result.bound)).rolling(20, min_periods=1).mean())
axes.set(xlabel="step", ylabel="log-likelihood of a crop")
plt.show()

# %% [markdown]
# ## Forecast past the last observation
#
# The result is an `xarray.Dataset` with samples, quantiles and mean, in the table's units and with
# its dates; `afslvm forecast RUN --horizon 28` writes the same to CSV, netCDF and a picture.

# %%
future = forecast(pair, source, horizon=28, num_samples=SAMPLES, seed=0)
as_rows(future).head(4)

# %%
shop = source.table
picture = forecast_bands(
    shop.values[0][-90:],
    shop.times[0][-90:],
    future["quantiles"].isel(series=0).values,
    future["time"].values,
    levels=future["quantile"].values,
    names=shop.names,
)
Image(to_png(picture, dpi=90))

# %% [markdown]
# ## Better than what one would use without it?
#
# From rolling origins over the test split, beside a random walk and a seasonal naive forecast (and
# VAR and ETS where statsmodels is installed). CRPS, energy score and MASE are best when low; the
# log-score, in nats per entry, when high; of the 50 % and 90 % bands the coverage should be just
# that.

# %%
scores = backtest(
    pair,
    source,
    horizon=14,
    season=7,
    num_samples=SAMPLES,
    baselines=("random walk", "seasonal naive"),
)
summary(scores).round(2)

# %%
figure, axes = plt.subplots(figsize=(6, 2.8))
for name in scores["model"].values:
    by_step = scores["crps"].sel(model=name, feature="sales").mean("origin")
    axes.plot(scores["step"], by_step, ".-", label=name)
axes.set(xlabel="days ahead", ylabel="CRPS of sales")
axes.legend(frameon=False)
plt.show()

# %% [markdown]
# ## Missing values
#
# Values that are missing are latents: `fill` samples them from both sides of a gap. The density of
# what is observed is exact until the first gap, and again when the window of seven days has left
# it; in between it is an estimate, and `exact` says which.

# %%
kept = source.standardization
standardized = torch.as_tensor(kept(shop.values[0][-60:]), dtype=torch.float32)
context = torch.tensor(shop.covariates[0][-88:-28], dtype=torch.float32)
gapped = standardized.clone()
gapped[30:36, 1] = torch.nan  # no sales for six days, though visitors were counted
filled = fill(model, gapped[None], context=context[None], num_samples=10 * SAMPLES)
print("exact:", filled.exact[0].int().tolist())

# %%
samples = kept.restored(filled.samples[:, 0].numpy())[..., 1]
low, middle, high = np.quantile(samples, [0.05, 0.5, 0.95], axis=0)
times = shop.times[0][-60:]
figure, axes = plt.subplots(figsize=(7, 2.8))
axes.plot(times, shop.values[0][-60:, 1], color="0.75", label="truth")
axes.fill_between(times, low, high, color="C1", alpha=0.3, lw=0, label="90 % band")
axes.plot(times, middle, color="C1", label="filled")
axes.plot(times, np.where(gapped[:, 1].isnan(), np.nan, shop.values[0][-60:, 1]), "k", label="seen")
axes.set_ylabel("sales")
locator = AutoDateLocator(maxticks=6)
axes.xaxis.set_major_locator(locator)
axes.xaxis.set_major_formatter(ConciseDateFormatter(locator))
axes.legend(frameon=False, ncols=4, loc="upper left", bbox_to_anchor=(0, 1.2))
plt.show()

# %% [markdown]
# ## Anomalies
#
# $-\log p(x_t \mid x_{<t})$ is how surprising a day is. The threshold comes from the validation
# split, which 5 % of normal days may pass; it has 73 days, so that the threshold is a rough one.
# The days after an odd one look back at it, and are surprising too.

# %%
odd = table.copy()
odd.iloc[700, 1] *= 0.6  # the till was broken for a day
found = anomalies(pair, Series.of(odd, context=calendar), rate=0.05)
last = found.isel(time=slice(-150, None))
print([str(day)[:10] for day in last["time"].values[last["anomaly"].values]])

# %%
picture = anomaly_lines(
    last["value"].values,
    last["time"].values,
    last["score"].values,
    threshold=found.attrs["threshold"],
    names=shop.names,
)
Image(to_png(picture, dpi=90))
