"""The LSTM that prior, posterior and history are made of."""

from typing import Any

import torch
from torch import nn


class LSTM(nn.LSTM):
    """torch's LSTM, whose gradients in evaluation mode cuDNN refuses: they are had without it."""

    def forward(self, input: Any, hx: Any = None) -> Any:
        if self.training or self.weight_ih_l0.device.type == "cpu" or not torch.is_grad_enabled():
            return super().forward(input, hx)
        with torch.backends.cudnn.flags(enabled=False):
            return super().forward(input, hx)
