"""A worker asleep: a bare process that waits until a Python policy is used. Standard library only.

It costs about 10 MB; awake, with protobuf, pydantic and all policies, a worker has six times that.

Messages between the engine and its workers are JSON, each behind its length in four bytes.
"""

import json
import os
import socket
import struct
import time

LENGTH = struct.Struct(">L")
_RETRY_S = 0.1
_PATIENCE_S = 5.0  # without the engine, before what is on file counts


def wait(feed: str, file: str, number: int) -> None:
    """Return when there is a hop to run: told by the engine at `feed`, or on `file` without it."""
    began = time.monotonic()
    while True:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            try:
                connection.connect(feed)
                connection.sendall(framed({"worker": number, "pid": os.getpid(), "asleep": True}))
                if _told_of_hops(connection):
                    return
            except OSError:
                pass  # the engine is not there yet, or any more
        if time.monotonic() - began > _PATIENCE_S and _on_file(file):
            return
        time.sleep(_RETRY_S)


def framed(message: object) -> bytes:
    """`message` as it is sent."""
    body = json.dumps(message).encode()
    return LENGTH.pack(len(body)) + body


def _told_of_hops(connection: socket.socket) -> bool:
    """True once a message holds hops; False when the connection ends."""
    while True:
        head = _exactly(connection, LENGTH.size)
        body = _exactly(connection, LENGTH.unpack(head)[0]) if head else b""
        if not body:
            return False
        if json.loads(body).get("hops"):
            return True


def _exactly(connection: socket.socket, size: int) -> bytes:
    """That many bytes; none when the connection ends before."""
    data = bytearray()
    while len(data) < size:
        part = connection.recv(size - len(data))
        if not part:
            return b""
        data += part
    return bytes(data)


def _on_file(file: str) -> bool:
    try:
        with open(file, encoding="utf-8") as text:  # noqa: PTH123 - no pathlib in this process
            return bool(json.load(text).get("hops"))
    except (OSError, ValueError):
        return False
