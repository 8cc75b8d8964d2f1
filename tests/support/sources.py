"""A source of one's own, as the text of a module."""

RAMP = """
import numpy as np
from pyro_afslvm.data import GeneratedSequences, SequenceSource

class Ramp(SequenceSource):
    name = "ramp"

    def __init__(self, *, size: int = 8, seed: int = 0) -> None:
        if size < 4:
            raise ValueError(f"a ramp of {size} pixels is no ramp")
        self.size, self.seed = size, seed

    @property
    def frame_shape(self):
        return (1, self.size, self.size)

    def dataset(self, split, *, num_frames):
        def draw(rng):
            return rng.integers(256, size=(num_frames, *self.frame_shape), dtype=np.uint8)

        return GeneratedSequences(draw, size=8, seed=self.seed, split=split)

    def describe(self):
        return {"name": self.name, "size": self.size, "seed": self.seed}
"""
