"""`signalbox plans`, `applications`, `subscriptions` and `usage --subscription`."""

import json
from collections.abc import AsyncIterator
from datetime import datetime
from pathlib import Path

import pytest
import pytest_asyncio

from controller.quota import Served
from tests.ctl.resources import rest_api
from tests.ctl.running import Running, running


class Counted:
    """Whoever counts requests: always the same."""

    async def of_subscription(self, name: str, since: datetime, until: datetime) -> Served:
        del name, since, until
        return Served(passed=40, refused=2)


@pytest_asyncio.fixture
async def gateway(tmp_path: Path) -> AsyncIterator[Running]:
    async with running(tmp_path / "data", usage=Counted()) as one, one.http() as http:
        assert (await http.post("/rest-apis", json=rest_api("petstore"))).status_code == 201
        yield one


async def done(gateway: Running, *words: str, stdin: str | None = None) -> str:
    result = await gateway.cli(*words, stdin=stdin)
    assert (result.code, result.err) == (0, ""), (words, result)
    return result.out.rstrip("\n")


async def test_plans_are_made_shown_changed_and_deleted(gateway: Running) -> None:
    none = await gateway.cli("plans", "list")
    assert (none.code, none.out, none.err) == (0, "", "no plans found\n")
    made = await done(gateway, "plans", "create", "Gold", "--limit", "1000/min")
    assert made.startswith("plan/Gold created, id ")
    await done(
        gateway,
        "plans",
        "create",
        "Free",
        "--limit",
        "10/Month",
        "--no-stop",
        "--time-zone",
        "Asia/Tokyo",
    )
    await done(gateway, "plans", "create", "Trial", "--expires-at", "2040-01-31T12:00:00Z")
    table = (await done(gateway, "plans", "list")).splitlines()
    assert table[0].split()[:5] == ["NAME", "LIMIT", "ZONE", "BEYOND", "STATUS"]
    assert [line.split()[:5] for line in table[1:]] == [
        ["Gold", "1000/min", "-", "refused", "ACTIVE"],
        ["Free", "10/month", "Asia/Tokyo", "counted", "ACTIVE"],
        ["Trial", "-", "-", "-", "ACTIVE"],
    ]
    updated = await done(gateway, "plans", "update", "Gold", "--limit", "none", "--name", "Gilt")
    assert updated.startswith("plan/Gilt updated")
    shown = json.loads(await done(gateway, "plans", "get", "Gilt", "-o", "json"))
    assert "throttleLimitCount" not in shown
    assert await done(gateway, "plans", "delete", "Gilt", "Free") == (
        "plan/Gilt deleted\nplan/Free deleted"
    )
    names = json.loads(await done(gateway, "plans", "list", "-o", "json"))
    assert [one["planName"] for one in names] == ["Trial"]


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("plans", "create", "Gold", "--limit", "many"), 2, "--limit many: write a number"),
        (("plans", "create", "Gold", "--limit", "5/week"), 2, "--limit 5/week"),
        (("plans", "create", "Gold", "--limit", "0/min"), 1, "throttleLimitCount: must be"),
        (("plans", "create", "Gold", "--time-zone", "Mars"), 1, "timeZone: 'Mars' is not the IANA"),
        (("plans", "create", "Gold", "--expires-at", "soon"), 2, "'soon' is neither"),
        (("plans", "update", "Nothing", "--limit", "5/min"), 4, "'Nothing' not found"),
        (("plans", "delete", "Nothing"), 4, "'Nothing' not found"),
        (("subscriptions", "create", "nothing"), 1, "apiId: API 'nothing' not found"),
        (("subscriptions", "create", "petstore", "--plan", "X"), 4, "'X' not found"),
        (("subscriptions", "create", "petstore", "--token-file", "no"), 2, "no cannot be read"),
        (("subscriptions", "get", "nothing"), 4, "'nothing' not found"),
        (("usage", "--subscription", "nothing"), 4, "'nothing' not found"),
        (("applications", "create", "A", "--attribute", "b"), 2, "write KEY=VALUE"),
    ],
)
async def test_what_cannot_be_done_is_one_clear_sentence(
    gateway: Running, words: tuple[str, ...], code: int, said: str
) -> None:
    result = await gateway.cli(*words)
    assert (result.code, result.out) == (code, ""), result
    assert said in result.err


