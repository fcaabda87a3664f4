"""The fold over `state.*`: stale, repeated and foreign events change nothing."""

from datetime import UTC, datetime, timedelta

from bus.events import (
    ApiKeyIssued,
    ApiKeyRevoked,
    ApiPublished,
    ApiRetired,
    RecordPublished,
    RouterConnected,
)
from bus.resources.api_key import ApiKey
from tests.xds.routing import api
from xds.model import Model

NOW = datetime(2030, 1, 1, tzinfo=UTC)
SHOP = api("""
    name: shop
    context: /shop
    upstream: {main: {url: "http://u.example"}}
    operations: [{method: GET, path: /}]
""")


def key(name: str, digest: str = "d", expires_at: datetime | None = None) -> ApiKey:
    return ApiKey(api_id="shop", name=name, digest=digest, application=name, expires_at=expires_at)


def test_a_newer_revision_replaces_an_older_one_and_not_the_other_way_round() -> None:
    model = Model()
    assert model.apply(ApiPublished(revision=2, api=SHOP)) == {"shop"}
    assert model.apply(ApiPublished(revision=1, api=SHOP)) == frozenset()
    assert model.apply(ApiPublished(revision=2, api=SHOP)) == frozenset()
    assert model.apis["shop"].revision == 2


def test_a_stale_publication_does_not_revive_a_retired_api() -> None:
    model = Model()
    model.apply(ApiRetired(revision=3, api_id="shop"))
    assert model.apply(ApiPublished(revision=2, api=SHOP)) == frozenset()
    assert model.apis["shop"].api is None
    assert model.apply(ApiPublished(revision=4, api=SHOP)) == {"shop"}


def test_keys_open_their_api_until_they_are_revoked_or_expire() -> None:
    model = Model()
    model.apply(ApiKeyIssued(revision=1, api_key=key("b", "2")))
    model.apply(ApiKeyIssued(revision=1, api_key=key("a", "1", NOW + timedelta(hours=1))))
    assert [one.digest for one in model.credentials("shop", NOW)] == ["1", "2"]
    assert model.next_expiry == NOW + timedelta(hours=1)
    later = NOW + timedelta(hours=1)
    assert [one.digest for one in model.credentials("shop", later)] == ["2"]
    assert model.expired(later) == {"shop"}
    assert model.next_expiry is None
    revoked = ApiKeyRevoked(revision=2, api_kind="RestApi", api_id="shop", name="b")
    assert model.apply(revoked) == {"shop"}
    assert model.apply(ApiKeyIssued(revision=1, api_key=key("b", "2"))) == frozenset()
    assert model.credentials("shop", later) == ()


def test_the_state_is_whole_only_after_the_record_was_published() -> None:
    model = Model()
    assert not model.complete
    assert model.apply(RouterConnected(node="n")) == frozenset()
    model.apply(RecordPublished(apis=0))
    assert model.complete
