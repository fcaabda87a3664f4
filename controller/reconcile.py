"""Making the record and the bus agree: for each row the higher revision wins.

* The bus came back empty, or the record is ahead: the bus is told.
* The record does not outlive the process (Basic), or is behind (a restored backup): it takes over
  what the bus has. Nothing that was ever accepted is lost by starting with the wrong database.
* Both have the same revision but not the same content: the record wins, with a new revision.
"""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, TypeVar

import structlog
from pydantic import ValidationError

from bus.errors import UnknownEvent
from bus.events import (
    ApiKeyIssued,
    ApiKeyRevoked,
    ApiPublished,
    ApiRetired,
    Event,
    event_class,
)
from bus.resources.api_key import ApiKey
from bus.subjects import Family, pattern
from controller.model import StoredApi, StoredKey
from controller.ports import ControllerBus, Record, UnitOfWork
from controller.resources import KINDS, AnyResource, Identity, ResourceEvent, row_of

log = structlog.get_logger()

_AT_ONCE = 64  # events on their way to the broker
_READ_AT_ONCE = 500  # rows of the outbox

ApiEvent = ApiPublished | ApiRetired
KeyEvent = ApiKeyIssued | ApiKeyRevoked
_Key = TypeVar("_Key", str, tuple[str, str, str], Identity)
_Event = TypeVar("_Event", ApiEvent, KeyEvent, ResourceEvent)
KeyIdentity = tuple[str, str, str]  # kind and handle of the API, name of the key
Row = StoredApi | StoredKey | AnyResource


@dataclass(frozen=True, slots=True)
class Reconciliation:
    """What was done."""

    apis: int  # live APIs on record afterwards
    published: int  # rows the bus was told of
    adopted: int  # rows the record took over or gave a new revision


@dataclass(frozen=True, slots=True)
class Told:
    """The state that the bus has."""

    apis: Mapping[str, ApiEvent]
    keys: Mapping[KeyIdentity, KeyEvent]
    resources: Mapping[Identity, ResourceEvent]

    def revision(self, row: Row) -> int:
        """The revision of `row` that the bus has, 0 for none."""
        event: ApiEvent | KeyEvent | ResourceEvent | None
        if isinstance(row, StoredApi):
            event = self.apis.get(row.handle)
        elif isinstance(row, StoredKey):
            event = self.keys.get(row.identity)
        else:
            event = self.resources.get(row.identity)
        return event.revision if event else 0


async def reconcile(record: Record, bus: ControllerBus) -> Reconciliation:
    """Compare, adopt, publish. Raises BusUnavailable, StorageError.

    What waits in the outbox is not published here: the relay does that, in order. Therefore the
    outbox must hold nothing that the bus has already.
    """
    told = await _told(bus)
    adopted = await _adopt(record, told, datetime.now(UTC))
    known: dict[object, int] = {}
    while True:
        apis, keys, resources = await record.everything()
        rows: list[Row] = [*apis, *keys, *resources]
        waiting = await _waiting(record)  # read after the rows, so that none is missed
        behind = [
            row
            for row in rows
            if row.revision > known.get(_id(row), told.revision(row)) and _id(row) not in waiting
        ]
        if not behind:
            live = sum(not api.retired for api in apis)
            return Reconciliation(live, len(known), adopted)
        await _publish(bus, behind)
        known |= {_id(row): row.revision for row in behind}


def _id(row: Row) -> object:
    return row.handle if isinstance(row, StoredApi) else row.identity


async def _waiting(record: Record) -> set[object]:
    found: set[object] = set()
    seen: list[int] = []
    while batch := await record.pending(_READ_AT_ONCE, seen):
        seen.extend(one.number for one in batch)
        for one in batch:
            try:
                event = event_class(one.kind).model_validate_json(one.body)
            except (UnknownEvent, ValidationError):
                continue  # the relay reports it
            found.add(_of(event))
    return found


def _of(event: Event) -> object:
    """What `event` is about, as `_id` names rows."""
    if isinstance(event, ApiPublished | ApiRetired):
        return event.key[-1]
    if isinstance(event, ApiKeyIssued | ApiKeyRevoked):
        return event.key[1:]
    return event.key


async def _told(bus: ControllerBus) -> Told:
    apis: dict[str, ApiEvent] = {}
    keys: dict[KeyIdentity, KeyEvent] = {}
    resources: dict[Identity, ResourceEvent] = {}
    kinds = ("rest-api", "api-key", *KINDS.values())
    of_interest = (pattern(Family.STATE, kind, ">") for kind in kinds)
    async with bus.follow(*of_interest) as feed:
        left = feed.backlog
        events = aiter(feed)
        while left > 0:
            event = await anext(events)
            left -= 1
            if isinstance(event, ApiPublished | ApiRetired):
                _keep_newer(apis, event.key[-1], event)
            elif isinstance(event, ApiKeyIssued | ApiKeyRevoked):
                kind, handle, name = event.key[1:]
                _keep_newer(keys, (kind, handle, name), event)
            elif isinstance(event, ResourceEvent):
                _keep_newer(resources, event.key, event)
    return Told(apis, keys, resources)


def _keep_newer(events: dict[_Key, _Event], key: _Key, event: _Event) -> None:
    if key not in events or events[key].revision < event.revision:
        events[key] = event


async def _publish(bus: ControllerBus, rows: Sequence[Row]) -> None:
    for start in range(0, len(rows), _AT_ONCE):
        events = [_event(row) for row in rows[start : start + _AT_ONCE]]
        answers = await asyncio.gather(
            *(bus.publish(event) for event in events if event is not None), return_exceptions=True
        )
        for answer in answers:
            if isinstance(answer, BaseException):
                raise answer


