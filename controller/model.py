"""What the record holds: APIs and keys as users asked for them, and events still to be told."""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, Literal, Self

import orjson

from bus.events import ApiKeyIssued, ApiKeyRevoked, ApiPublished, ApiRetired, Event
from bus.resources.api_key import ApiKey
from bus.resources.rest_api import RestApi

State = Literal["deployed", "undeployed"]
REST_API = "RestApi"


@dataclass(frozen=True, slots=True)
class StoredApi:
    """One handle: the document as written, or the tombstone of one that was deleted."""

    handle: str
    revision: int  # counts the changes of this handle, also across a delete
    body: str  # the document as JSON, as the user wrote it; `{}` when retired
    display_name: str
    version: str
    context: str  # `$version` resolved
    state: State
    created_at: datetime
    updated_at: datetime
    deployed_at: datetime | None  # when it was last written to be deployed
    retired: bool = False

    @classmethod
    def written(
        cls, document: dict[str, Any], api: RestApi, now: datetime, before: Self | None
    ) -> Self:
        """The row after `document` (whose reading is `api`) replaced `before`."""
        live = before is not None and not before.retired
        deployed = api.spec.deployment_state == "deployed"
        return cls(
            handle=api.id,
            revision=before.revision + 1 if before else 1,
            body=orjson.dumps(document).decode(),
            display_name=api.spec.display_name,
            version=api.spec.version,
            context=api.spec.resolved_context,
            state=api.spec.deployment_state,
            created_at=before.created_at if before and live else now,
            updated_at=now,
            deployed_at=now if deployed else (before.deployed_at if before and live else None),
        )

    def tombstone(self, now: datetime) -> Self:
        """The row after a delete."""
        return replace(self, revision=self.revision + 1, body="{}", updated_at=now, retired=True)

    @property
    def served_context(self) -> str | None:
        """The context in lower case, as hosts of routers compare it; None if it is not served."""
        return None if self.retired or self.state != "deployed" else self.context.lower()

    def document(self) -> dict[str, Any]:
        """The resource as written."""
        document: dict[str, Any] = orjson.loads(self.body)
        return document

    def event(self) -> Event:
        """What the gateway is told about this row. Raises pydantic's ValidationError."""
        if self.retired:
            return ApiRetired(revision=self.revision, api_id=self.handle)
        api = RestApi.model_validate_json(self.body, by_name=False)
        return ApiPublished(revision=self.revision, api=api.rendered())


@dataclass(frozen=True, slots=True)
class StoredKey:
    """One key of one API, or the tombstone of one that was revoked."""

    revision: int
    key: ApiKey
    updated_at: datetime
    revoked: bool = False

    @property
    def identity(self) -> tuple[str, str, str]:
        """Kind and handle of the API, name of the key."""
        return (self.key.api_kind, self.key.api_id, self.key.name)

    def tombstone(self, now: datetime) -> Self:
        """The row after it was revoked."""
        return replace(self, revision=self.revision + 1, updated_at=now, revoked=True)

    def event(self) -> Event:
        """What the gateway is told about this row."""
        if self.revoked:
            kind, handle, name = self.identity
            return ApiKeyRevoked(revision=self.revision, api_kind=kind, api_id=handle, name=name)
        return ApiKeyIssued(revision=self.revision, api_key=self.key)


@dataclass(frozen=True, slots=True)
class ApiFilter:
    """Which APIs a listing shows; None does not filter."""

    display_name: str | None = None
    version: str | None = None
    context: str | None = None  # with `$version` resolved
    state: str | None = None

    def admits(self, api: StoredApi) -> bool:
        """Whether the listing shows `api`."""
        return not api.retired and all(
            wanted is None or wanted == actual
            for wanted, actual in (
                (self.display_name, api.display_name),
                (self.version, api.version),
                (self.context, api.context),
                (self.state, api.state),
            )
        )


@dataclass(frozen=True, slots=True)
class Counts:
    """How much is on record, without what was deleted."""

    deployed: int
    undeployed: int
    keys: int
    resources: Mapping[str, int] = field(default_factory=dict)  # by kind; none: not there


@dataclass(frozen=True, slots=True)
class Outgoing:
    """One event that was committed with a change and is still to be told."""

    number: int  # position in the outbox
    event_id: str  # stays the same however often it is told
    kind: str
    body: bytes  # JSON


def called(rows: Iterable[StoredKey], names: Collection[str]) -> list[StoredKey]:
    """Live keys whose application is one of `names`, oldest first."""
    found = [row for row in rows if not row.revoked and row.key.application in names]
    return sorted(found, key=lambda row: (row.key.created_at or row.updated_at, row.identity))
