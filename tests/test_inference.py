"""Other inference of Pyro's, and likelihoods per step."""

import pyro
import pytest
import torch
from pyro.infer import JitTrace_ELBO, Trace_ELBO

from pyro_afslvm import ConvConditioner, FilteringGuide, FlowModel, TemporalAffine, fit
from pyro_afslvm.svi import no_guide
from tests.test_guides import FRAME, GIVEN, build, frames


def test_log_prob_per_step_of_the_frames():
    model, guide = build(FilteringGuide)
    x = frames()
    parts = model.split(x)
    z = guide(x)
    steps = model.log_prob(x, z)
    assert steps.shape == (3, 8 - GIVEN)
    torch.testing.assert_close(steps.sum(-1), model.frames(z, parts).log_prob(parts.values))
    lengths = torch.tensor([5, 8, 6])
    ragged = model.log_prob(x, z, lengths=lengths)
    assert (ragged[0, 3:] == 0).all()
    torch.testing.assert_close(ragged[1], steps[1])


@pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")  # Pyro's, not ours
def test_the_tracer_sees_the_networks():
    """A remembered inverse would be a constant in the traced program."""
    torch.manual_seed(0)
    flow = TemporalAffine(ConvConditioner(1, hidden=4, depth=1))
    model = FlowModel(flow, FRAME)
    x, other = torch.rand(2, 2, 6, *FRAME)
    expected = [Trace_ELBO().loss(model, no_guide, batch) for batch in (x, other)]
    with pyro.validation_enabled(False):
        traced = JitTrace_ELBO(ignore_jit_warnings=True)
        for batch, loss in zip((x, other), expected, strict=True):
            found = traced.loss_and_grads(model, no_guide, batch)
            torch.testing.assert_close(found, loss, rtol=1e-5, atol=0)
    assert all(p.grad is not None for p in model.parameters())


def test_fit_trains_in_training_mode():
    model = FlowModel(TemporalAffine(ConvConditioner(1, hidden=4, depth=1, norm="batch")), FRAME)
    model.eval()
    before = {k: v.clone() for k, v in model.named_buffers() if "running_mean" in k}
    fit(model, None, torch.rand(4, 6, *FRAME), steps=2, batch_size=2, progress=False)
    for name, value in model.named_buffers():
        if name in before:
            assert not torch.equal(value, before[name]), name
