"""Writing frames in zarr's sharded format, chunk by chunk as they come."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[np.uint8]

_LEVEL = 1  # of zstd: the next one takes twice as long and saves little
_NOT_THERE = np.iinfo(np.uint64).max  # as place and length of a chunk that a shard lacks


class ShardWriter:
    """An array (T, *frame) of uint8 that grows by chunks; zarr reads what it leaves behind.

    A shard is a file of compressed chunks, then place and length of each, then the CRC32C of
    that table. Writing it through zarr, a whole shard at a time, takes three times as long
    and holds the shard in memory.

    Arguments:
        path: Folder of the array, which must not be there yet.
        frame_shape: Shape of a frame.
        chunk: Frames that are compressed together.
        chunks: Chunks of a shard.

    Source: *Zarr core specification 3*, codec ``sharding_indexed`` 1.0.
    """

    def __init__(
        self, path: Path, frame_shape: tuple[int, ...], *, chunk: int, chunks: int
    ) -> None:
        import numcodecs  # type: ignore[import-untyped]

        path.mkdir(parents=True)
        self.path, self.frame_shape, self.chunk, self.chunks = path, frame_shape, chunk, chunks
        self.frames, self.bytes = 0, 0
        self._codec = numcodecs.Zstd(level=_LEVEL, checksum=True)
        self._table: list[tuple[int, int]] = []
        self._shards = 0
        self._file: IO[bytes] | None = None

    def add(self, frames: Sequence[Pixels]) -> None:
        """Append a chunk; all but the last one must be full."""
        full = np.zeros((self.chunk, *self.frame_shape), np.uint8)
        np.stack(frames, out=full[: len(frames)])
        content = self._codec.encode(full)
        file = self._file = self._file or self._next_shard()
        self._table.append((file.tell(), len(content)))
        file.write(content)
        self.frames += len(frames)
        if len(self._table) == self.chunks:
            self._end_shard()

    def close(self, attributes: Mapping[str, Any]) -> None:
        """End the last shard and write the array's header, without which nothing is read."""
        import zarr
        from zarr.codecs import ZstdCodec

        self._end_shard()
        zarr.create_array(
            self.path,
            shape=(self.frames, *self.frame_shape),
            chunks=(self.chunk, *self.frame_shape),
            shards=(self.chunk * self.chunks, *self.frame_shape),
            dtype=np.uint8,
            compressors=ZstdCodec(level=_LEVEL, checksum=True),
            attributes={**attributes, "bytes": self.bytes},
        )

    def abandon(self) -> None:
        """Let go of the file that is open."""
        if self._file:
            self._file.close()

    def _next_shard(self) -> IO[bytes]:
        place = self.path.joinpath("c", str(self._shards), *"0" * len(self.frame_shape))
        place.parent.mkdir(parents=True)
        self._shards += 1
        return place.open("wb")

    def _end_shard(self) -> None:
        if self._file is None:
            return
        import google_crc32c

        table = np.full((self.chunks, 2), _NOT_THERE, "<u8")
        table[: len(self._table)] = self._table
        index = table.tobytes()
        self._file.write(index + int(google_crc32c.value(index)).to_bytes(4, "little"))
        self.bytes += self._file.tell()
        self._file.close()
        self._file, self._table = None, []
