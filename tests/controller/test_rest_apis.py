"""`/rest-apis` as its clients see it, on both records."""

import asyncio

import httpx
import pytest
import yaml

from bus.events import ConfigurationApplied, ConfigurationRejected, RouterConnected
from controller.ports import Record
from tests.controller.samples import document

YAML = {"content-type": "application/yaml"}


async def created(client: httpx.AsyncClient, name: str = "weather", **spec: object) -> dict:
    answer = await client.post("/rest-apis", json=document(name, **spec))
    assert answer.status_code == 201, answer.text
    return answer.json()


async def test_an_api_is_created_from_json_and_from_yaml(client) -> None:
    one = await created(client)
    text = yaml.safe_dump(document("tides"))
    answer = await client.post("/rest-apis", content=text, headers=YAML)
    assert answer.status_code == 201
    two = answer.json()
    for made, name in ((one, "weather"), (two, "tides")):
        status = made.pop("status")
        expected = document(name)
        expected["spec"]["context"] = f"/{name}/v1.0"
        assert made == expected
        assert status["id"] == name
        assert (status["state"], status["revision"]) == ("deployed", 1)
        assert status["createdAt"] == status["updatedAt"] == status["deployedAt"]
        assert status["createdAt"].endswith("Z")
        assert status["routers"] == {"live": 0, "total": 0}


async def test_the_record_keeps_the_version_placeholder(client, record: Record) -> None:
    await created(client)
    row = await record.api("weather")
    assert row is not None
    assert row.document()["spec"]["context"] == "/weather/$version"
    (event,) = await record.pending(10)
    assert b'"/weather/v1.0"' in event.body


async def test_an_api_is_shown_as_json_or_yaml(client) -> None:
    made = await created(client)
    answer = await client.get("/rest-apis/weather")
    assert answer.json() == made
    assert answer.headers["etag"] == '"1"'
    for accept in ("application/yaml", "application/json;q=0.5, application/yaml", "text/yaml"):
        answer = await client.get("/rest-apis/weather", headers={"accept": accept})
        assert answer.headers["content-type"] == "application/yaml"
        assert yaml.safe_load(answer.content) == made
    for accept in ("*/*", "application/json, application/yaml;q=0.1", "text/html, */*;q=0.8"):
        answer = await client.get("/rest-apis/weather", headers={"accept": accept})
        assert answer.json() == made


async def test_what_is_shown_can_be_put_back(client) -> None:
    await created(client)
    shown = (await client.get("/rest-apis/weather")).json()
    shown["spec"]["displayName"] = "Better weather"
    answer = await client.put("/rest-apis/weather", json=shown)
    assert answer.status_code == 200
    assert answer.json()["status"]["revision"] == 2


async def test_a_change_counts_the_revision_and_no_change_does_not(client, record: Record) -> None:
    await created(client)
    answer = await client.put("/rest-apis/weather", json=document(context="/other"))
    assert answer.status_code == 200
    status = answer.json()["status"]
    assert status["revision"] == 2
    assert status["createdAt"] <= status["updatedAt"]
    answer = await client.put("/rest-apis/weather", json=document(context="/other"))
    assert answer.json()["status"] == status
    assert len(await record.pending(10)) == 2


async def test_the_revision_counts_on_across_a_delete(client) -> None:
    await created(client)
    answer = await client.delete("/rest-apis/weather")
    assert answer.status_code == 200
    gone = answer.json()
    assert (gone["status"], gone["id"], gone["revision"]) == ("success", "weather", 2)
    assert gone["message"]
    for call in (client.get, client.delete):
        assert (await call("/rest-apis/weather")).status_code == 404
    assert (await client.put("/rest-apis/weather", json=document())).status_code == 404
    assert (await created(client))["status"]["revision"] == 3


async def test_undeployed_is_a_state(client) -> None:
    status = (await created(client, deploymentState="undeployed"))["status"]
    assert (status["state"], status["deployedAt"]) == ("undeployed", None)
    answer = await client.put("/rest-apis/weather", json=document())
    assert answer.json()["status"]["state"] == "deployed"
    assert answer.json()["status"]["deployedAt"] == answer.json()["status"]["updatedAt"]


