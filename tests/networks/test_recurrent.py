"""The LSTM has gradients in evaluation mode, where cuDNN has none."""

from typing import Any

import pytest
import torch
from torch import nn

from pyro_afslvm.networks.recurrent import LSTM


@pytest.mark.parametrize(
    ("device", "training", "gradients", "cudnn"),
    [
        ("meta", False, True, False),
        ("meta", True, True, True),
        ("meta", False, False, True),
        ("cpu", False, True, True),
    ],
)
def test_cudnn_is_left_out_where_it_refuses(
    monkeypatch: pytest.MonkeyPatch, device: str, training: bool, gradients: bool, cudnn: bool
) -> None:
    seen = []
    forward = nn.LSTM.forward

    def watched(self: nn.LSTM, *args: Any) -> Any:
        seen.append(torch.backends.cudnn.enabled)
        return forward(self, *args)

    monkeypatch.setattr(nn.LSTM, "forward", watched)
    lstm = LSTM(3, 4, batch_first=True).to(device).train(training)
    with torch.set_grad_enabled(gradients):
        output, _ = lstm(torch.zeros(2, 5, 3, device=device))
    assert output.shape == (2, 5, 4)
    assert seen == [cudnn]
    assert torch.backends.cudnn.enabled


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_gradients_in_evaluation_mode_on_cuda() -> None:
    lstm = LSTM(3, 4).cuda().eval()
    x = torch.randn(5, 2, 3, device="cuda", requires_grad=True)
    lstm(x)[0].sum().backward()
    assert x.grad is not None
    assert x.grad.abs().sum() > 0