def _event(row: Row) -> Event | None:
    try:
        return row.event()
    except ValidationError as error:
        log.exception("row on record is not valid any more", row=_id(row), reason=str(error))
        return None


async def _adopt(record: Record, told: Told, now: datetime) -> int:
    """Take over, in one unit, what the bus has and the record has not. How many rows."""
    apis, keys, resources = await record.everything()
    rows = {api.handle: api for api in apis}
    key_rows = {key.identity: key for key in keys}
    resource_rows = {row.identity: row for row in resources}
    newer_apis = {
        handle: event
        async for handle, event in _in_turns(told.apis)
        if _differs(rows.get(handle), event)
    }
    newer_keys = {
        identity: event
        async for identity, event in _in_turns(told.keys)
        if _differs(key_rows.get(identity), event)
    }
    newer_resources = {
        identity: event
        async for identity, event in _in_turns(told.resources)
        if _differs(resource_rows.get(identity), event)
    }
    if not (newer_apis or newer_keys or newer_resources):
        return 0
    if record.durable:
        log.warning(
            "the bus knows revisions that the record does not: taking them over",
            apis=sorted(newer_apis),
            keys=len(newer_keys),
            others=len(newer_resources),
        )

    def work(unit: UnitOfWork) -> int:
        _adopt_apis(unit, newer_apis, now)
        for identity, event in newer_keys.items():
            _adopt_key(unit, key_rows.get(identity), event, now)
        _adopt_resources(unit, resource_rows, newer_resources, now)
        return len(newer_apis) + len(newer_keys) + len(newer_resources)

    return await record.change(work)


async def _in_turns(events: Mapping[_Key, _Event]) -> AsyncIterator[tuple[_Key, _Event]]:
    """All of `events`; others have a turn between some."""
    for number, item in enumerate(events.items()):
        if number % _AT_ONCE == 0:
            await asyncio.sleep(0)
        yield item


def _differs(row: Row | None, event: ApiEvent | KeyEvent | ResourceEvent) -> bool:
    if row is None or row.revision < event.revision:
        return True
    ours = _event(row) if row.revision == event.revision else None
    address = {"org": event.org, "gateway": event.gateway}  # not what the row is about
    return ours is not None and ours.model_copy(update=address) != event


def _adopt_apis(unit: UnitOfWork, events: Mapping[str, ApiEvent], now: datetime) -> None:
    before = {handle: unit.hold(handle) for handle in events}
    for handle, row in before.items():
        if row is not None and not row.retired and row.revision < events[handle].revision:
            unit.put_api(replace(row, retired=True))  # names may have moved between APIs
    for handle, event in events.items():
        row = before[handle]
        if row is not None and row.revision > event.revision:
            continue  # written since we looked
        if row is not None and row.revision == event.revision:  # the record wins
            row = replace(row, revision=row.revision + 1, updated_at=now)
            unit.put_api(row)
            unit.tell(row.event())
            continue
        unit.put_api(_api(unit, event, row, now))


def _api(unit: UnitOfWork, event: ApiEvent, before: StoredApi | None, now: datetime) -> StoredApi:
    match event:
        case ApiRetired(revision=revision, api_id=handle):
            if before is not None:
                return replace(before, body="{}", revision=revision, updated_at=now, retired=True)
            return StoredApi(
                handle, revision, "{}", handle[:100], "-", "/", "undeployed", now, now, None, True
            )
        case ApiPublished(revision=revision, api=api):
            document = api.model_dump(mode="json", by_alias=True, exclude_defaults=True)
            row = replace(StoredApi.written(document, api, now, before), revision=revision)
            holder = unit.named(row.display_name, row.version)
            if holder in (None, row.handle):
                return row
            log.error("two APIs of one name: this one is retired", api=api.id, other=holder)
            row = row.tombstone(now)
            unit.tell(row.event())
            return row


def _adopt_key(unit: UnitOfWork, before: StoredKey | None, event: KeyEvent, now: datetime) -> None:
    if before is not None and before.revision == event.revision:  # the record wins
        row = replace(before, revision=before.revision + 1, updated_at=now)
        unit.put_key(row)
        unit.tell(row.event())
        return
    match event:
        case ApiKeyIssued(revision=revision, api_key=key):
            unit.put_key(StoredKey(revision, key, now))
        case ApiKeyRevoked(revision=revision, api_kind=kind, api_id=handle, name=name):
            facts: dict[str, Any] = {"api_kind": kind, "api_id": handle, "name": name}
            key = before.key if before else ApiKey(**facts, digest="", application=name)
            unit.put_key(StoredKey(revision, key, now, revoked=True))


def _adopt_resources(
    unit: UnitOfWork,
    rows: Mapping[Identity, AnyResource],
    events: Mapping[Identity, ResourceEvent],
    now: datetime,
) -> None:
    for identity in events:
        before = rows.get(identity)
        if before is not None and not before.retired:
            unit.put_resource(replace(before, retired=True))  # names may have moved between them
    for identity, event in events.items():
        before = rows.get(identity)
        if before is not None and before.revision == event.revision:  # the record wins
            row = replace(before, revision=before.revision + 1, updated_at=now)
            unit.put_resource(row)
            unit.tell(row.event())
            continue
        row = row_of(event, before, now)
        holder = unit.resource_named(type(row.resource), *row.unique)
        if not row.retired and holder not in (None, row.resource.id):
            log.error("two of one name: this one is retired", row=identity, other=holder)
            row = row.tombstone(now)
            unit.tell(row.event())
        unit.put_resource(row)
