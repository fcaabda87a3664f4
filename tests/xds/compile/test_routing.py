"""What an API says about routing is what a real Envoy does."""

import pytest

from policy_engine.catalogue import load
from tests.servers.http_backend import Answer, Received, http_backend
from tests.xds.routing import api, router


async def test_a_path_below_the_context_is_put_behind_the_upstreams_base_path() -> None:
    async with http_backend() as backend:
        weather = api(f"""
            context: /weather/$version
            upstream: {{main: {{url: "http://127.0.0.1:{backend.port}/base"}}}}
            operations:
              - {{method: GET, path: /}}
              - {{method: GET, path: /cities}}
              - {{method: GET, path: "/cities/{{city}}"}}
              - {{method: GET, path: "/cities/{{city}}/days/{{day}}"}}
              - {{method: GET, path: /maps/*}}
        """)
        async with router(weather) as gateway:
            path = gateway.upstream_path
            assert await path("/weather/v1") == "/base"
            assert await path("/weather/v1/") == "/base/"
            assert await path("/weather/v1/cities?x=1") == "/base/cities?x=1"
            assert await path("/weather/v1/cities/") == "/base/cities/"
            assert await path("/weather/v1/cities/oslo") == "/base/cities/oslo"
            assert await path("/weather/v1/cities/oslo/") == "/base/cities/oslo/"
            assert await path("/weather/v1/cities/a/days/2?q") == "/base/cities/a/days/2?q"
            assert await path("/weather/v1/maps") == "/base/maps"
            assert await path("/weather/v1/maps/a/b/c") == "/base/maps/a/b/c"
            assert await path("/weather//v1/maps/x") == "/base/maps/x"


async def test_what_is_not_declared_is_not_found_whatever_the_method() -> None:
    async with http_backend() as backend:
        weather = api(f"""
            context: /weather/v1
            upstream: {{main: {{url: "http://127.0.0.1:{backend.port}"}}}}
            operations: [{{method: GET, path: /cities}}, {{method: GET, path: /maps/*}}]
        """)
        async with router(weather) as gateway:
            for path in (
                "/",
                "/weather",
                "/weather/v1",
                "/weather/v1/citiesx",
                "/weather/v2/cities",
            ):
                assert (await gateway.get(path)).status_code == 404
            assert (await gateway.get("/weather/v1/mapsx")).status_code == 404
            assert (await gateway.get("/weather/v1/cities", method="POST")).status_code == 404
            assert (await gateway.get("/weather/v1/cities")).status_code == 200
            assert (await gateway.get("/_gateway-health/ready")).status_code == 200


@pytest.mark.parametrize(
    ("context", "base", "asked", "seen"),
    [
        ("/c", "", "/c", "/"),
        ("/c", "", "/c/", "/"),
        ("/c", "", "/c/x/y", "/x/y"),
        ("/c", "/b", "/c", "/b"),
        ("/c", "/b", "/c/x", "/b/x"),
        ("/c", "/c", "/c/x", "/c/x"),
        ("/c.d/e", r"/b\1", "/c.d/e/x", r"/b\1/x"),
        ("/", "/b", "/x/y", "/b/x/y"),
        ("/", "", "/x/y", "/x/y"),
        ("/", "/b", "/", "/b/"),
    ],
)
async def test_everything_below_a_context_is_forwarded(
    context: str, base: str, asked: str, seen: str
) -> None:
    async with http_backend() as backend:
        everything = api(f"""
            context: {context}
            upstreamDefinitions:
              - name: u
                {"basePath: " + base if base else ""}
                upstreams: [{{url: "http://127.0.0.1:{backend.port}"}}]
            upstream: {{main: {{ref: u}}}}
            operations: [{{method: GET, path: /*}}]
        """)
        async with router(everything) as gateway:
            assert await gateway.upstream_path(asked) == seen


@pytest.mark.parametrize("tree_threshold", [2, 1000], ids=["tree", "list"])
async def test_the_most_specific_operation_wins_in_any_order(tree_threshold: int) -> None:
    names = ["/*", "/{a}/{b}", "/items/*", "/items/{id}", "/items/new", "/itemsx/{a}/c"]
    async with http_backend() as backend:
        operations = "".join(f'\n  - {{method: GET, path: "{name}"}}' for name in names)
        text = f"""
context: /shop
upstream: {{main: {{url: "http://127.0.0.1:{backend.port}"}}}}
operations:{operations}
  - match:
      method: GET
      path: {{value: /items/new}}
      headers: [{{name: x-beta, value: "[0-9]+", type: RegularExpression}}]
"""
        settings = {"matcher_tree_threshold": tree_threshold}
        async with router(api(text), settings=settings, mark_routes=True) as gateway:

            async def route(path: str, **headers: str) -> str:
                answer = await gateway.get(path, headers=headers)
                return answer.headers["x-route"].split("|")[1].removeprefix("/shop")

            assert await route("/shop/items/new?x") == "/items/new"
            assert await route("/shop/items/7") == "/items/{id}"
            assert await route("/shop/items/7/parts") == "/items/*"
            assert await route("/shop/items") == "/items/*"
            assert await route("/shop/a/b") == "/{a}/{b}"
            assert await route("/shop/itemsx/7/c") == "/itemsx/{a}/c"
            assert await route("/shop/itemsx/7") == "/{a}/{b}"
            assert await route("/shop/itemsy/7/c") == "/*"
            beta = await gateway.get("/shop/items/new", headers={"x-beta": "12"})
            assert beta.headers["x-route"].endswith("|x-beta=[0-9]+")
            stable = await gateway.get("/shop/items/new", headers={"x-beta": "no"})
            assert stable.headers["x-route"].endswith("|sample")


