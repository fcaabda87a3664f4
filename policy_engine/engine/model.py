"""What the gateway should be, as far as policies go: a fold over `state.*` events."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TypeVar

from bus.events import ApiKeyIssued, ApiKeyRevoked, ApiPublished, ApiRetired, Event
from bus.resources.rest_api import RestApi

Key = TypeVar("Key")
KeyId = tuple[str, str, str]  # kind of API, API, name


@dataclass(slots=True)
class Model:
    """The APIs, and the revisions of all that was told. Only `apply` changes it."""

    apis: dict[str, RestApi] = field(default_factory=dict)
    _api_revisions: dict[str, int] = field(default_factory=dict)
    _key_revisions: dict[KeyId, int] = field(default_factory=dict)
    version: int = 0
    """The sum of all revisions: it grows with every change, and the controller has the same."""

    def apply(self, event: Event) -> bool:
        """Take `event` in; whether it changed anything. Stale and foreign events do not."""
        match event:
            case ApiPublished(api=api):
                return self._want(api.id, event.revision, api)
            case ApiRetired():
                return self._want(event.api_id, event.revision, None)
            case ApiKeyIssued(api_key=key):
                return self._newer(
                    self._key_revisions, (key.api_kind, key.api_id, key.name), event.revision
                )
            case ApiKeyRevoked():
                return self._newer(
                    self._key_revisions, (event.api_kind, event.api_id, event.name), event.revision
                )
            case _:
                return False

    def deployed(self) -> Iterator[RestApi]:
        """The APIs that are served, by handle."""
        for _, api in sorted(self.apis.items()):
            if api.spec.deployment_state == "deployed":
                yield api

    def _want(self, api_id: str, revision: int, api: RestApi | None) -> bool:
        if not self._newer(self._api_revisions, api_id, revision):
            return False
        if api is None:
            self.apis.pop(api_id, None)
        else:
            self.apis[api_id] = api
        return True

    def _newer(self, revisions: dict[Key, int], key: Key, revision: int) -> bool:
        known = revisions.get(key, 0)
        if revision <= known:
            return False
        revisions[key] = revision
        self.version += revision - known
        return True
