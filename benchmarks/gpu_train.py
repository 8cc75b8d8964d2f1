"""Train recipes side by side on an accelerator, each step one CUDA graph, on digits moved there.

    python -m benchmarks.gpu_train --digits FOLDER --out runs/gpu --seconds 400

Every model sees the same batches, so that models are compared at equal iterations. The rate of
learning falls along half a cosine over the time that is given; networks compute in bfloat16 at
first and in TF32 for the last part, in which precision counts.
"""

import copy
import math
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import pyro
import torch
from torch import Tensor
from torch.utils.data import Subset

from benchmarks.gpu import described
from benchmarks.gpu_checks import tf32
from benchmarks.gpu_steps import wait
from benchmarks.graphs import CapturedStep, Precision, TrainingStep
from pyro_afslvm.cli.console import Parser, run_program
from pyro_afslvm.data import MovingMNIST, dequantization, software_versions
from pyro_afslvm.data.datasets.moving_mnist import mnist_digits
from pyro_afslvm.evaluation.bounds import likelihood
from pyro_afslvm.evaluation.crops import crop_length
from pyro_afslvm.objectives.loss import BoundLoss
from pyro_afslvm.runs.recipe import build_pair, load_recipe
from pyro_afslvm.utils.files import write_json

SIZE, SCORED, STEP = 64, 10, 0.1
LEFT_OUT = ("config", "out", "digits")  # of the settings that are written down
RECIPES = ("models/af1.py", "models/slvm.py", "models/slvm_af1.py")


# digits that move, on the device --------------------------------------------------------------


def bounced(start: Tensor, velocity: Tensor, steps: int, limit: int) -> Tensor:
    """Corners ``(steps, *start.shape)`` of what moves straight and bounces off the borders."""
    position, path = start, []
    for _ in range(steps):
        position = position + velocity
        velocity = torch.where((position <= 0) | (position >= 1), -velocity, velocity)
        position = position.clamp(0, 1)
        path.append(position)
    return (limit * torch.stack(path)).long()


def drawn(pictures: Tensor, corners: Tensor, size: int) -> Tensor:
    """Pictures on black, the brightest where they overlap.

    Args:
        pictures: ``(N, K, D, D)`` of N sequences with K objects each.
        corners: ``(T, N, K, 2)``, row and column.
        size: of the frames.

    Returns:
        ``(N, T, size, size)``, of the pictures' type.
    """
    side = pictures.shape[-1]
    framed = torch.nn.functional.pad(pictures, (1, 1, 1, 1))
    within = torch.arange(size, device=pictures.device) + 1 - corners[..., None]  # T, N, K, 2, size
    rows, columns = within.clamp(0, side + 1).transpose(0, 1).unbind(3)  # each N, T, K, size
    n = torch.arange(len(pictures), device=pictures.device)[:, None, None, None]
    canvas: Tensor | None = None
    for k in range(pictures.shape[1]):
        moved = framed[n, k, rows[:, :, k, :, None], columns[:, :, k, None, :]]
        canvas = moved if canvas is None else torch.maximum(canvas, moved)
    assert canvas is not None
    return canvas


class MovedDigits:
    """Sequences of two digits that bounce, as many as are asked, uint8 ``(N, T, 1, 64, 64)``."""

    def __init__(self, digits: Tensor, frames: int) -> None:
        self.digits, self.frames = digits, frames

    def __call__(self, count: int) -> Tensor:
        """Draw sequences where the digits are."""
        where = {"device": self.digits.device}
        start = torch.rand(count, 2, 2, **where)
        angle = 2 * math.pi * torch.rand(count, 2, **where)
        velocity = STEP * torch.stack([angle.sin(), angle.cos()], -1)
        corners = bounced(start, velocity, self.frames, SIZE - self.digits.shape[-1])
        chosen = torch.randint(len(self.digits), (count, 2), **where)
        return drawn(self.digits[chosen], corners, SIZE).unsqueeze(2)


NOISE = dequantization("gaussian")


# training ---------------------------------------------------------------------------------------


class Trained:
    """A model that is trained, and the graph of its step."""

    def __init__(self, recipe: str, pixels: Tensor, *, seed: int) -> None:
        torch.manual_seed(seed)
        self.recipe, self.pixels = recipe, pixels
        self.pair = build_pair(load_recipe(recipe), (1, SIZE, SIZE)).to(pixels.device)
        self.frames = crop_length(self.pair.model, SCORED)
        self.bound = BoundLoss(self.pair)
        self.rate = torch.tensor(0.0, device=pixels.device)
        self.step = TrainingStep(self.bound, self.loss, "float32", learning_rate=self.rate)
        self.captured: Callable[[], Tensor] = self.step
        self.stream = torch.cuda.Stream() if pixels.is_cuda else None

    @property
    def name(self) -> str:
        """Its recipe's file, without the ending."""
        return Path(self.recipe).stem

    def loss(self) -> Tensor:
        """Of the batch that lies in ``pixels``, noise drawn anew."""
        return self.bound(NOISE(self.pixels[:, -self.frames :]))

    def capture(self, precision: Precision) -> None:
        """Make a graph of the step in a precision; its first steps learn at whatever rate is."""
        self.captured = self.step
        self.step.precision = precision
        if self.pixels.is_cuda:
            self.captured = CapturedStep(self.step)

    def __call__(self) -> None:
        """Do a step, after what was asked of the device before, beside that of other models."""
        if self.stream is None:
            self.captured()
            return
        self.stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self.stream):
            self.captured()

    def wait(self) -> None:
        """What is asked of the device from now on comes after the step."""
        if self.stream is not None:
            torch.cuda.current_stream().wait_stream(self.stream)

    def score(self, data: Any) -> Tensor:
        """Nats per dimension of every sequence, in evaluation mode: ``(N,)``."""
        pair = copy.deepcopy(self.pair)
        with pyro.validation_enabled(False), tf32(True):
            found = likelihood(
                pair, data, dequantization=NOISE, scored_frames=SCORED, batch_size=50
            )
        return torch.from_numpy(found.per_sequence) + NOISE.to_nats(0.0)


