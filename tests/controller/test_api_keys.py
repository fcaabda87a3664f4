"""`/rest-apis/{id}/api-keys` as its clients see it, on both records."""

import asyncio
import hashlib
import re
from datetime import UTC, datetime, timedelta

import httpx
import pytest

from bus.events import ApiKeyIssued, ApiKeyRevoked, Event, event_class
from controller.ports import Record
from tests.controller.samples import document

KEYS = "/rest-apis/weather/api-keys"
EXTERNAL = "external-key-0123456789-0123456789-abcde"


@pytest.fixture(autouse=True)
async def weather(client) -> None:
    await client.post("/rest-apis", json=document())


async def created(client: httpx.AsyncClient, **body: object) -> dict:
    answer = await client.post(KEYS, json=body)
    assert answer.status_code == 201, answer.text
    return answer.json()


async def events(record: Record) -> list[Event]:
    found = [
        event_class(one.kind).model_validate_json(one.body) for one in await record.pending(99)
    ]
    return [one for one in found if isinstance(one, ApiKeyIssued | ApiKeyRevoked)]


async def test_a_key_is_told_once_and_kept_as_a_digest(client, record: Record) -> None:
    made = await created(client, name="my-api-key_v1", displayName="My app")
    assert (made["status"], made["remainingApiKeyQuota"]) == ("success", 2)
    plain = made["apiKey"]["apiKey"]
    assert re.fullmatch(r"apip_[0-9a-f]{64}", plain)
    assert made["apiKey"] == made["apiKey"] | {
        "name": "my-api-key_v1",
        "displayName": "My app",
        "apiId": "weather",
        "status": "active",
        "createdBy": "admin",
        "expiresAt": None,
        "source": "local",
    }
    listing = (await client.get(KEYS)).json()
    assert (listing["status"], listing["totalCount"]) == ("success", 1)
    (shown,) = listing["apiKeys"]
    assert shown["apiKey"].endswith("*" + plain[-5:])
    assert plain not in str(listing)
    (issued,) = await events(record)
    assert isinstance(issued, ApiKeyIssued)
    assert issued.api_key.digest == hashlib.sha256(plain.encode()).hexdigest()
    assert issued.api_key.application == "My app"
    assert plain not in str(await record.everything())
    assert all(plain.encode() not in one.body for one in await record.pending(99))


async def test_a_key_needs_no_body_and_gets_a_name(client) -> None:
    answer = await client.post(KEYS)
    assert answer.status_code == 201
    name = answer.json()["apiKey"]["name"]
    assert (await client.delete(f"{KEYS}/{name}")).status_code == 200
    assert (await client.get(KEYS)).json()["totalCount"] == 0


async def test_an_external_key_is_masked_and_found_by_its_digest(client, record: Record) -> None:
    made = await created(client, name="theirs", apiKey=EXTERNAL, externalRefId="ref-1", issuer="it")
    assert made["apiKey"]["source"] == "external"
    assert made["apiKey"]["externalRefId"] == "ref-1"
    assert EXTERNAL not in str(made)
    (issued,) = await events(record)
    assert isinstance(issued, ApiKeyIssued)
    assert issued.api_key.digest == hashlib.sha256(EXTERNAL.encode()).hexdigest()
    assert issued.api_key.issuer == "it"
    shown = await created(client, name="masked", apiKey=EXTERNAL + "2", maskedApiKey="ext***2")
    assert shown["apiKey"]["apiKey"] == "ext***2"
    answer = await client.post(KEYS, json={"apiKey": EXTERNAL, "name": "again"})
    assert answer.status_code == 409


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"apiKey": "short"}, "apiKey"),
        ({"apiKey": "x" * 40 + " "}, "apiKey"),
        ({"name": "No"}, "name"),
        ({"name": "ab"}, "name"),
        ({"name": "a" * 64}, "name"),
        ({"expiresIn": {"unit": "years", "duration": 1}}, "expiresIn.unit"),
        ({"expiresIn": {"unit": "days", "duration": 0}}, "expiresIn.duration"),
        ({"expiresIn": {"unit": "days", "duration": "1"}}, "expiresIn.duration"),
        ({"expiresIn": {"unit": "months", "duration": 1_000_000}}, "expiresIn.duration"),
        ({"expiresIn": {"unit": "days"}}, "expiresIn.duration"),
        ({"expiresAt": "2020-01-01T00:00:00Z"}, "expiresAt"),
        ({"expiresAt": "2040-01-01T00:00:00"}, "expiresAt"),
        ({"expiresAt": "soon"}, "expiresAt"),
        ({"surprise": 1}, "surprise"),
        ({"apiKey": EXTERNAL, "maskedApiKey": EXTERNAL}, "maskedApiKey"),
    ],
)
async def test_a_bad_request_names_the_field(client, body: dict, field: str) -> None:
    answer = await client.post(KEYS, json=body)
    assert answer.status_code == 400
    assert [one["field"] for one in answer.json()["errors"]] == [field]
    assert (await client.get(KEYS)).json()["totalCount"] == 0


