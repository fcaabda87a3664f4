"""What can go wrong on a connection from Envoy.

* H2Error
  - ConnectionFailed    the peer broke a rule of the connection: GOAWAY with this code, then closed
  - StreamFailed        the peer broke a rule of one stream: RST_STREAM with this code
* RpcRefused            raised by handlers: the call ends with this gRPC status and message
"""

from xds.wire.h2.frames import ErrorCode


class H2Error(Exception):
    """A rule of HTTP/2 was broken by the peer."""

    def __init__(self, code: ErrorCode, reason: str) -> None:
        super().__init__(f"{code.name}: {reason}")
        self.code = code
        self.reason = reason


class ConnectionFailed(H2Error):
    """Nothing more can be understood on this connection.

    Source: https://www.rfc-editor.org/rfc/rfc9113.html#section-5.4.1
    """


class StreamFailed(H2Error):
    """One stream is over, the connection goes on.

    Source: https://www.rfc-editor.org/rfc/rfc9113.html#section-5.4.2
    """

    def __init__(self, stream_id: int, code: ErrorCode, reason: str) -> None:
        super().__init__(code, reason)
        self.stream_id = stream_id


class RpcRefused(Exception):
    """A handler answers its call with a gRPC status other than 0."""

    def __init__(self, status: int, message: str = "") -> None:
        super().__init__(f"grpc-status {int(status)}: {message}")
        self.status = int(status)
        self.message = message
