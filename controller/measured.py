"""A record that counts and times what is asked of it."""

from collections.abc import Callable, Collection, Sequence

from controller.metrics import ControllerMetrics
from controller.model import ApiFilter, Counts, Outgoing, StoredApi, StoredKey
from controller.ports import Everything, Record, Result, UnitOfWork
from controller.resources import R, ResourceFilter, StoredResource


class MeasuredRecord:
    """See `controller.ports.Record`."""

    def __init__(self, record: Record, metrics: ControllerMetrics) -> None:
        self._record = record
        self._metrics = metrics
        self.durable = record.durable
        self.told = record.told

    async def change(self, work: Callable[[UnitOfWork], Result]) -> Result:
        """See Record."""
        with self._metrics.storage("change"):
            return await self._record.change(work)

    async def api(self, handle: str) -> StoredApi | None:
        """See Record."""
        with self._metrics.storage("api"):
            return await self._record.api(handle)

    async def apis(self, wanted: ApiFilter) -> Sequence[StoredApi]:
        """See Record."""
        with self._metrics.storage("apis"):
            return await self._record.apis(wanted)

    async def keys(self, handle: str) -> Sequence[StoredKey]:
        """See Record."""
        with self._metrics.storage("keys"):
            return await self._record.keys(handle)

    async def keys_called(self, names: Collection[str]) -> Sequence[StoredKey]:
        """See Record."""
        with self._metrics.storage("keys_called"):
            return await self._record.keys_called(names)

    async def resource(self, model: type[R], name: str) -> StoredResource[R] | None:
        """See Record."""
        with self._metrics.storage("resource"):
            return await self._record.resource(model, name)

    async def resources(
        self, model: type[R], wanted: ResourceFilter
    ) -> Sequence[StoredResource[R]]:
        """See Record."""
        with self._metrics.storage("resources"):
            return await self._record.resources(model, wanted)

    async def everything(self) -> Everything:
        """See Record."""
        with self._metrics.storage("everything"):
            return await self._record.everything()

    async def pending(self, limit: int, without: Collection[int] = ()) -> Sequence[Outgoing]:
        """See Record."""
        with self._metrics.storage("pending"):
            return await self._record.pending(limit, without)

    async def forget(self, numbers: Sequence[int]) -> None:
        """See Record."""
        with self._metrics.storage("forget"):
            await self._record.forget(numbers)

    async def counts(self) -> Counts:
        """See Record."""
        with self._metrics.storage("counts"):
            return await self._record.counts()

    async def version(self) -> int:
        """See Record."""
        with self._metrics.storage("version"):
            return await self._record.version()

    async def close(self) -> None:
        """See Record."""
        await self._record.close()
