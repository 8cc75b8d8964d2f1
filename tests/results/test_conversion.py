"""What ArviZ makes of the results."""

import copy
import warnings
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr

from pyro_afslvm import SLVM
from pyro_afslvm.results import infer, to_arviz
from tests.support.inferred import PROTOCOL, flow_model, near, vector_pair
from tests.support.kalman import build, evidence, random_guide, sequences


@pytest.fixture
def az() -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import arviz
    return arviz


def elpd(loo: Any) -> float:
    return float(loo.elpd_loo if "elpd_loo" in dir(loo) else loo.elpd)


def two_models() -> dict[str, tuple[SLVM, torch.Tensor]]:
    """The model of the data, and one with another decoder."""
    right = build(flow=True)
    wrong = copy.deepcopy(right)
    wrong.decoder.matrix.data += 0.3  # type: ignore[operator, union-attr]
    return {"wrong": wrong, "right": right}


@pytest.mark.filterwarnings("ignore:The inplace keyword")  # pandas, of ArviZ 0.23
def test_the_better_model_wins_by_its_evidence(az: Any, float64: None) -> None:
    models = two_models()
    x = sequences(models["right"], 120)
    truth = {name: evidence(model, x).sum().item() for name, model in models.items()}
    found = {
        name: to_arviz(infer(model, near(model, x, 1.05), x, num_samples=400, chunk=400))
        for name, model in models.items()
    }
    for name, data in found.items():
        loo = az.loo(data, pointwise=True)
        assert elpd(loo) == pytest.approx(truth[name], abs=1.5)
        assert float(loo.pareto_k.max()) < 0.7
        assert not loo.warning
    table = az.compare(found)
    assert list(table.index) == ["right", "wrong"]
    assert truth["right"] > truth["wrong"] + 10
    gap = table["elpd_diff"].abs().max()
    assert gap == pytest.approx(truth["right"] - truth["wrong"], rel=0.05, abs=2)


def test_loo_never_exceeds_the_mean_of_the_draws(az: Any, float64: None) -> None:
    """A poor guide counts against its model, and the Pareto k says so."""
    model = build()
    x = sequences(model, 20)
    tree = infer(model, random_guide(model, 3), x, num_samples=100, chunk=100)
    with pytest.warns(UserWarning, match="shape parameter of Pareto"):
        loo = az.loo(to_arviz(tree))
    assert elpd(loo) <= tree["log_likelihood/x"].mean(("chain", "draw")).sum() + 1e-6
    assert elpd(loo) < evidence(model, x).sum().item()


def test_summary_of_latents_also_of_ragged_ones(az: Any) -> None:
    model, guide, x = vector_pair()
    tree = infer(model, guide, x, num_samples=50, chunk=50, lengths=torch.tensor([6, 3, 5]))
    table = az.summary(to_arviz(tree), kind="stats", round_to="none")
    assert len(table) == 3 * 4 * 3
    z = tree["posterior/z"].mean(("chain", "draw")).values.ravel()
    np.testing.assert_allclose(table["mean"].to_numpy(float), z, rtol=1e-5)
    assert az.summary(to_arviz(infer(model, guide, x, num_samples=50)))["mean"].notna().all()


@pytest.mark.filterwarnings("ignore:The inplace keyword")
def test_exact_likelihoods_are_compared_exactly(az: Any) -> None:
    x = torch.randn(120, 8, 2) + 5
    trained, untrained = flow_model(), flow_model()
    adam = torch.optim.Adam(trained.parameters(), 1e-2)
    for _ in range(60):
        adam.zero_grad()
        (-trained.log_prob(x).mean()).backward()
        adam.step()
    exact = {"untrained": untrained, "trained": trained}
    found = {name: to_arviz(infer(m, None, x, num_samples=25)) for name, m in exact.items()}
    for name, data in found.items():
        loo = az.loo(data)
        total = exact[name].log_prob(x).double().sum().item()
        assert elpd(loo) == pytest.approx(total, rel=1e-6)
        assert not loo.warning
    assert list(az.compare(found).index) == ["trained", "untrained"]
    assert len(az.summary(found["trained"], kind="stats")) == len(x)


def test_conversion_leaves_the_tree_alone(az: Any) -> None:
    tree = infer(flow_model(), None, torch.randn(3, 6, 2), num_samples=25, protocol=PROTOCOL)
    before = tree.copy(deep=True)
    data = to_arviz(tree)
    xr.testing.assert_identical(tree, before)
    assert set(data["log_likelihood"].data_vars) == {"x"}
    step = data["sample_stats"]["log_likelihood_step"]
    np.testing.assert_array_equal(step, tree["log_likelihood/x_step"])
    assert data.attrs["protocol"] == PROTOCOL.to_json()
    moved = abs(data["log_likelihood"]["x"] - tree["log_likelihood/x"])
    assert 0 < moved.max() < 1e-6 * abs(tree["log_likelihood/x"]).max()


def in_chains(case: str) -> xr.DataTree:
    if case == "exact":
        return infer(flow_model(), None, torch.randn(5, 6, 2), num_samples=30, num_chains=4)
    model, guide, x = vector_pair()
    lengths = torch.tensor([6, 3, 5]) if case == "ragged" else None
    options = {} if lengths is not None else {"horizon": 2}
    return infer(
        model, guide, x, num_samples=30, num_chains=4, chunk=60, lengths=lengths, **options
    )


CASES = ["full", "ragged", "exact"]


@pytest.mark.filterwarnings("ignore:invalid value")  # r_hat of what is the same in all draws
@pytest.mark.parametrize("case", CASES)
def test_what_chains_are_for(az: Any, case: str) -> None:
    data = to_arviz(in_chains(case))
    assert dict(data["posterior"].sizes)["chain"] == 4
    for group in ("posterior", "sample_stats", "posterior_predictive", "log_likelihood"):
        assert len(az.summary(data, group=group))
    if case != "exact":
        assert 0.9 < float(az.rhat(data)["z"].max()) < 1.2
        assert float(az.ess(data)["z"].min()) > 30
    for dim in ("chain", "draw"):
        joined = az.concat(data, data.copy(), dim=dim)
        assert joined["sample_stats"].sizes[dim] == 2 * data["sample_stats"].sizes[dim]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("case", CASES)
def test_plots_of_arviz_by_default(az: Any, case: str) -> None:
    import matplotlib.pyplot as plt

    data = to_arviz(in_chains(case))
    for plot in (az.plot_ppc, az.plot_bpv, az.plot_rank, az.plot_trace):
        plot(data)
        plt.close("all")
    az.plot_loo_pit(data, y="x")
    plt.close("all")
    az.plot_ppc(to_arviz(in_chains(case), entries=True))
    plt.close("all")


def test_replicates_are_of_the_model_given_the_draws(float64: None) -> None:
    """Their mean is the model's, from the decoder of that draw's latents."""
    model = build()
    x = sequences(model, 2)
    tree = infer(model, near(model, x), x, num_samples=1000, num_chains=4, chunk=1000)
    z = torch.as_tensor(tree["posterior/z"].values)
    error = tree["posterior_predictive/x"].values - model.decoder(z)[0].detach().numpy()
    assert abs(error.mean((0, 1))).max() < 5 * error.std() / 4000**0.5
    assert tree["posterior_predictive/x"].dims == ("chain", "draw", *tree["observed_data/x"].dims)
