"""Small models and every kind of guide for them."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from pyro_afslvm import (
    SLVM,
    ConvConditioner,
    FilteringGuide,
    HistoryEncoder,
    InverseAutoregressive,
    IterativeGuide,
    LSTMConditioner,
    MLPConditioner,
    SmoothingGuide,
    TemporalAffine,
    TemporalChain,
    TemporalHierarchy,
)
from pyro_afslvm.guides import ForwardGuide
from pyro_afslvm.models.noise import MixtureNoise
from pyro_afslvm.networks import ConvDecoder, ConvEncoder, MLPDecoder, MLPEncoder, mlp
from pyro_afslvm.networks.window_memory import WindowMemory
from pyro_afslvm.transforms.conditioners import GivenParameters
from tests.support.registry import perturb

SIZE, LATENT, GIVEN = 3, 4, 2


class System(NamedTuple):
    model: SLVM
    guide: ForwardGuide


def flow() -> TemporalAffine:
    return TemporalAffine(MLPConditioner(SIZE, window=GIVEN, hidden=(8,)))


def prior(context: int = 0) -> TemporalAffine:
    return TemporalAffine(LSTMConditioner(LATENT, hidden=6, context_features=context))


def levels(context: int = 0) -> TemporalHierarchy:
    upper = LSTMConditioner(1, hidden=5, context_features=context)
    lower = LSTMConditioner(LATENT - 1, hidden=5, context_features=context + 1)
    return TemporalHierarchy([TemporalAffine(upper), TemporalAffine(lower)], [1, LATENT - 1])


def plain(*, with_flow: bool = True) -> SLVM:
    front = flow() if with_flow else None
    return SLVM((SIZE,), LATENT, prior=prior(), decoder=MLPDecoder(LATENT, SIZE), flow=front)


def flow_prior() -> SLVM:
    chain = TemporalChain([prior(), prior()])
    return SLVM((SIZE,), LATENT, prior=chain, decoder=MLPDecoder(LATENT, SIZE), flow=flow())


def hierarchy() -> SLVM:
    return SLVM((SIZE,), LATENT, prior=levels(), decoder=MLPDecoder(LATENT, SIZE), flow=flow())


def vrnn(*, with_flow: bool = True, hidden: int = 5) -> SLVM:
    memory = HistoryEncoder(MLPEncoder(SIZE, features=7), hidden=hidden)
    return SLVM(
        (SIZE,),
        LATENT,
        prior=prior(memory.features),
        decoder=MLPDecoder(LATENT + memory.features, SIZE),
        flow=flow() if with_flow else None,
        memory=memory,
        decode_memory=True,
    )


class LastFrames(nn.Module):
    """Features of a few frames side by side."""

    def __init__(self, window: int, features: int) -> None:
        super().__init__()
        self.features = features
        self.network = mlp(window * SIZE, features)

    def forward(self, frames: Tensor) -> Tensor:
        features: Tensor = self.network(frames)
        return features


class MixtureDecoder(nn.Module):
    """Log-weights, locations and log-scales of three components."""

    def __init__(self, inputs: int) -> None:
        super().__init__()
        self.network = nn.Linear(inputs, 9 * SIZE)

    def forward(self, z: Tensor) -> tuple[Tensor, ...]:
        logits, locations, log_scales = self.network(z).unflatten(-1, (SIZE, 3, 3)).unbind(-2)
        return logits.log_softmax(-1), locations, 0.5 * log_scales


def windowed(*, with_flow: bool = False, mixture: bool = False) -> SLVM:
    memory = WindowMemory(LastFrames(GIVEN, 5), window=GIVEN, frame_dims=1)
    inputs = LATENT + memory.features
    return SLVM(
        (SIZE,),
        LATENT,
        prior=prior(memory.features),
        decoder=MixtureDecoder(inputs) if mixture else MLPDecoder(inputs, SIZE),
        flow=flow() if with_flow else None,
        memory=memory,
        decode_memory=True,
        noise=MixtureNoise() if mixture else None,
        context_length=GIVEN,
    )


MODELS: dict[str, Callable[[], SLVM]] = {
    "plain": plain,
    "no-flow": lambda: plain(with_flow=False),
    "flow-prior": flow_prior,
    "hierarchy": hierarchy,
    "vrnn": vrnn,
    "vrnn-no-flow-no-lstm": lambda: vrnn(with_flow=False, hidden=0),
    "windowed": windowed,
    "windowed-flow": lambda: windowed(with_flow=True),
    "windowed-mixture": lambda: windowed(mixture=True),
}


def encoder() -> MLPEncoder:
    return MLPEncoder(SIZE, features=6)


class MemoryEncoder(nn.Module):
    """Parameters of a posterior from a frame and the summary of those before."""

    frame_dims = 1

    def __init__(self, past: int) -> None:
        super().__init__()
        self.features = 2 * LATENT
        self.network = nn.Linear(SIZE + past, 2 * LATENT)

    def forward(self, y: Tensor, past: Tensor) -> Tensor:
        batch = torch.broadcast_shapes(y.shape[:-1], past.shape[:-1])
        features: Tensor = self.network(
            torch.cat([y.expand(*batch, -1), past.expand(*batch, -1)], -1)
        )
        return features


def seeing_memory(model: SLVM) -> FilteringGuide:
    assert model.memory is not None
    given = TemporalAffine(GivenParameters(LATENT))
    encoder = MemoryEncoder(model.memory.features)
    return FilteringGuide(model, encoder, posterior=given, encode_memory=True)


def iaf(context: int) -> InverseAutoregressive:
    return InverseAutoregressive(LATENT, context_features=context, depth=2, hidden=(8,))


GUIDES: dict[str, Callable[[SLVM], ForwardGuide]] = {
    "filtering": lambda m: FilteringGuide(m, encoder(), hidden=5),
    "filtering-iaf": lambda m: FilteringGuide(m, encoder(), hidden=5, iaf=iaf(6)),
    "smoothing": lambda m: SmoothingGuide(m, encoder(), summary=4, hidden=5),
    "smoothing-iaf": lambda m: SmoothingGuide(m, encoder(), summary=4, hidden=5, iaf=iaf(14)),
    "iterative": lambda m: IterativeGuide(m, iterations=2, hidden=(8,)),
    "hierarchy": lambda m: FilteringGuide(m, encoder(), posterior=levels(6)),
    "seeing-memory": seeing_memory,
}


def model_of(guide: str) -> str:
    """A model that this guide fits."""
    return "windowed" if guide == "seeing-memory" else "plain"


EACH = [  # every model and every guide
    *((model_of(guide), guide) for guide in GUIDES),
    *((model, "filtering") for model in MODELS if model != "plain"),
]
PAIRS = [  # and those that go together in ways of their own
    *EACH,
    ("hierarchy", "hierarchy"),
    ("flow-prior", "iterative"),
    ("hierarchy", "iterative"),
    ("vrnn", "iterative"),
    ("vrnn", "seeing-memory"),
    ("windowed", "iterative"),
    ("windowed-flow", "seeing-memory"),
    ("windowed-mixture", "seeing-memory"),
    ("vrnn", "smoothing-iaf"),
    ("no-flow", "filtering-iaf"),
]


def system(model: str, guide: str, *, seed: int = 0, dtype: torch.dtype = torch.float64) -> System:
    """A model and a guide with random weights, in evaluation mode."""
    torch.manual_seed(seed)
    made = MODELS[model]().to(dtype).eval()
    posterior = GUIDES[guide](made).to(dtype).eval()
    perturb(made)
    perturb(posterior)
    return System(made, posterior)


def video() -> System:
    """An SLVM with a flow on images, and its filtering guide, in single precision."""
    torch.manual_seed(0)
    frame = (1, 16, 16)
    flow = TemporalAffine(ConvConditioner(1, hidden=4, depth=1, window=3))
    prior = TemporalAffine(LSTMConditioner(3, hidden=5))
    model = SLVM(frame, 3, prior=prior, decoder=ConvDecoder(3, frame, width=4), flow=flow)
    guide = FilteringGuide(model, ConvEncoder(frame, features=6, width=4))
    return System(model.eval(), guide.eval())


def same_updates(batch_shape: tuple[int, ...], *, like: Tensor) -> Tensor:
    """In place of the draws of an iterative guide, wherever and however often it draws."""
    return like.new_full((*batch_shape, 2, LATENT), 0.5)


def sequences(batch: int = 3, length: int = 8) -> Tensor:
    return torch.randn(batch, length, SIZE, dtype=torch.float64)