async def test_expiry_is_counted_or_given(client) -> None:
    def at(made: dict) -> datetime:
        return datetime.fromisoformat(made["apiKey"]["expiresAt"])

    now = datetime.now(UTC)
    weeks = at(await created(client, expiresIn={"unit": "weeks", "duration": 2}))
    assert timedelta(days=13, hours=23) < weeks - now < timedelta(days=14, hours=1)
    fixed = await created(
        client, expiresAt="2040-01-01T00:00:00+01:00", expiresIn={"unit": "days", "duration": 1}
    )
    assert fixed["apiKey"]["expiresAt"] == "2039-12-31T23:00:00.000Z"


async def test_an_expired_key_is_shown_so_and_is_not_counted(client, app) -> None:
    await created(client, name="old", expiresIn={"unit": "hours", "duration": 1})
    keys = app.state.keys
    later = datetime.now(UTC) + timedelta(hours=2)
    app.state.keys = type(keys)(keys.record, keys.quota, keys.issuer, lambda: later)
    (shown,) = (await client.get(KEYS)).json()["apiKeys"]
    assert shown["status"] == "expired"
    assert (await created(client))["remainingApiKeyQuota"] == 2
    renewed = await client.post(f"{KEYS}/old/regenerate")  # a lifetime starts anew
    assert renewed.json()["apiKey"]["status"] == "active"
    await client.put(f"{KEYS}/old", json={"expiresAt": (later + timedelta(1)).isoformat()})
    app.state.keys = type(keys)(keys.record, keys.quota, keys.issuer, lambda: later + timedelta(2))
    answer = await client.post(f"{KEYS}/old/regenerate")
    assert answer.status_code == 400
    assert "expiresIn or expiresAt" in answer.json()["message"]


async def test_the_quota_is_per_user_and_api(client, as_user) -> None:
    carla, carlo = as_user("carla"), as_user("carlo")
    answers = await asyncio.gather(*(carla.post(KEYS) for _ in range(6)))
    assert sorted(one.status_code for one in answers) == [201] * 3 + [400] * 3
    refused = next(one for one in answers if one.status_code == 400)
    assert "quota" in refused.json()["message"]
    assert (await carlo.post(KEYS)).status_code == 201
    await client.post("/rest-apis", json=document("tides"))
    assert (await carla.post("/rest-apis/tides/api-keys")).status_code == 201
    name = next(one for one in answers if one.status_code == 201).json()["apiKey"]["name"]
    assert (await carla.delete(f"{KEYS}/{name}")).status_code == 200
    assert (await carla.post(KEYS)).json()["remainingApiKeyQuota"] == 0


async def test_consumers_see_and_change_their_own_keys_only(client, as_user) -> None:
    carla, carlo = as_user("carla"), as_user("carlo")
    await created(carla, name="hers")
    await created(client, name="admins")
    assert [one["name"] for one in (await carla.get(KEYS)).json()["apiKeys"]] == ["hers"]
    assert (await carlo.get(KEYS)).json()["totalCount"] == 0
    assert (await client.get(KEYS)).json()["totalCount"] == 2
    assert (await carlo.post(f"{KEYS}/hers/regenerate")).status_code == 403
    assert (await carlo.put(f"{KEYS}/hers", json={"displayName": "x"})).status_code == 403
    assert (await carlo.delete(f"{KEYS}/hers")).status_code == 403
    assert (await client.post(f"{KEYS}/hers/regenerate")).status_code == 200
    assert (await client.delete(f"{KEYS}/hers")).status_code == 200


