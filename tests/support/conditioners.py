"""What tests of conditioners share."""

from typing import Any

import torch
from torch import Tensor

from tests.support.registry import Case


def draw(case: Case, conditioner: Any, *batch: int, length: int = 5, more: int = 0) -> Any:
    """Values, and the history and context that go with them."""
    past = conditioner.window + more
    history = case.frames(*batch, past) if past else None
    context = case.context(*batch, past + length)
    return case.frames(*batch, length), {"history": history, "context": context}


def steps(case: Case, conditioner: Any, values: Tensor, given: dict[str, Any]) -> Any:
    """The parameters of every frame, ``(*batch, T, *frame, P)``, one step after the other."""
    history, context = given["history"], given["context"]
    dim = -1 - len(case.frame_shape)
    past = 0 if history is None else history.shape[dim]
    before = None if context is None or not past else context[..., :past, :]
    state = conditioner.initial_state(values.shape[:dim], history=history, context=before)
    previous = None if history is None else history.select(dim, -1)
    results = []
    for t, value in enumerate(values.unbind(dim)):
        entry = None if context is None else context[..., past + t, :]
        parameters, state = conditioner.step(previous, state, context=entry)
        shape = (*value.shape, conditioner.num_parameters)
        results.append(parameters.to(value.dtype).expand(shape))
        previous = value
    return torch.stack(results, dim - 1)
