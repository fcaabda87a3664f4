"""What the controller asks of the outside. Adapters: `controller.sql` and `controller.memory`."""

import asyncio
from collections.abc import Callable, Collection, Sequence
from typing import Protocol, TypeVar

from bus.events import Event
from bus.ports import Publisher, StateFollower
from bus.resources.rest_api import PolicyRef
from controller.model import ApiFilter, Counts, Outgoing, StoredApi, StoredKey
from controller.resources import AnyResource, R, Resource, ResourceFilter, StoredResource
from policy_engine.policy import Policy
from policy_engine.system import SystemParameters

Everything = tuple[Sequence[StoredApi], Sequence[StoredKey], Sequence[AnyResource]]


class UnitOfWork(Protocol):
    """One change: all of it is committed with the events it tells, or nothing.

    Any method may raise Raced (the whole unit is done again) or StorageUnavailable.
    """

    def hold(self, handle: str) -> StoredApi | None:
        """The row of `handle`, tombstones too, kept from other writers until the unit ends."""
        ...

    def named(self, display_name: str, version: str) -> str | None:
        """The handle of the live API of this name and version."""
        ...

    def on_context(self, context: str) -> Sequence[StoredApi]:
        """The deployed APIs on `context` (resolved) in upper or lower case.

        No other unit that asks for the same context goes on until this one ends.
        """
        ...

    def put_api(self, api: StoredApi) -> None:
        """Insert or replace the row of its handle."""
        ...

    def keys(self, handle: str) -> tuple[StoredKey, ...]:
        """All keys of a held API, revoked ones too, oldest first."""
        ...

    def put_key(self, key: StoredKey) -> None:
        """Insert or replace the row of its identity; its API must be held."""
        ...

    def hold_resource(self, model: type[R], name: str) -> StoredResource[R] | None:
        """The row of that id, tombstones too, kept from other writers until the unit ends."""
        ...

    def resource_named(self, model: type[Resource], *unique: str) -> str | None:
        """The id of the live one with these unique facts (`StoredResource.unique`)."""
        ...

    def resources(self, model: type[R], wanted: ResourceFilter) -> Sequence[StoredResource[R]]:
        """Live ones that pass the filter, oldest first."""
        ...

    def put_resource(self, row: AnyResource) -> None:
        """Insert or replace the row of its id."""
        ...

    def tell(self, event: Event) -> None:
        """Put `event` into the outbox: it is told if and only if the unit is committed."""
        ...


Result = TypeVar("Result")


class Record(Protocol):
    """What users asked for. Everything may raise StorageUnavailable."""

    durable: bool
    """Whether it outlives the process; if not, it is read back from the bus."""

    told: asyncio.Event
    """Set whenever a committed unit has left something in the outbox."""

    async def change(self, work: Callable[[UnitOfWork], Result]) -> Result:
        """Run `work` as one unit and commit it; what it raises rolls it back.

        `work` decides only by what it reads from its unit: it may run in another thread, and
        again when another writer was first. Raises Raced when that does not end.
        """
        ...

    async def api(self, handle: str) -> StoredApi | None:
        """The row of `handle`, tombstones too."""
        ...

    async def apis(self, wanted: ApiFilter) -> Sequence[StoredApi]:
        """Live APIs, oldest first."""
        ...

    async def keys(self, handle: str) -> Sequence[StoredKey]:
        """Live keys of an API, oldest first."""
        ...

    async def keys_called(self, names: Collection[str]) -> Sequence[StoredKey]:
        """Live keys of all APIs whose application is one of `names`, oldest first."""
        ...

    async def resource(self, model: type[R], name: str) -> StoredResource[R] | None:
        """The row of that id, tombstones too."""
        ...

    async def resources(
        self, model: type[R], wanted: ResourceFilter
    ) -> Sequence[StoredResource[R]]:
        """Live ones that pass the filter, oldest first."""
        ...

    async def everything(self) -> Everything:
        """All rows, tombstones too; not of one moment when others write."""
        ...

    async def pending(self, limit: int, without: Collection[int] = ()) -> Sequence[Outgoing]:
        """What is still to be told, oldest first, except the numbers `without`."""
        ...

    async def forget(self, numbers: Sequence[int]) -> None:
        """Take what was told out of the outbox."""
        ...

    async def counts(self) -> Counts:
        """How much there is."""
        ...

    async def version(self) -> int:
        """The sum of all revisions: it grows with every change, and every fold can compute it."""
        ...

    async def close(self) -> None:
        """Let go of connections."""
        ...


class PolicyCatalogue(Protocol):
    """The policies that are loaded."""

    @property
    def system(self) -> SystemParameters:
        """What whoever runs the gateway tells them."""
        ...

    def parse(self, ref: PolicyRef) -> Policy:
        """The policy that `ref` names. Raises UnknownPolicy, InvalidParameters."""
        ...


class ControllerBus(Publisher, StateFollower, Protocol):
    """The part of the bus that the controller uses."""

    @property
    def connected(self) -> bool:
        """See `bus.ports.Bus`."""
        ...

    @property
    def epoch(self) -> int:
        """See `bus.ports.Bus`."""
        ...

    async def next_epoch(self, seen: int) -> int:
        """See `bus.ports.Bus`."""
        ...