async def test_lists_are_filtered_and_hold_whole_resources(client) -> None:
    await created(client, "a")
    await created(client, "b", version="v2", deploymentState="undeployed")

    async def names(query: str) -> list[str]:
        found = (await client.get(f"/rest-apis{query}")).json()
        assert found["status"] == "success"
        assert found["count"] == len(found["apis"])
        return [one["metadata"]["name"] for one in found["apis"]]

    assert await names("") == ["a", "b"]
    assert await names("?limit=1&offset=x") == ["a", "b"]
    assert await names("?displayName=a%20API") == ["a"]
    assert await names("?version=v2") == ["b"]
    assert await names("?context=/b/v2") == ["b"]
    assert await names("?status=undeployed") == ["b"]
    assert await names("?status=deployed&version=v2") == []
    found = (await client.get("/rest-apis")).json()["apis"][0]
    assert found == (await client.get("/rest-apis/a")).json()
    assert (await client.get("/rest-apis?status=lost")).status_code == 400


async def test_duplicates_are_conflicts(client) -> None:
    await created(client)
    answer = await client.post("/rest-apis", json=document())
    assert answer.status_code == 409
    assert answer.json()["status"] == "error"
    assert "weather" in answer.json()["message"]
    same_name = document("other", displayName="weather API")
    assert (await client.post("/rest-apis", json=same_name)).status_code == 409
    await created(client, "other")
    assert (await client.put("/rest-apis/other", json=same_name)).status_code == 409
    same_name["spec"]["version"] = "v2"
    assert (await client.put("/rest-apis/other", json=same_name)).status_code == 200


TAKEN = "Operation GET /pay/{id} is already served by API 'pay' on the same context and host"
BY_ID = [{"method": "GET", "path": "/{id}"}]
SANDBOX = {"main": {"url": "http://a.example.com"}, "sandbox": {"url": "http://b.example.com"}}


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ({}, {}),
        ({}, {"context": "/PAY"}),
        (
            {},
            {"operations": [{"method": "POST", "path": "/x"}, {"method": "GET", "path": "/{n}/"}]},
        ),
        ({}, {"vhosts": {"main": "a.example.com;_gateway_default_"}}),
        ({}, {"vhosts": {"main": "*"}}),
        (
            {"vhosts": {"main": "A.example.com"}},
            {"vhosts": {"main": "b.example.com; a.example.COM"}},
        ),
        ({"vhosts": {"main": "a.example.com:80"}}, {"vhosts": {"main": "a.example.com"}}),
        (
            {"vhosts": {"main": "a.example.com"}, "upstream": SANDBOX},
            {"vhosts": {"main": "b.example.com"}, "upstream": SANDBOX},
        ),
        (
            {"vhosts": {"main": "a.example.com", "sandbox": "s.example.com"}, "upstream": SANDBOX},
            {"vhosts": {"main": "s.example.com"}},
        ),
    ],
)
async def test_an_operation_that_another_api_serves_is_a_conflict(
    client, first: dict, second: dict
) -> None:
    await created(client, "pay", **{"context": "/pay", "operations": BY_ID, **first})
    taker = document("taker", **{"context": "/pay", "operations": BY_ID, **second})
    answer = await client.post("/rest-apis", json=taker)
    assert (answer.status_code, answer.json()["message"]) == (409, TAKEN)
    await created(client, "taker", context="/other")
    answer = await client.put("/rest-apis/taker", json=taker)
    assert (answer.status_code, answer.json()["message"]) == (409, TAKEN)
    taker["spec"]["deploymentState"] = "undeployed"
    assert (await client.put("/rest-apis/taker", json=taker)).status_code == 200
    taker["spec"]["deploymentState"] = "deployed"
    assert (await client.put("/rest-apis/taker", json=taker)).status_code == 409
    assert (await client.delete("/rest-apis/pay")).status_code == 200
    assert (await client.put("/rest-apis/taker", json=taker)).status_code == 200


@pytest.mark.parametrize(
    "second",
    [
        {"context": "/pay/v2"},
        {"operations": [{"method": "POST", "path": "/{id}"}]},
        {"operations": [{"method": "GET", "path": "/{id}/*"}]},
        {"vhosts": {"main": "a.example.com"}},
        {"vhosts": {"main": "example.com"}, "upstream": SANDBOX},
    ],
)
async def test_apis_that_differ_share_a_context(client, second: dict) -> None:
    await created(client, "pay", context="/pay", operations=BY_ID)
    await created(client, "other", **{"context": "/pay", "operations": BY_ID, **second})
    again = document("pay", context="/pay", operations=BY_ID, displayName="changed")
    assert (await client.put("/rest-apis/pay", json=again)).status_code == 200