async def test_apis_of_one_first_segment_do_not_meet() -> None:
    async with http_backend() as backend:
        url = f"http://127.0.0.1:{backend.port}"
        versions = [
            api(f"""
                name: weather-{version}
                context: /weather/{version}
                upstream: {{main: {{url: "{url}/{version}"}}}}
                operations: [{{method: GET, path: /now}}]
            """)
            for version in ("v1", "v2", "v10")
        ]
        bare = api(f"""
            name: weather
            context: /weather
            upstream: {{main: {{url: "{url}/bare"}}}}
            operations: [{{method: GET, path: /*}}]
        """)
        async with router(*versions, bare) as gateway:
            for version in ("v1", "v2", "v10"):
                assert await gateway.upstream_path(f"/weather/{version}/now") == f"/{version}/now"
                assert await gateway.upstream_path(f"/weather/{version}/then") == 404
            assert await gateway.upstream_path("/weather/v3/now") == "/bare/v3/now"
            assert await gateway.upstream_path("/weather") == "/bare"


async def test_one_context_on_several_hosts_goes_to_several_apis() -> None:
    async with http_backend() as backend:
        url = f"http://127.0.0.1:{backend.port}"

        def shop(name: str, vhosts: str) -> str:
            return f"""
                name: {name}
                context: /shop
                {vhosts}
                upstream:
                  main: {{url: "{url}/{name}"}}
                  sandbox: {{url: "{url}/{name}-sandbox"}}
                operations: [{{method: GET, path: /now}}]
            """

        apis = [
            api(shop("a", "vhosts: {main: a.example;b.example, sandbox: try.a.example}")),
            api(shop("w", 'vhosts: {main: "*.wild.example"}')),
            api(shop("d", "")),
        ]
        async with router(*apis) as gateway:

            async def seen(host: str) -> str | int:
                return await gateway.upstream_path("/shop/now", host=host)

            assert await seen("a.example") == "/a/now"
            assert await seen("B.example:8080") == "/a/now"
            assert await seen("try.a.example") == "/a-sandbox/now"
            assert await seen("x.y.wild.example") == "/w/now"
            assert await seen("sandbox.local") == "/d-sandbox/now"
            assert await seen("other.example") == "/d/now"


async def test_an_api_on_named_hosts_answers_on_no_other() -> None:
    async with http_backend() as backend:
        named = api(f"""
            context: /shop
            vhosts: {{main: "a.example;*.b.example"}}
            upstream: {{main: {{url: "http://127.0.0.1:{backend.port}"}}}}
            operations: [{{method: GET, path: /now}}]
        """)
        async with router(named) as gateway:
            assert (await gateway.get("/shop/now", host="a.example")).status_code == 200
            assert (await gateway.get("/shop/now", host="x.b.example")).status_code == 200
            for host in ("b.example", "xa.example", "a.example.com", "127.0.0.1"):
                assert (await gateway.get("/shop/now", host=host)).status_code == 404


async def test_an_api_at_the_root_shares_the_gateway_with_others() -> None:
    async with http_backend() as backend:
        url = f"http://127.0.0.1:{backend.port}"
        literal = api(f"""
            name: literal
            context: /
            upstream: {{main: {{url: "{url}/literal"}}}}
            operations: [{{method: GET, path: /}}, {{method: GET, path: "/pets/{{id}}"}}]
        """)
        shop = api(f"""
            name: shop
            context: /shop
            upstream: {{main: {{url: "{url}/shop"}}}}
            operations: [{{method: GET, path: /now}}]
        """)
        whole = api(f"""
            name: whole
            context: /
            vhosts: {{main: whole.example}}
            upstream: {{main: {{url: "{url}/whole"}}}}
            operations: [{{method: GET, path: /*}}]
        """)
        anywhere = api(f"""
            name: anywhere
            context: /
            upstream: {{main: {{url: "{url}/anywhere"}}}}
            operations: [{{method: GET, path: "/{{x}}"}}]
        """)
        async with router(literal, shop) as gateway:
            assert await gateway.upstream_path("/") == "/literal/"
            assert await gateway.upstream_path("/pets/1") == "/literal/pets/1"
            assert await gateway.upstream_path("/shop/now") == "/shop/now"
            assert await gateway.upstream_path("/other") == 404
        async with router(literal, shop, whole) as gateway:
            assert await gateway.upstream_path("/a/b?c", host="Whole.Example") == "/whole/a/b?c"
            assert (
                await gateway.upstream_path("/shop/now", host="whole.example") == "/whole/shop/now"
            )
            assert await gateway.upstream_path("/pets/1") == "/literal/pets/1"
            assert await gateway.upstream_path("/other") == 404
        async with router(shop, anywhere) as gateway:
            assert await gateway.upstream_path("/a?b") == "/anywhere/a?b"
            assert await gateway.upstream_path("/shop/now") == "/shop/now"
            assert (await gateway.get("/_gateway-health/ready")).json() == {"status": "ready"}


