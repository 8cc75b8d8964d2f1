"""Options that trade memory, time and start-up for one another; none changes what is computed."""

import ctypes
from collections.abc import Iterator

from torch import nn

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # of malloc.h


def recompute_activations(module: nn.Module) -> None:
    """Let networks of frames forget their activations, and compute them anew for gradients.

    Takes a third more time, and a fraction of the memory: the convolutions of encoders, decoders
    and conditioners. Networks of vectors, whose activations are small, keep theirs.

    Args:
        module: its encoders, decoders and conditioners are changed in place.

    >>> import torch
    >>> from pyro_afslvm.networks import ConvEncoder
    >>> encoder = ConvEncoder((1, 16, 16), features=4, width=8)
    >>> recompute_activations(encoder)
    >>> encoder(torch.rand(2, 1, 16, 16)).sum().backward()  # the network runs twice
    """
    for network in layer_sequences(module):
        network.recompute = True  # type: ignore[assignment]  # for layers.on_frames to see


def compile_networks(module: nn.Module, *, backend: str = "inductor") -> None:
    """Compile the networks of a module in place by ``torch.compile``, each on its own.

    Whole bounds do not compile well. On the processors tried it made steps up to twice as slow,
    for convolutions and batch norm are a library's either way; the first steps take a minute.

    Args:
        module: its encoders, decoders and conditioners are changed in place.
        backend: of ``torch.compile``; the default needs a C++ compiler.
    """
    for network in layer_sequences(module):
        network.compile(backend=backend)


def keep_freed_memory() -> bool:
    """Let the C library keep freed memory for later tensors, where it is glibc's.

    By default each large tensor is mapped anew, and every page of it cleared, at every step.
    This is of the whole process, whose resident memory stays at its peak, and that peak is
    about 40 % higher.

    Returns:
        whether it could be done.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return False
    return bool(mallopt(M_MMAP_MAX, 0) and mallopt(M_TRIM_THRESHOLD, -1))


def layer_sequences(module: nn.Module) -> Iterator[nn.Module]:
    """Sequences of layers in a module that are not part of another."""
    for child in module.children():
        if isinstance(child, nn.Sequential):
            yield child
        else:
            yield from layer_sequences(child)
