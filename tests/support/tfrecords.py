"""TFRecords and BAIR's trajectories, written byte by byte as TensorFlow does."""

import struct

import google_crc32c
import numpy as np

FRAMES = 30


def varint(value: int) -> bytes:
    low = value & 127
    return bytes([low]) if value < 128 else bytes([low | 128]) + varint(value >> 7)


def field(number: int, content: bytes) -> bytes:
    """A length-delimited field of a protocol buffer."""
    return varint(number << 3 | 2) + varint(len(content)) + content


def example(features: dict[str, bytes | list[float]]) -> bytes:
    """``tf.train.Example`` of byte strings and lists of floats."""
    entries = b""
    for name, value in features.items():
        if isinstance(value, bytes):
            kind = field(1, field(1, value))  # bytes_list
        else:
            kind = field(2, field(1, struct.pack(f"<{len(value)}f", *value)))  # float_list, packed
        entries += field(1, field(1, name.encode()) + field(2, kind))
    return field(1, entries)


def masked(data: bytes) -> bytes:
    crc = google_crc32c.value(data)
    rotated = ((crc >> 15) | (crc << 17)) & 0xFFFFFFFF
    return struct.pack("<I", (rotated + 0xA282EAD8) % 2**32)


def framed(data: bytes) -> bytes:
    length = struct.pack("<Q", len(data))
    return length + masked(length) + data + masked(data)


def picture(trajectory: int, time: int) -> np.ndarray:
    """A frame (64, 64, 3) that tells which one it is, and which way up."""
    frame = np.zeros((64, 64, 3), dtype=np.uint8)
    frame[:32, :, 0], frame[:, :32, 1] = trajectory, time
    frame[..., 2] = np.arange(64)
    return frame


def trajectory(number: int, frames: int = FRAMES, size: int = 64) -> bytes:
    features: dict[str, bytes | list[float]] = {}
    for i in range(frames):
        features[f"{i}/image_aux1/encoded"] = picture(number, i)[:size].tobytes()
        features[f"{i}/image_main/encoded"] = bytes(64 * 64 * 3)
        features[f"{i}/endeffector_pos"] = [0.1 * i, 0.2, number]
        features[f"{i}/action"] = [0.1 * (i + 1), 0.2, 0.3, number]
    return example(features)
