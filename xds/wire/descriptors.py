"""Envoy's API as one file of descriptors, and a private pool that is filled as types are asked for.

The file holds all of Envoy's API, 559 .proto files; a gateway uses about a fifth of them. Only
the files a message needs are parsed: the index comes from a walk over the raw bytes.
"""

import mmap
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from google.protobuf import descriptor_pool, message_factory
from google.protobuf.descriptor import Descriptor

from xds.wire.errors import UnknownMessage
from xds.wire.varint import fields

VERSION = "1.40.0"
FILE = Path(__file__).parent / f"envoy-{VERSION}.binpb"

# Fields of FileDescriptorSet, FileDescriptorProto and DescriptorProto.
_SET_FILE = 1
_FILE_NAME, _FILE_PACKAGE, _FILE_DEPENDENCY, _FILE_MESSAGE = 1, 2, 3, 4
_MESSAGE_NAME = 1


class _File(NamedTuple):
    start: int
    end: int
    dependencies: tuple[str, ...]


class Descriptors:
    """The types of one descriptor set file."""

    def __init__(self, path: Path) -> None:
        with path.open("rb") as file:
            self._bytes = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        self.pool = descriptor_pool.DescriptorPool()
        self._files: dict[str, _File] = {}
        self._home: dict[str, str] = {}  # top-level message -> the file that defines it
        self._loaded: set[str] = set()
        self._index()

    def _index(self) -> None:
        data = self._bytes[:]
        for number, start, end in fields(data, 0, len(data)):
            if number != _SET_FILE:
                continue
            name = package = ""
            dependencies: list[str] = []
            for field, first, last in fields(data, start, end):
                if field == _FILE_NAME:
                    name = data[first:last].decode()
                elif field == _FILE_PACKAGE:
                    package = data[first:last].decode() + "."
                elif field == _FILE_DEPENDENCY:
                    dependencies.append(data[first:last].decode())
                elif field == _FILE_MESSAGE:
                    # name is the first field of a message, as protoc writes them
                    _, begin, stop = next(fields(data, first, last))
                    self._home[package + data[begin:stop].decode()] = name
            self._files[name] = _File(start, end, tuple(dependencies))

    def _load(self, name: str) -> None:
        if name in self._loaded:
            return
        file = self._files[name]
        for dependency in file.dependencies:
            self._load(dependency)
        self.pool.AddSerializedFile(self._bytes[file.start : file.end])
        self._loaded.add(name)

    def names(self) -> list[str]:
        """The full names of all top-level messages."""
        return sorted(self._home)

    def message(self, full_name: str) -> Descriptor:
        """The descriptor of a message, nested ones included. Raises UnknownMessage."""
        home = full_name
        while home not in self._home:
            home, _, nested = home.rpartition(".")
            if not nested:
                raise UnknownMessage(full_name)
        self._load(self._home[home])
        try:
            return self.pool.FindMessageTypeByName(full_name)
        except KeyError:
            raise UnknownMessage(full_name) from None

    def message_class(self, full_name: str) -> type[Any]:
        """The class of a message. Raises UnknownMessage."""
        return message_factory.GetMessageClass(self.message(full_name))


@lru_cache(maxsize=1)
def envoy_descriptors() -> Descriptors:
    """Envoy's own API; read once per process, a few milliseconds."""
    return Descriptors(FILE)
