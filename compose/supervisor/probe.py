"""Asking a process on this machine whether it works. One attempt, bounded in time."""

import os
import socket

from compose.supervisor.plan import Probe

_TIMEOUT_S = 0.25


def answers(probe: Probe) -> bool:
    """Whether `probe` says yes now."""
    if probe.kind == "file":
        return os.path.exists(probe.target)  # noqa: PTH110 - pathlib costs half a megabyte here
    if probe.kind == "unix":
        return _connects(socket.AF_UNIX, probe.target)
    address, _, path = probe.target.partition("/")
    host, _, port = address.rpartition(":")
    if probe.kind == "tcp":
        return _connects(socket.AF_INET, (host, int(port)))
    status, _ = http(host, int(port), "GET", "/" + path)
    return status == 200


def _connects(family: int, address: str | tuple[str, int]) -> bool:
    with socket.socket(family, socket.SOCK_STREAM) as connection:
        connection.settimeout(_TIMEOUT_S)
        return connection.connect_ex(address) == 0


def http(host: str, port: int, method: str, path: str) -> tuple[int, str]:
    """Status and body of one request; status 0 when nobody answers."""
    lines = (f"{method} {path} HTTP/1.1", f"host: {host}", "connection: close", "content-length: 0")
    request = "\r\n".join((*lines, "", ""))
    parts: list[bytes] = []
    try:
        with socket.create_connection((host, port), timeout=_TIMEOUT_S) as connection:
            connection.sendall(request.encode())
            while part := connection.recv(65536):
                parts.append(part)
    except OSError:
        return 0, ""
    head, _, body = b"".join(parts).partition(b"\r\n\r\n")
    words = head.split(None, 2)
    if len(words) < 2 or not words[1].isdigit():
        return 0, ""
    if b"transfer-encoding: chunked" in head.lower():
        body = _joined(body)
    return int(words[1]), body.decode("utf-8", "replace")


def _joined(chunked: bytes) -> bytes:
    """A chunked body without its frames."""
    parts = []
    while chunked:
        size, _, chunked = chunked.partition(b"\r\n")
        length = int(size.partition(b";")[0], 16)
        if not length:
            break
        parts.append(chunked[:length])
        chunked = chunked[length + 2 :]
    return b"".join(parts)
