from tests.policy_engine.attached import key_policy, policy
from tests.policy_engine.gateway import Api, gateway
from tests.servers.http_backend import Answer


def edits(*pairs: tuple[str, str]) -> dict[str, list[dict[str, str]]]:
    return {"headers": [{"name": name, "value": value} for name, value in pairs]}


def names(*wanted: str) -> dict[str, list[dict[str, str]]]:
    return {"headers": [{"name": name} for name in wanted]}


async def test_set_headers_replaces_in_both_directions() -> None:
    both = policy(
        "set-headers",
        request=edits(("X-Tenant", "acme"), ("X-New", "1")),
        response=edits(("Cache-Control", "no-store")),
    )
    async with gateway(Api((both,))) as running:
        running.backend.answer = lambda _: Answer(
            headers=(("Cache-Control", "public"), ("cache-control", "max-age=9"))
        )
        sent = [("X-Tenant", "one"), ("x-tenant", "two"), ("X-Kept", "yes")]
        answer = await running.client.get("/", headers=sent)
        assert running.backend.last.all("x-tenant") == ["acme"]
        assert running.backend.last.all("x-new") == ["1"]
        assert running.backend.last.all("x-kept") == ["yes"]
        assert answer.headers.get_list("cache-control") == ["no-store"]


async def test_values_are_taken_literally() -> None:
    value = "100% %REQ(:path)% %% %DOWNSTREAM_REMOTE_ADDRESS% \\1 {x} é"
    literal = policy(
        "set-headers", request=edits(("X-A", value), ("X-Empty", "")), response=edits(("X-B", "%"))
    )
    async with gateway(Api((literal,))) as running:
        answer = await running.client.get("/")
        received = running.backend.last.header("x-a")
        assert received is not None
        assert received.encode("latin-1").decode() == value
        assert running.backend.last.header("x-empty") == ""
        assert answer.headers["x-b"] == "%"


async def test_remove_headers_removes_all_values_in_both_directions() -> None:
    both = policy("remove-headers", request=names("X-Debug"), response=names("X-Powered-By"))
    async with gateway(Api((both,))) as running:
        running.backend.answer = lambda _: Answer(
            headers=(("X-Powered-By", "a"), ("x-powered-by", "b"), ("X-Kept", "yes"))
        )
        answer = await running.client.get("/", headers=[("X-Debug", "1"), ("x-debug", "2")])
        assert running.backend.last.all("x-debug") == []
        assert "x-powered-by" not in answer.headers
        assert answer.headers["x-kept"] == "yes"


async def test_requests_meet_the_api_then_the_operation_and_responses_the_other_way() -> None:
    above = policy("set-headers", request=edits(("X-A", "api")), response=edits(("X-B", "api")))
    below = policy("set-headers", request=edits(("X-A", "op")), response=edits(("X-B", "op")))
    async with gateway(Api((above,), {"/": (below,), "/plain": ()})) as running:
        answer = await running.client.get("/")
        assert running.backend.last.all("x-a") == ["op"]
        assert answer.headers.get_list("x-b") == ["api"]
        await running.client.get("/plain")
        assert running.backend.last.all("x-a") == ["api"]


async def test_policies_of_one_level_run_in_written_order() -> None:
    put = policy("set-headers", request=edits(("X-A", "1")))
    drop = policy("remove-headers", request=names("X-A"))
    for policies, expected in (((put, drop), []), ((drop, put), ["1"])):
        async with gateway(Api(policies)) as running:
            await running.client.get("/", headers={"X-A": "0"})
            assert running.backend.last.all("x-a") == expected


async def test_response_headers_are_set_on_refusals_too_wherever_they_stand() -> None:
    put = policy("set-headers", response=edits(("X-B", "1")))
    for policies in ((put, key_policy()), (key_policy(), put)):
        async with gateway(Api(policies)) as running:
            answer = await running.client.get("/")
            assert (answer.status_code, answer.headers["x-b"]) == (401, "1")