async def test_nothing_to_change_is_told(gateway: Running) -> None:
    await done(gateway, "plans", "create", "Gold")
    result = await gateway.cli("plans", "update", "Gold")
    assert (result.code, "nothing to change" in result.err) == (2, True)


async def test_the_life_of_a_subscription(gateway: Running) -> None:
    await done(gateway, "plans", "create", "Gold", "--limit", "100/day")
    await done(gateway, "applications", "create", "Web shop", "--id", "shop", "--owner", "carla")
    made = await gateway.cli(
        "subscriptions", "create", "petstore", "--plan", "Gold", "--application", "Web shop"
    )
    said, token = made.out.splitlines()
    assert said.startswith("subscription/")
    assert "to api/petstore created" in said
    assert (made.code, made.err, token[:4], len(token)) == (
        0,
        "keep it: it is not shown again\n",
        "sub_",
        68,
    )
    name = await done(gateway, "subscriptions", "list", "-o", "name")
    (row,) = (await done(gateway, "subscriptions", "list")).splitlines()[1:]
    assert row.split()[:6] == [name, "petstore", "Gold", "Web", "shop", "ACTIVE"]
    assert token not in row
    await done(gateway, "subscriptions", "update", name, "--status", "INACTIVE", "--plan", "none")
    shown = json.loads(await done(gateway, "subscriptions", "get", name, "-o", "json"))
    assert (shown["status"], "subscriptionPlanId" in shown) == ("INACTIVE", False)
    assert (
        await done(gateway, "subscriptions", "list", "--status", "INACTIVE", "-o", "name") == name
    )
    by_app = ("subscriptions", "list", "--application", "Web shop", "-o", "name")
    assert await done(gateway, *by_app) == name
    given = await done(
        gateway, "subscriptions", "create", "petstore", "--token-file", "-", stdin="mine\n"
    )
    assert "mine" not in given
    again = await gateway.cli(
        "subscriptions", "create", "petstore", "--token-file", "-", stdin="mine"
    )
    assert (again.code, "already exists" in again.err) == (1, True)
    assert await done(gateway, "subscriptions", "delete", name) == f"subscription/{name} deleted"
    assert (await gateway.cli("subscriptions", "get", name)).code == 4


async def test_an_application_shows_its_keys(gateway: Running) -> None:
    await done(gateway, "applications", "create", "Web shop", "--id", "shop", "--attribute", "a=b")
    await done(gateway, "applications", "update", "shop", "--description", "sells", "--owner", "x")
    shown = json.loads(await done(gateway, "applications", "get", "shop", "-o", "json"))
    assert (shown["attributes"], shown["owner"]) == ({"a": "b"}, "x")
    empty = await gateway.cli("applications", "keys", "shop")
    assert (empty.code, empty.err) == (0, "no keys found\n")
    await gateway.cli("keys", "create", "petstore", "--name", "web", "--display-name", "Web shop")
    (row,) = (await done(gateway, "applications", "keys", "shop")).splitlines()[1:]
    assert row.split()[:2] == ["petstore", "web"]
    assert await done(gateway, "applications", "list", "-o", "name") == "shop"
    assert await done(gateway, "applications", "delete", "shop") == "application/Web shop deleted"


async def test_usage_against_the_quota(gateway: Running) -> None:
    await done(gateway, "plans", "create", "Gold", "--limit", "100/day")
    made = await gateway.cli("subscriptions", "create", "petstore", "--plan", "Gold", "-o", "json")
    one = json.loads(made.out)
    assert one["subscriptionToken"].startswith("sub_")
    header, row = (await done(gateway, "usage", "--subscription", one["id"])).splitlines()
    assert header.split()[:6] == ["API", "PLAN", "LIMIT", "USED", "LEFT", "REFUSED"]
    assert row.split()[:6] == ["petstore", "Gold", "100/day", "40", "60", "2"]
    usage = json.loads(await done(gateway, "usage", "--subscription", one["id"], "-o", "json"))
    assert (usage["used"], usage["remaining"]) == (40, 60)
