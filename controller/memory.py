"""The record in memory (Basic): nothing is stored, the bus gives it back after a restart."""

import asyncio
import uuid
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Sequence
from itertools import islice
from typing import cast

from bus.events import Event
from controller.model import REST_API, ApiFilter, Counts, Outgoing, StoredApi, StoredKey, called
from controller.ports import Everything, Result, UnitOfWork
from controller.resources import KINDS, AnyResource, R, Resource, ResourceFilter, StoredResource


def matching(
    rows: Iterable[AnyResource], model: type[R], wanted: ResourceFilter
) -> list[StoredResource[R]]:
    """Those of `rows` that are of that kind and pass the filter, oldest first."""
    found = [row for row in rows if isinstance(row.resource, model) and wanted.admits(row)]
    found.sort(key=lambda row: (row.created_at, row.resource.id))
    return found


class MemoryUnit:
    """One change; what it writes is seen by nobody until it is committed."""

    def __init__(self, record: "MemoryRecord") -> None:
        self._record = record
        self.apis: dict[str, StoredApi] = {}
        self._names: dict[tuple[str, str], str] = {}  # of what is written here
        self.written_keys: dict[tuple[str, str, str], StoredKey] = {}
        self.written_resources: dict[tuple[str, str], AnyResource] = {}
        self.events: list[Event] = []

    def hold(self, handle: str) -> StoredApi | None:
        """See UnitOfWork; one writer at a time, so that every row is held."""
        return self.apis.get(handle) or self._record.api_rows.get(handle)

    def named(self, display_name: str, version: str) -> str | None:
        """See UnitOfWork."""
        handle = self._names.get((display_name, version))
        if handle is not None:
            return handle
        handle = self._record.names.get((display_name, version))
        return None if handle in self.apis else handle

    def on_context(self, context: str) -> tuple[StoredApi, ...]:
        """See UnitOfWork."""
        folded = context.lower()
        there = self._record.contexts.get(folded, {})
        rows = [row for handle, row in there.items() if handle not in self.apis]
        rows += [row for row in self.apis.values() if row.served_context == folded]
        return tuple(rows)

    def put_api(self, api: StoredApi) -> None:
        """See UnitOfWork."""
        before = self.apis.get(api.handle)
        if before is not None and not before.retired:
            self._names.pop((before.display_name, before.version), None)
        self.apis[api.handle] = api
        if not api.retired:
            self._names[api.display_name, api.version] = api.handle

    def keys(self, handle: str) -> tuple[StoredKey, ...]:
        """See UnitOfWork."""
        rows = dict(self._record.key_rows.get((REST_API, handle), {}))
        for (kind, api, name), row in self.written_keys.items():
            if (kind, api) == (REST_API, handle):
                rows[name] = row
        return tuple(rows.values())

    def put_key(self, key: StoredKey) -> None:
        """See UnitOfWork."""
        self.written_keys[key.identity] = key

    def hold_resource(self, model: type[R], name: str) -> StoredResource[R] | None:
        """See UnitOfWork."""
        place = (KINDS[model], name)
        found = self.written_resources.get(place) or self._record.resource_rows.get(place)
        return cast("StoredResource[R] | None", found)

    def resource_named(self, model: type[Resource], *unique: str) -> str | None:
        """See UnitOfWork."""
        kind = KINDS[model]
        for row in self.written_resources.values():
            if row.kind == kind and row.unique == unique and not row.retired:
                return row.resource.id
        name = self._record.resource_names.get((kind, *unique))
        return None if name is None or (kind, name) in self.written_resources else name

    def resources(self, model: type[R], wanted: ResourceFilter) -> Sequence[StoredResource[R]]:
        """See UnitOfWork."""
        rows = self._record.resource_rows | self.written_resources
        return matching(rows.values(), model, wanted)

    def put_resource(self, row: AnyResource) -> None:
        """See UnitOfWork."""
        self.written_resources[row.kind, row.resource.id] = row

    def tell(self, event: Event) -> None:
        """See UnitOfWork."""
        self.events.append(event)


