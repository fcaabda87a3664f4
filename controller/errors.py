"""What can go wrong in the controller.

* ControllerError
  - Refused                 the caller's fault; carries the HTTP status and the message
    - ParseFailed           400: the body is not JSON or YAML
    - Invalid               400: the body is not the resource it should be, field by field
    - Unauthenticated       401
    - Forbidden             403
    - NotFound              404
    - Conflict              409
    - Superseded            412: `If-Match` names another revision
    - TooLarge              413
  - UsageUnavailable        503: what was served cannot be read
  - StorageError
    - Raced                 somebody else wrote first: do it again
    - StorageUnavailable    transient: 503, back off and retry
    - StorageUnusable       at start: the operator has to act
      - SchemaTooNew        the database was written by a newer version
  - AddressUnusable         at start: the address is not ours, or the port is not allowed
    - PortTaken             at start: another process listens there
  - InvalidPasswordHash     at start: a configured password hash cannot be read
"""

from collections.abc import Sequence
from http import HTTPStatus
from typing import ClassVar

from bus.resources.faults import FieldFault


class ControllerError(Exception):
    """Anything the controller refuses or cannot do."""


class Refused(ControllerError):
    """The request cannot be done as it stands; `str()` is what the caller is told."""

    status: ClassVar[HTTPStatus]


class ParseFailed(Refused):
    """The body is neither JSON nor YAML."""

    status = HTTPStatus.BAD_REQUEST

    def __init__(self, reason: str) -> None:
        super().__init__(f"Failed to parse configuration: {reason}")


class Invalid(Refused):
    """The body is not the resource it should be."""

    status = HTTPStatus.BAD_REQUEST

    def __init__(self, message: str, faults: Sequence[FieldFault] = ()) -> None:
        super().__init__(message)
        self.faults = tuple(faults)


class Unauthenticated(Refused):
    """Nobody known is asking."""

    status = HTTPStatus.UNAUTHORIZED


class Forbidden(Refused):
    """The user may not do this."""

    status = HTTPStatus.FORBIDDEN


class NotFound(Refused):
    """There is no such thing."""

    status = HTTPStatus.NOT_FOUND


class Conflict(Refused):
    """Something that exists is in the way."""

    status = HTTPStatus.CONFLICT


class Superseded(Refused):
    """The caller's precondition names a revision that is not the current one."""

    status = HTTPStatus.PRECONDITION_FAILED


class TooLarge(Refused):
    """The body is larger than allowed."""

    status = HTTPStatus.REQUEST_ENTITY_TOO_LARGE

    def __init__(self, limit_bytes: int) -> None:
        super().__init__(f"The request body is larger than {limit_bytes} bytes")


class UsageUnavailable(ControllerError):
    """What was served cannot be read right now, or is not counted here."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"usage is unavailable: {reason}")
        self.reason = reason


class StorageError(ControllerError):
    """Anything about the record of what users asked for."""


class Raced(StorageError):
    """Another writer was first; the unit of work is rolled back."""


class StorageUnavailable(StorageError):
    """The record did not answer, or refused to write, for now."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"the record is unavailable: {reason}")
        self.reason = reason


class StorageUnusable(StorageError):
    """The record cannot be opened; the message is one sentence for the operator."""


class SchemaTooNew(StorageUnusable):
    """The database was written by a newer version of this program."""

    def __init__(self, where: str, found: int, known: int) -> None:
        super().__init__(
            f"the database {where} has schema version {found}, this program knows up to {known}: "
            "start the newer version that wrote it, or give another database"
        )
        self.found = found
        self.known = known


class AddressUnusable(ControllerError):
    """An address that the controller needs cannot be listened on."""

    def __init__(self, address: str, port: int, setting: str, reason: str) -> None:
        super().__init__(f"port {port} on {address} cannot be opened ({setting}): {reason}")
        self.address = address
        self.port = port
        self.setting = setting


class PortTaken(AddressUnusable):
    """Another process listens there."""

    def __init__(self, address: str, port: int, setting: str) -> None:
        super().__init__(address, port, setting, "it is taken")
        self.args = (
            f"port {port} on {address} is taken by another process: free it, or set {setting}",
        )


class InvalidPasswordHash(ControllerError):
    """A configured password hash is of a known kind but cannot be read."""

    def __init__(self, user: str, reason: str) -> None:
        super().__init__(f"the password hash of user {user!r} cannot be read: {reason}")
        self.user = user
