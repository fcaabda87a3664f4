"""A small, fast gRPC server for the calls that Envoy makes for every request.

It knows no protobuf: messages are bytes on both sides.
"""

from xds.wire.h2.errors import RpcRefused
from xds.wire.h2.limits import Counters, Limits
from xds.wire.h2.server import H2Server, serve_stream, serve_unary
from xds.wire.h2.status import Status
from xds.wire.h2.stream import Stream, StreamHandler

__all__ = [
    "Counters",
    "H2Server",
    "Limits",
    "RpcRefused",
    "Status",
    "Stream",
    "StreamHandler",
    "serve_stream",
    "serve_unary",
]