async def test_the_more_specific_host_goes_first_and_is_no_conflict(client) -> None:
    for name, host in (("one", "a.b.example"), ("two", "*.b.example"), ("three", "*.example")):
        await created(client, name, context="/pay", operations=BY_ID, vhosts={"main": host})


async def test_of_many_creators_on_one_context_one_wins(client) -> None:
    answers = await asyncio.gather(
        *(client.post("/rest-apis", json=document(f"n{i}", context="/pay")) for i in range(10))
    )
    assert sorted(one.status_code for one in answers) == [201] + [409] * 9


async def test_of_many_creators_one_wins(client) -> None:
    answers = await asyncio.gather(
        *(client.post("/rest-apis", json=document()) for _ in range(10)),
        *(client.post("/rest-apis", json=document(f"n{i}", displayName="one")) for i in range(10)),
    )
    statuses = [one.status_code for one in answers]
    assert sorted(statuses[:10]) == [201] + [409] * 9
    assert sorted(statuses[10:]) == [201] + [409] * 9
    assert (await client.get("/rest-apis")).json()["count"] == 2


async def test_concurrent_changes_are_all_counted(client, record: Record) -> None:
    await created(client)
    answers = await asyncio.gather(
        *(client.put("/rest-apis/weather", json=document(context=f"/c{i}")) for i in range(20))
    )
    assert sorted(one.json()["status"]["revision"] for one in answers) == list(range(2, 22))
    shown = (await client.get("/rest-apis/weather")).json()
    (last,) = [one.json() for one in answers if one.json()["status"]["revision"] == 21]
    assert shown == last
    assert len(await record.pending(100)) == 21


async def test_a_precondition_keeps_others_changes(client) -> None:
    tag = {"if-match": (await client.post("/rest-apis", json=document())).headers["etag"]}
    first = await client.put("/rest-apis/weather", json=document(context="/one"), headers=tag)
    assert first.status_code == 200
    second = await client.put("/rest-apis/weather", json=document(context="/two"), headers=tag)
    assert second.status_code == 412
    assert (await client.delete("/rest-apis/weather", headers=tag)).status_code == 412
    odd = {"if-match": '"x", "y"'}
    assert (await client.delete("/rest-apis/weather", headers=odd)).status_code == 400
    now = {"if-match": first.headers["etag"]}
    assert (await client.delete("/rest-apis/weather", headers=now)).status_code == 200


async def test_another_name_than_the_path_is_a_mismatch(client) -> None:
    await created(client)
    answer = await client.put("/rest-apis/weather", json=document("other"))
    assert answer.status_code == 400
    assert "mismatch" in answer.json()["message"]


@pytest.mark.parametrize("handle", ["nobody", "a%20b", "a%7Db", "%00", "a%0Ab", "..%2Fx"])
async def test_what_is_not_there_is_not_found(client, handle: str) -> None:
    for method in ("GET", "DELETE"):
        answer = await client.request(method, f"/rest-apis/{handle}")
        assert answer.status_code == 404
        assert answer.json()["status"] == "error"
    assert (await client.get(f"/rest-apis/{handle}/status")).status_code == 404


async def test_faults_are_told_field_by_field(client, metrics) -> None:
    answer = await client.post("/rest-apis", json=document(context=None, operations=[]))
    assert answer.status_code == 400
    assert answer.json() == {
        "status": "error",
        "message": "Configuration validation failed",
        "errors": [
            {"field": "spec.context", "message": "Context is required"},
            {"field": "spec.operations", "message": "At least one operation is required"},
        ],
    }
    counted = metrics.registry.get_sample_value(
        "gateway_controller_validation_errors_total", {"kind": "RestApi"}
    )
    assert counted == 2


async def test_what_cannot_be_parsed_is_told_so(client) -> None:
    for content, media_type, words in (
        (b"{", "application/json", "failed to parse JSON"),
        (b"a: [", "application/yaml", "failed to parse YAML"),
        (b"", "application/json", "failed to parse JSON"),
        (b"[1]", "application/json", "one object"),
    ):
        for method, path in (("POST", "/rest-apis"), ("PUT", "/rest-apis/weather")):
            headers = {"content-type": media_type}
            answer = await client.request(method, path, content=content, headers=headers)
            assert answer.status_code == 400
            message = answer.json()["message"]
            assert message.startswith("Failed to parse configuration:")
            assert words in message


