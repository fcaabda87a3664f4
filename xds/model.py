"""What users want served: a fold over `state.*` events."""

import heapq
from dataclasses import dataclass, field
from datetime import datetime

from bus.events import (
    ApiKeyIssued,
    ApiKeyRevoked,
    ApiPublished,
    ApiRetired,
    Event,
    RecordPublished,
)
from bus.resources.api_key import ApiKey
from bus.resources.rest_api import RestApi
from policy_engine.policy import Credential
from xds.subscriptions import Subscriptions

_API_KIND = "RestApi"


@dataclass(frozen=True, slots=True)
class WantedApi:
    """The newest revision of an API; `api` is None once it is retired."""

    revision: int
    api: RestApi | None


@dataclass(slots=True)
class Model:
    """APIs and keys by handle, and who has subscribed. Only `apply` changes it."""

    apis: dict[str, WantedApi] = field(default_factory=dict)
    keys: dict[str, dict[str, tuple[int, ApiKey | None]]] = field(default_factory=dict)
    subscriptions: Subscriptions = field(default_factory=Subscriptions)
    complete: bool = False  # the record was published once: absence means something
    _expiries: list[tuple[datetime, str]] = field(default_factory=list)  # heap: when, which API

    def apply(self, event: Event) -> frozenset[str]:
        """Take `event` in; the handles of the APIs it changed.

        Stale, repeated and foreign events change nothing.
        """
        match event:
            case ApiPublished():
                return self._want(event.api.id, WantedApi(event.revision, event.api))
            case ApiRetired():
                return self._want(event.api_id, WantedApi(event.revision, None))
            case ApiKeyIssued(api_key=key):
                return self._key(key.api_kind, key.api_id, key.name, event.revision, key)
            case ApiKeyRevoked():
                return self._key(event.api_kind, event.api_id, event.name, event.revision, None)
            case RecordPublished():
                self.complete = True
                return frozenset()
            case _:
                return self.subscriptions.apply(event)

    def credentials(self, api_id: str, now: datetime) -> tuple[Credential, ...]:
        """The keys that open the API at `now`, in a stable order."""
        return tuple(
            Credential(key.digest, key.application, key.issuer)
            for _, (_, key) in sorted(self.keys.get(api_id, {}).items())
            if key is not None and not key.expired(now)
        )

    @property
    def next_expiry(self) -> datetime | None:
        """When some key or plan expires next."""
        key = self._expiries[0][0] if self._expiries else None
        times = (key, self.subscriptions.next_expiry)
        return min((one for one in times if one is not None), default=None)

    def expired(self, now: datetime) -> frozenset[str]:
        """The APIs of which a key or plan expired by `now` since this was last asked."""
        api_ids = set(self.subscriptions.expired(now))
        while self._expiries and self._expiries[0][0] <= now:
            api_ids.add(heapq.heappop(self._expiries)[1])
        return frozenset(api_ids)

    def _want(self, api_id: str, wanted: WantedApi) -> frozenset[str]:
        known = self.apis.get(api_id)
        if known is not None and known.revision >= wanted.revision:
            return frozenset()
        self.apis[api_id] = wanted
        return frozenset({api_id})

    def _key(
        self, api_kind: str, api_id: str, name: str, revision: int, key: ApiKey | None
    ) -> frozenset[str]:
        if api_kind != _API_KIND:
            return frozenset()
        keys = self.keys.setdefault(api_id, {})
        known = keys.get(name)
        if known is not None and known[0] >= revision:
            return frozenset()
        keys[name] = (revision, key)
        if key is not None and key.expires_at is not None:
            heapq.heappush(self._expiries, (key.expires_at, api_id))
        return frozenset({api_id})
