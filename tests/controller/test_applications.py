"""`/applications`."""

import pytest

from controller.ports import Record
from tests.controller.samples import document
from tests.controller.subscribing import (
    APPLICATIONS,
    SUBSCRIPTIONS,
    created,
    events,
    faults,
    subscribed,
)

pytestmark = pytest.mark.usefixtures("weather")


async def test_an_application_is_made_shown_changed_and_deleted(client, record: Record) -> None:
    made = await created(client, APPLICATIONS, id="shop", name="Shop", attributes={"tier": "1"})
    assert made == made | {"id": "shop", "name": "Shop", "attributes": {"tier": "1"}}
    place = f"{APPLICATIONS}/shop"
    assert (await client.get(place)).json() == made
    assert (await client.get(APPLICATIONS)).json()["applications"] == [made]
    changed = (await client.put(place, json={"owner": "carla", "description": "sells"})).json()
    assert (changed["owner"], changed["description"], changed["revision"]) == ("carla", "sells", 2)
    assert changed["attributes"] == {"tier": "1"}
    assert faults(await client.put(place, json={"id": "other"})) == ["id"]
    assert (await client.delete(place)).status_code == 204
    assert (await client.get(place)).status_code == 404
    again = await created(client, APPLICATIONS, id="shop", name="Shop")
    assert again["revision"] == 4  # counts on, so that nobody takes it for an older one
    told = [(one.kind, one.revision) for one in await events(record)]  # type: ignore[attr-defined]
    assert told[-2:] == [("application.retired", 3), ("application.published", 4)]
    unnamed = await created(client, APPLICATIONS, name="Other")
    assert len(unnamed["id"]) == 36


async def test_names_and_ids_of_applications_are_one_space(client) -> None:
    await created(client, APPLICATIONS, id="shop", name="Shop")
    for taken in (
        {"id": "shop", "name": "x"},
        {"id": "x", "name": "Shop"},
        {"id": "Shop", "name": "x"},
        {"id": "x", "name": "shop"},
    ):
        assert (await client.post(APPLICATIONS, json=taken)).status_code == 409, taken
    await created(client, APPLICATIONS, id="x", name="x")
    assert (await client.put(f"{APPLICATIONS}/x", json={"name": "shop"})).status_code == 409
    assert faults(await client.post(APPLICATIONS, json={"id": "a b", "name": "y"})) == ["id"]
    assert faults(await client.post(APPLICATIONS, json={"id": "y"})) == ["name"]


async def test_an_application_with_subscriptions_stays(client) -> None:
    await created(client, APPLICATIONS, id="shop", name="Shop")
    one = await subscribed(client, applicationId="shop")
    assert (await client.delete(f"{APPLICATIONS}/shop")).status_code == 409
    await client.delete(f"{SUBSCRIPTIONS}/{one['id']}")
    assert (await client.delete(f"{APPLICATIONS}/shop")).status_code == 204


async def test_the_keys_of_an_application_are_those_of_its_name_or_id(client) -> None:
    await created(client, APPLICATIONS, id="app-1", name="Shop")
    await client.post("/rest-apis", json=document("tides"))
    for api, name, display in (
        ("weather", "one", "Shop"),
        ("tides", "two", "app-1"),
        ("tides", "three", "Other"),
    ):
        body = {"name": name, "displayName": display}
        assert (await client.post(f"/rest-apis/{api}/api-keys", json=body)).status_code == 201
    listing = (await client.get(f"{APPLICATIONS}/app-1/api-keys")).json()
    assert [(one["apiId"], one["name"]) for one in listing["apiKeys"]] == [
        ("weather", "one"),
        ("tides", "two"),
    ]
    assert listing["totalCount"] == 2
    assert (await client.get(f"{APPLICATIONS}/none/api-keys")).status_code == 404


async def test_a_key_may_only_say_whom_its_maker_may_speak_for(client, as_user) -> None:
    await created(client, APPLICATIONS, id="app-1", name="Shop", owner="carla")
    await subscribed(client, applicationId="partner")
    keys = "/rest-apis/weather/api-keys"
    for name in ("Shop", "app-1"):
        body = {"displayName": name}
        assert (await as_user("carlo").post(keys, json=body)).status_code == 403
        assert (await as_user("carla").post(keys, json=body)).status_code == 201
        assert (await client.post(keys, json=body)).status_code == 201
    body = {"displayName": "partner"}
    assert (await as_user("carla").post(keys, json=body)).status_code == 403
    assert (await client.post(keys, json=body)).status_code == 201
    mine = {"name": "mine", "displayName": "Mine"}
    carlo = as_user("carlo")
    assert (await carlo.post(keys, json=mine)).status_code == 201
    assert (await carlo.put(f"{keys}/mine", json={"displayName": "Shop"})).status_code == 403
    assert (await carlo.put(f"{keys}/mine", json={"displayName": "Ours"})).status_code == 200