@pytest.mark.parametrize("told", [True, False])
async def test_a_body_that_is_too_large_is_refused(client, told: bool) -> None:
    async def chunks():
        for _ in range(20):
            yield b" " * 1024

    content = b" " * 20_480 if told else chunks()
    answer = await client.post("/rest-apis", content=content)
    assert answer.status_code == 413
    assert "8192 bytes" in answer.json()["message"]


async def test_errors_of_the_framework_have_the_same_shape(client) -> None:
    for method, path, status in (
        ("GET", "/nothing", 404),
        ("PATCH", "/rest-apis", 405),
        ("GET", "/rest-apis/", 404),
    ):
        answer = await client.request(method, path)
        assert answer.status_code == status
        assert answer.json()["status"] == "error"
        assert answer.json()["message"]


async def test_the_status_tells_what_routers_made_of_it(client, deployments) -> None:
    await created(client)
    deployments.apply(RouterConnected(node="r1", version="1.40.0"))
    deployments.apply(RouterConnected(node="r2", version="1.40.0"))
    deployments.apply(ConfigurationApplied(node="r1", revisions={"weather": 1}))
    status = (await client.get("/rest-apis/weather")).json()["status"]
    assert status["routers"] == {"live": 1, "total": 2}
    assert "reason" not in status
    refusal = ConfigurationRejected(node="r2", api_id="weather", revision=1, reason="no such thing")
    deployments.apply(refusal)
    status = (await client.get("/rest-apis/weather")).json()["status"]
    assert (status["state"], status["reason"]) == ("deployed", "no such thing")
    liveness = (await client.get("/rest-apis/weather/status?waitSeconds=30")).json()
    assert (liveness["outcome"], liveness["reason"]) == ("rejected", "no such thing")
    assert (liveness["live"], liveness["total"], liveness["revision"]) == (1, 2, 1)
    routers = (await client.get("/routers")).json()
    assert routers["count"] == 2
    assert routers["routers"][0] == {
        "node": "r1",
        "version": "1.40.0",
        "connected": True,
        "revisions": {"weather": 1},
    }


async def test_a_wait_ends_when_the_last_router_has_it(client, deployments) -> None:
    deployments.apply(RouterConnected(node="r1"))
    await created(client)

    async def wait(query: str) -> dict:
        return (await client.get(f"/rest-apis/weather/status?{query}")).json()

    assert (await wait(""))["outcome"] == "pending"
    waiting = asyncio.create_task(wait("revision=1&waitSeconds=60"))
    await asyncio.sleep(0)
    deployments.apply(ConfigurationApplied(node="r1", revisions={"other": 1}))
    deployments.apply(ConfigurationApplied(node="r1", revisions={"weather": 1}))
    live = await asyncio.wait_for(waiting, 30)
    assert (live["outcome"], live["live"], live["total"]) == ("live", 1, 1)
    assert live["elapsedMs"] > 0
    await client.delete("/rest-apis/weather")
    waiting = asyncio.create_task(wait("revision=2&waitSeconds=60"))
    await asyncio.sleep(0)
    deployments.apply(ConfigurationApplied(node="r1", revisions={"weather": 2}))
    gone = await asyncio.wait_for(waiting, 30)
    assert (gone["state"], gone["outcome"], gone["live"]) == ("deleted", "live", 1)


async def test_a_wait_ends_after_its_time(client) -> None:
    await created(client)
    found = (await client.get("/rest-apis/weather/status?waitSeconds=0.05")).json()
    assert found["outcome"] == "pending"
    assert found["waitedMs"] >= 50
    for query in ("revision=0", "revision=x", "waitSeconds=-1", "waitSeconds=nan"):
        answer = await client.get(f"/rest-apis/weather/status?{query}")
        assert answer.status_code == 400, query
        assert answer.json()["errors"][0]["field"] in ("revision", "waitSeconds")


async def test_operations_are_counted(client, metrics) -> None:
    await created(client)
    await client.post("/rest-apis", json=document())
    sample = metrics.registry.get_sample_value
    labels = {"operation": "create", "status": "success"}
    assert sample("gateway_controller_api_operations_total", labels) == 1
    labels["status"] = "error"
    assert sample("gateway_controller_api_operations_total", labels) == 1
    labels = {"method": "POST", "endpoint": "/api/management/v1/rest-apis", "status": "201"}
    assert sample("gateway_controller_http_requests_total", labels) == 1
    labels = {"operation": "change", "status": "success"}
    assert sample("gateway_controller_database_operations_total", labels) == 2