class MemoryRecord:
    """See `controller.ports.Record`."""

    durable = False

    def __init__(self) -> None:
        self.told = asyncio.Event()
        self.api_rows: dict[str, StoredApi] = {}
        self.key_rows: dict[tuple[str, str], dict[str, StoredKey]] = {}  # API -> name -> key
        self.names: dict[tuple[str, str], str] = {}  # display name, version -> handle
        # of those that are served, in lower case -> handle -> API
        self.contexts: dict[str, dict[str, StoredApi]] = {}
        self.resource_rows: dict[tuple[str, str], AnyResource] = {}  # by kind and id
        self.resource_names: dict[tuple[str, ...], str] = {}  # kind and unique facts -> id
        self._outbox: dict[int, Outgoing] = {}
        self._number = 0
        self._version = 0

    async def change(self, work: Callable[[UnitOfWork], Result]) -> Result:
        """See Record; nothing is awaited, so that units never overlap."""
        unit = MemoryUnit(self)
        result = work(unit)
        self._commit(unit)
        if unit.events:
            self.told.set()
        return result

    def _commit(self, unit: MemoryUnit) -> None:
        for api in unit.apis.values():
            before = self.api_rows.get(api.handle)
            if before is not None and not before.retired:
                del self.names[before.display_name, before.version]
            self._version += api.revision - (before.revision if before else 0)
            self.api_rows[api.handle] = api
            self._place(before, api)
        for api in unit.apis.values():
            if not api.retired:
                self.names[api.display_name, api.version] = api.handle
        for row in unit.written_keys.values():
            kind, handle, name = row.identity
            rows = self.key_rows.setdefault((kind, handle), {})
            self._version += row.revision - (rows[name].revision if name in rows else 0)
            rows[name] = row
        self._commit_resources(unit)
        for event in unit.events:
            self._number += 1
            body = event.model_dump_json(by_alias=True).encode()
            self._outbox[self._number] = Outgoing(self._number, str(uuid.uuid4()), event.kind, body)

    def _commit_resources(self, unit: MemoryUnit) -> None:
        for place, row in unit.written_resources.items():
            before = self.resource_rows.get(place)
            if before is not None and not before.retired:
                del self.resource_names[row.kind, *before.unique]
            self._version += row.revision - (before.revision if before else 0)
            self.resource_rows[place] = row
        for row in unit.written_resources.values():
            if not row.retired:
                self.resource_names[row.kind, *row.unique] = row.resource.id

    def _place(self, before: StoredApi | None, api: StoredApi) -> None:
        """Keep `contexts`."""
        left = None if before is None else before.served_context
        if left is not None:
            there = self.contexts[left]
            del there[api.handle]
            if not there:
                del self.contexts[left]
        if api.served_context is not None:
            self.contexts.setdefault(api.served_context, {})[api.handle] = api

    async def api(self, handle: str) -> StoredApi | None:
        """See Record."""
        return self.api_rows.get(handle)

    async def apis(self, wanted: ApiFilter) -> Sequence[StoredApi]:
        """See Record."""
        rows = [api for api in self.api_rows.values() if wanted.admits(api)]
        return sorted(rows, key=lambda api: (api.created_at, api.handle))

    async def keys(self, handle: str) -> Sequence[StoredKey]:
        """See Record."""
        rows = self.key_rows.get((REST_API, handle), {})
        return [row for row in rows.values() if not row.revoked]

    async def keys_called(self, names: Collection[str]) -> Sequence[StoredKey]:
        """See Record."""
        rows = (row for rows in self.key_rows.values() for row in rows.values())
        return called(rows, names)

    async def resource(self, model: type[R], name: str) -> StoredResource[R] | None:
        """See Record."""
        found = self.resource_rows.get((KINDS[model], name))
        return cast("StoredResource[R] | None", found)

    async def resources(
        self, model: type[R], wanted: ResourceFilter
    ) -> Sequence[StoredResource[R]]:
        """See Record."""
        return matching(self.resource_rows.values(), model, wanted)

    async def everything(self) -> Everything:
        """See Record."""
        keys = [row for rows in self.key_rows.values() for row in rows.values()]
        return list(self.api_rows.values()), keys, list(self.resource_rows.values())

    async def pending(self, limit: int, without: Collection[int] = ()) -> Sequence[Outgoing]:
        """See Record."""
        wanted = (one for number, one in self._outbox.items() if number not in without)
        return list(islice(wanted, limit))

    async def forget(self, numbers: Sequence[int]) -> None:
        """See Record."""
        for number in numbers:
            self._outbox.pop(number, None)

    async def counts(self) -> Counts:
        """See Record."""
        states = [api.state for api in self.api_rows.values() if not api.retired]
        keys = sum(not row.revoked for rows in self.key_rows.values() for row in rows.values())
        resources = Counter(row.kind for row in self.resource_rows.values() if not row.retired)
        return Counts(states.count("deployed"), states.count("undeployed"), keys, resources)

    async def version(self) -> int:
        """See Record."""
        return self._version

    async def close(self) -> None:
        """See Record."""
