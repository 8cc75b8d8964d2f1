"""Training another guide for a model that is trained already and stays as it is."""

from dataclasses import replace

import torch
from torch import nn

from pyro_afslvm import Pair
from pyro_afslvm.evaluation.crops import crop_length
from pyro_afslvm.objectives import bound_terms
from pyro_afslvm.runs.checkpoint import RunError, load_checkpoint
from pyro_afslvm.runs.recipe import Recipe, build_pair
from pyro_afslvm.runs.run import Run
from pyro_afslvm.utils.seeding import Stream, seed_step


def fixed_model(recipe: Recipe, fixed: Pair, frame_shape: tuple[int, ...]) -> Recipe:
    """The recipe with a model that is trained already and stays so: its guide alone learns.

    Raises:
        ValueError: if the recipe's model is another one.
    """
    wanted = {name: value.cpu() for name, value in fixed.model.state_dict().items()}

    def build(frame_shape: tuple[int, ...]) -> Pair:
        model, guide = recipe.build(frame_shape=frame_shape)
        model.load_state_dict(wanted)
        model.requires_grad_(False)
        for module in model.modules():  # nor do its statistics move
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.eval().train = lambda mode=True, module=module: module  # type: ignore
        return Pair(model, guide)

    kept = replace(recipe, build=build)
    try:
        pair = build_pair(kept, frame_shape)
        same = fixed.guide is not None and _same(pair.model, fixed)
    except ValueError:  # its parameters have other names or shapes
        same = False
    if not same:
        raise ValueError(f"the model of {recipe.path} is another one than that of --model")
    return kept


@torch.no_grad()
def _same(model: nn.Module, fixed: Pair) -> bool:
    """Whether two models with the same parameters give the same frames the same bound."""
    device = next(fixed.model.parameters()).device
    found = []
    for program in (model.to(device).eval(), fixed.model):
        seed_step(0, 0, Stream.PROGRAM)
        x = torch.rand(2, 2 + crop_length(program, 1), *program.frame_shape).to(device)
        terms = bound_terms(program, fixed.guide, x)
        found.append(torch.cat([terms.log_likelihood, terms.kl]))
    return found[0].shape == found[1].shape and torch.allclose(*found, rtol=1e-4)


def check_same_model(run: Run, fixed: Pair) -> None:
    """Refuse to go on with a guide that was trained on another model."""
    if not run.last.exists():
        return
    kept = load_checkpoint(run.last)["model"]
    state = fixed.model.state_dict()
    if kept.keys() != state.keys() or any(
        not torch.equal(kept[k], v.cpu()) for k, v in state.items()
    ):
        raise RunError(f"{run.path} was trained on another model than that of --model")
