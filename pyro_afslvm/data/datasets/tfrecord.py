"""Reading of TFRecord files of ``tf.train.Example`` without TensorFlow, checksums checked."""

import struct
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

_HEADER, _FOOTER = struct.Struct("<QI"), struct.Struct("<I")


class Record(NamedTuple):
    """Place of a record's data in a file, and their masked CRC as stored."""

    offset: int
    length: int
    crc: int


def masked_crc(data: bytes) -> int:
    r"""CRC32C of the data, rotated and shifted as TFRecords store it.

    .. math:: (c \gg 15 \mid c \ll 17) + \mathrm{a282ead8}_{16} \bmod 2^{32}

    Example:
        >>> hex(masked_crc(b"123456789"))  # of the standard check value, e3069283
        '0xc78ab0e5'
    """
    import google_crc32c

    crc = int(google_crc32c.value(data))
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def index_records(path: Path) -> list[Record]:
    """Find all records of a file; reads their headers only.

    Raises:
        ValueError: A header is damaged or the file is cut short; names file and record.
    """
    records: list[Record] = []
    size = path.stat().st_size
    with path.open("rb") as file:
        position = 0
        while position < size:
            header = file.read(_HEADER.size)
            if len(header) < _HEADER.size:
                raise _damaged(path, len(records), "cut short in its header")
            length, crc = _HEADER.unpack(header)
            if masked_crc(header[:8]) != crc:
                raise _damaged(path, len(records), "its length has another checksum")
            offset = position + _HEADER.size
            position = offset + length + _FOOTER.size
            if position > size:
                missing = position - size
                raise _damaged(path, len(records), f"cut short, {missing:,} bytes are missing")
            file.seek(offset + length)
            (stored,) = _FOOTER.unpack(file.read(_FOOTER.size))
            records.append(Record(offset, length, stored))
    return records


def read_record(path: Path, record: Record, *, number: int) -> bytes:
    """Read the data of one record.

    Args:
        path: The file.
        record: Where the data lie.
        number: Of the record in the file, from 0, for messages.

    Raises:
        ValueError: The data have another checksum than is stored.
    """
    with path.open("rb") as file:
        file.seek(record.offset)
        data = file.read(record.length)
    if len(data) != record.length or masked_crc(data) != record.crc:
        raise _damaged(path, number, "its data have another checksum")
    return data


def read_features(path: Path, record: Record, names: Sequence[str], *, number: int) -> list[bytes]:
    """Read the named features of one record, each of a single string of bytes.

    Raises:
        ValueError: The record is damaged, is no ``tf.train.Example``, or lacks a feature.
    """
    features = _features(path, record, number)
    found = []
    for name in names:
        values: Sequence[bytes] = features[name].bytes_list.value if name in features else ()
        if len(values) != 1:
            raise _damaged(path, number, f"feature {name!r} is not there")
        found.append(bytes(values[0]))
    return found


def read_numbers(
    path: Path, record: Record, sizes: Mapping[str, int], *, number: int
) -> dict[str, list[float]]:
    """Read the named features of one record, each of so many floating point numbers.

    Args:
        path: The file.
        record: Its place there.
        sizes: Numbers of each feature, by name.
        number: Of the record, for messages.

    Raises:
        ValueError: The record is damaged, is no ``tf.train.Example``, or lacks a feature.
    """
    features = _features(path, record, number)
    found = {}
    for name, size in sizes.items():
        values = [*features[name].float_list.value] if name in features else []
        if len(values) != size:
            reason = f"feature {name!r} has {len(values)} numbers, expected {size}"
            raise _damaged(path, number, reason)
        found[name] = values
    return found


def _features(path: Path, record: Record, number: int) -> Any:
    """All features of a record, by name."""
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

    data = read_record(path, record, number=number)
    try:
        return _example_type().FromString(data).features.feature
    except DecodeError:
        raise _damaged(path, number, "no tf.train.Example") from None


def _damaged(path: Path, number: int, reason: str) -> ValueError:
    return ValueError(f"{path}: record {number}: {reason}")


# Messages of ``tf.train.Example`` to their fields: name, number, type (a message's name, else
# a scalar's) and whether it is repeated. Features of whole numbers are left out: they are skipped
# as unknown fields. The map of features is a message of its own in the wire format.
_ENTRY = "FeatureEntry"
_MESSAGES: dict[str, tuple[tuple[str, int, str, bool], ...]] = {
    "BytesList": (("value", 1, "TYPE_BYTES", True),),
    "FloatList": (("value", 1, "TYPE_FLOAT", True),),
    "Feature": (
        ("bytes_list", 1, ".e.BytesList", False),
        ("float_list", 2, ".e.FloatList", False),
    ),
    "Features": (("feature", 1, f".e.Features.{_ENTRY}", True),),
    _ENTRY: (("key", 1, "TYPE_STRING", False), ("value", 2, ".e.Feature", False)),
    "Example": (("features", 1, ".e.Features", False),),
}


@lru_cache(maxsize=1)
def _example_type() -> Any:
    """Make the message type ``tf.train.Example``, whose features hold bytes or real numbers."""
    from google.protobuf import (  # type: ignore[import-untyped]
        descriptor_pb2,
        descriptor_pool,
        message_factory,
    )

    file = descriptor_pb2.FileDescriptorProto(name="example.proto", package="e", syntax="proto3")
    for name, fields in _MESSAGES.items():
        if name == _ENTRY:  # inside Features, the message before
            message = file.message_type[-1].nested_type.add(name=name)
            message.options.map_entry = True
        else:
            message = file.message_type.add(name=name)
        for field in fields:
            _add_field(message, *field)
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("e.Example"))


def _add_field(message: Any, name: str, number: int, kind: str, repeated: bool) -> None:
    field = message.field.add(name=name, number=number)
    field.label = field.LABEL_REPEATED if repeated else field.LABEL_OPTIONAL
    if kind.startswith("."):
        field.type, field.type_name = field.TYPE_MESSAGE, kind
    else:
        field.type = getattr(field, kind)
