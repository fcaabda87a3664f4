"""What the gateway should be, as far as policies go: a fold over `state.*` events."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TypeVar

from bus.events import (
    ApiKeyIssued,
    ApiKeyRevoked,
    ApiPublished,
    ApiRetired,
    ApplicationPublished,
    ApplicationRetired,
    Event,
    SubscriptionPlanPublished,
    SubscriptionPlanRetired,
    SubscriptionPublished,
    SubscriptionRetired,
)
from bus.resources.rest_api import RestApi

Key = TypeVar("Key")


@dataclass(slots=True)
class Model:
    """The APIs, and the revisions of all that was told. Only `apply` changes it."""

    apis: dict[str, RestApi] = field(default_factory=dict)
    _api_revisions: dict[str, int] = field(default_factory=dict)
    _other_revisions: dict[tuple[str, ...], int] = field(default_factory=dict)
    """Of keys, plans, subscriptions and applications, by the key of their events."""
    version: int = 0
    """The sum of all revisions: it grows with every change, and the controller has the same."""

    def apply(self, event: Event) -> bool:
        """Take `event` in; whether it changed anything. Stale and foreign events do not."""
        match event:
            case ApiPublished(api=api):
                return self._want(api.id, event.revision, api)
            case ApiRetired():
                return self._want(event.api_id, event.revision, None)
            case (
                ApiKeyIssued()
                | ApiKeyRevoked()
                | SubscriptionPlanPublished()
                | SubscriptionPlanRetired()
                | SubscriptionPublished()
                | SubscriptionRetired()
                | ApplicationPublished()
                | ApplicationRetired()
            ):
                return self._newer(self._other_revisions, event.key, event.revision)
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