def frames_of(recipe: str) -> int:
    """Frames of a crop that a recipe's model is given."""
    return crop_length(build_pair(load_recipe(recipe), (1, SIZE, SIZE)).model, SCORED)


def cosine(done: float, *, warmup: float = 0.03) -> float:
    """Share of the highest rate, when a share of the training is done."""
    return min(1.0, done / warmup) * 0.5 * (1 + math.cos(math.pi * min(1.0, done)))


def train(options: Any) -> dict[str, Any]:
    """Train all recipes until the time is over; their weights and curves are in the folder."""
    device = torch.device(options.device)
    source = MovingMNIST(path=options.digits, kind="generated")
    frames = max(map(frames_of, options.recipes))
    digits = torch.from_numpy(mnist_digits(source._files(), "train", 28).copy()).to(device)
    torch.manual_seed(options.seed)
    draw = MovedDigits(digits, frames)
    pixels = draw(options.batch)
    models = [Trained(recipe, pixels, seed=options.seed) for recipe in options.recipes]
    held_out = Subset(source.dataset("validation", num_frames=frames), range(options.held_out))
    for model in models:
        model.capture("bf16" if options.precise < 1 else "float32")
    print("captured", flush=True)
    curve = _loop(models, pixels, draw, held_out, options)
    test = Subset(source.dataset("test", num_frames=frames), range(options.test))
    scores = {model.name: model.score(test) for model in models}
    found = {
        "device": described(device),
        "versions": software_versions(),
        "settings": {k: v for k, v in vars(options).items() if k not in LEFT_OUT},
        "protocol": f"{options.test} test sequences, {SCORED} frames scored",
        "curve": curve,
        "test": {name: _mean(score) for name, score in scores.items()},
        "paired": {
            f"{b} - {a}": _mean(scores[b] - scores[a]) for a in scores for b in scores if a < b
        },
    }
    for key in ("test", "paired"):
        print(found[key], flush=True)
    return found | {"models": models}


def _mean(values: Tensor) -> dict[str, float]:
    error = float(values.std()) / math.sqrt(len(values))
    return {"mean": float(values.mean()), "error": error}


def _loop(
    models: list[Trained], pixels: Tensor, draw: MovedDigits, held_out: Any, options: Any
) -> list[dict[str, Any]]:
    begin, step, curve, precise = time.monotonic(), 0, [], options.precise >= 1
    while True:
        wait(pixels.device)
        seconds = time.monotonic() - begin
        done = seconds / options.seconds
        if (step // options.burst) % options.every == 0 or done >= 1:
            row = {"step": step, "seconds": seconds}
            row |= {m.name: float(m.score(held_out).mean()) for m in models}
            curve.append(row)
            print({k: round(v, 4) for k, v in row.items()}, flush=True)
        if done >= 1:
            return curve
        if done > 1 - options.precise and not precise:
            precise = True
            for model in models:
                model.capture("float32")
        for model in models:
            model.rate.fill_(options.learning_rate * cosine(done))
        for batch in draw(options.batch * options.burst).split(options.batch):
            pixels.copy_(batch)
            for model in models:
                model()
            for model in models:
                model.wait()
        step += options.burst


def keep(model: Trained, out: Path, most: int = 15 << 20) -> None:
    """Write weights, large ones in half precision, in pieces of at most 15 MiB."""
    parts = {"model": model.pair.model, "guide": model.pair.guide}
    states = {
        f"{part}/{key}": value.detach().cpu()
        for part, module in parts.items()
        if module is not None
        for key, value in module.state_dict().items()
        if not (part == "guide" and key.startswith("model."))
    }
    pieces: list[dict[str, Tensor]] = [{}]
    size = 0
    for key, value in states.items():
        small = value.half() if value.numel() > 100_000 else value
        if size + small.nbytes > most:
            pieces.append({})
            size = 0
        pieces[-1][key] = small.clone()
        size += small.nbytes
    for i, piece in enumerate(pieces):
        torch.save(piece, out / f"{model.name}.{i}.pt")


# the program ------------------------------------------------------------------------------------


def main(arguments: Sequence[str] | None = None) -> int:
    """Read options, run, print."""
    parser = Parser(prog="gpu_train", description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=str, required=True, help="folder of weights and curves")
    parser.add_argument("--digits", type=str, required=True, help="folder of MNIST's idx files")
    parser.add_argument("--device", type=Literal["cuda", "cpu"], default="cuda")
    parser.add_argument("--recipes", type=list[str], default=list(RECIPES))
    parser.add_argument("--seconds", type=float, default=400.0, help="of training")
    parser.add_argument("--precise", type=float, default=0.3, help="last share, in TF32")
    parser.add_argument("--learning_rate", type=float, default=5e-4, help="the highest")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--burst", type=int, default=200, help="steps between looks at the clock")
    parser.add_argument("--every", type=int, default=20, help="bursts between validations")
    parser.add_argument("--held_out", type=int, default=100)
    parser.add_argument("--test", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    return run_program("gpu_train", lambda: _program(options))


def _program(options: Any) -> None:
    out = Path(options.out)
    out.mkdir(parents=True, exist_ok=True)
    torch.backends.cudnn.benchmark = True
    with pyro.validation_enabled(False), tf32(True):
        found = train(options)
    for model in found.pop("models"):
        keep(model, out)
    write_json(out / "gpu_train.json", found)


if __name__ == "__main__":
    sys.exit(main())