async def test_regenerating_replaces_the_value(client, record: Record) -> None:
    first = await created(client, name="mine")
    answer = await client.post(f"{KEYS}/mine/regenerate", json={})
    assert answer.status_code == 200
    second = answer.json()
    assert second["apiKey"]["apiKey"] != first["apiKey"]["apiKey"]
    assert second["remainingApiKeyQuota"] == 2
    issued = await events(record)
    assert [one.revision for one in issued] == [1, 2]
    last = issued[-1]
    assert isinstance(last, ApiKeyIssued)
    digest = hashlib.sha256(second["apiKey"]["apiKey"].encode()).hexdigest()
    assert last.api_key.digest == digest


async def test_updating_changes_what_is_named(client, record: Record) -> None:
    await created(client, name="theirs", apiKey=EXTERNAL)
    await created(client, name="ours")
    body = {"displayName": "New", "apiKey": EXTERNAL + "-2", "externalRefId": "r"}
    answer = await client.put(f"{KEYS}/theirs", json=body)
    assert answer.status_code == 200
    assert answer.json()["apiKey"]["displayName"] == "New"
    assert answer.json()["apiKey"]["apiKey"].endswith("cde-2"[-5:])
    last = (await events(record))[-1]
    assert isinstance(last, ApiKeyIssued)
    assert last.api_key.digest == hashlib.sha256((EXTERNAL + "-2").encode()).hexdigest()
    assert (await client.put(f"{KEYS}/ours", json={"displayName": "x"})).status_code == 200
    answer = await client.put(f"{KEYS}/ours", json={"apiKey": EXTERNAL + "-3"})
    assert answer.status_code == 400
    assert "regenerate" in answer.json()["message"]
    assert (await client.post(f"{KEYS}/theirs/regenerate")).status_code == 400
    answer = await client.put(f"{KEYS}/ours", json={"name": "other"})
    assert answer.status_code == 400
    assert "mismatch" in answer.json()["message"]
    answer = await client.put(f"{KEYS}/theirs", json={"maskedApiKey": "ext-***"})
    assert answer.json()["apiKey"]["apiKey"] == "ext-***"


async def test_a_revoked_key_vanishes_and_its_name_is_free(client, record: Record) -> None:
    await created(client, name="mine")
    answer = await client.delete(f"{KEYS}/mine")
    assert answer.json() == {"status": "success", "message": "API key revoked successfully"}
    assert (await client.get(KEYS)).json()["totalCount"] == 0
    assert (await client.delete(f"{KEYS}/mine")).status_code == 200
    assert (await client.delete(f"{KEYS}/never")).status_code == 200
    assert (await client.post(f"{KEYS}/mine/regenerate")).status_code == 404
    assert (await client.put(f"{KEYS}/mine", json={})).status_code == 404
    await created(client, name="mine")
    assert (await client.post(KEYS, json={"name": "mine"})).status_code == 409
    found = [(type(one).__name__, one.revision) for one in await events(record)]
    assert found == [("ApiKeyIssued", 1), ("ApiKeyRevoked", 2), ("ApiKeyIssued", 3)]


async def test_deleting_an_api_revokes_its_keys(client, record: Record) -> None:
    await created(client, name="one")
    await created(client, name="two")
    await client.delete(f"{KEYS}/two")
    await client.delete("/rest-apis/weather")
    kinds = [one.kind for one in await record.pending(99)]
    assert kinds[-2:] == ["rest-api.retired", "api-key.revoked"]
    assert kinds.count("api-key.revoked") == 2
    await client.post("/rest-apis", json=document())
    assert (await client.get(KEYS)).json()["totalCount"] == 0


@pytest.mark.parametrize("handle", ["nobody", "a%20b", "%7D"])
async def test_keys_of_no_api_are_not_found(client, handle: str) -> None:
    base = f"/rest-apis/{handle}/api-keys"
    for method, path in (
        ("GET", base),
        ("POST", base),
        ("POST", f"{base}/k/regenerate"),
        ("DELETE", f"{base}/k"),
    ):
        answer = await client.request(method, path)
        assert answer.status_code == 404, (method, path)
    assert (await client.put(f"{base}/k", json={})).status_code == 404


async def test_a_key_outlives_a_change_of_its_api(client) -> None:
    await created(client, name="mine")
    await client.put("/rest-apis/weather", json=document(context="/elsewhere"))
    assert (await client.get(KEYS)).json()["totalCount"] == 1