async def test_the_upstreams_own_host_is_sent_unless_rewriting_is_manual() -> None:
    async with http_backend() as backend:
        port = backend.port
        both = api(f"""
            context: /c
            upstreamDefinitions:
              - name: two
                upstreams:
                  - {{url: "http://127.0.0.1:{port}", weight: 50}}
                  - {{url: "http://localhost:{port}", weight: 50}}
            upstream: {{main: {{ref: two}}, sandbox: {{ref: two, hostRewrite: manual}}}}
            vhosts: {{main: m.example, sandbox: s.example}}
            operations: [{{method: GET, path: /now}}]
        """)
        async with router(both) as gateway:
            hosts = set()
            for _ in range(20):
                answer = await gateway.get("/c/now", host="m.example")
                told = dict(answer.json()["headers"])
                hosts.add(told["host"])
                assert told["x-forwarded-host"] == "m.example"
                assert not [name for name in told if name.startswith("x-signalbox-")]
            assert hosts == {f"127.0.0.1:{port}", f"localhost:{port}"}
            answer = await gateway.get("/c/now", host="s.example")
            assert dict(answer.json()["headers"])["host"] == "s.example"


async def test_private_headers_of_a_client_reach_nobody() -> None:
    async with http_backend() as backend:
        one = api(f"""
            context: /c
            upstream: {{main: {{url: "http://127.0.0.1:{backend.port}"}}}}
            operations: [{{method: GET, path: /now}}]
        """)
        async with router(one) as gateway:
            forged = {"x-signalbox-application": "root", "x-signalbox-path": "/d", "x-own": "1"}
            told = dict((await gateway.get("/c/now", headers=forged)).json()["headers"])
            assert "x-signalbox-application" not in told
            assert told["x-own"] == "1"


def slow(request: Received) -> Answer:
    return Answer(delay_s=0.4)


async def test_a_slow_upstream_ends_at_the_declared_timeout() -> None:
    async with http_backend(answer=slow) as backend:
        one = api(f"""
            context: /c
            upstream: {{main: {{url: "http://127.0.0.1:{backend.port}"}}}}
            resilience: {{timeout: 100ms}}
            operations:
              - {{method: GET, path: /short}}
              - {{method: GET, path: /long, resilience: {{timeout: 0s}}}}
        """)
        async with router(one) as gateway:
            assert (await gateway.get("/c/short")).status_code == 504
            assert (await gateway.get("/c/long")).status_code == 200


async def test_a_limit_counts_once_for_all_hosts_and_slash_forms() -> None:
    async with http_backend() as backend:
        limit = "{name: basic-ratelimit, params: {limits: [{requests: 4, duration: 1m}]}}"
        both = api(f"""
            name: both
            context: /both
            vhosts: {{main: "a.example;b.example"}}
            upstream: {{main: {{url: "http://127.0.0.1:{backend.port}"}}}}
            policies: [{limit}]
            operations:
              - {{method: GET, path: /x}}
              - {{method: GET, path: /y}}
        """)
        other = api(f"""
            name: other
            context: /both
            vhosts: {{main: c.example}}
            upstream: {{main: {{url: "http://127.0.0.1:{backend.port}"}}}}
            operations: [{{method: GET, path: /x, policies: [{limit}]}}]
        """)
        async with router(both, other, catalogue=load()) as gateway:

            async def statuses(*asked: tuple[str, str]) -> list[int]:
                return [(await gateway.get(path, host=host)).status_code for path, host in asked]

            a, b, c = "a.example", "b.example", "c.example"
            spent = [("/both/x", a), ("/both/x/", b), ("/both/y", a), ("/both/y/", b)]
            assert await statuses(*spent, ("/both/x", b)) == [200, 200, 200, 200, 429]
            forms = [("/both/x", c), ("/both/x/", c)] * 2
            assert await statuses(*forms, ("/both/x/", c)) == [200, 200, 200, 200, 429]
