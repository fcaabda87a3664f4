"""A service of one's own says where requests go, in a whole gateway."""

import json

import httpx

from tests.e2e.waiting import create, until
from tests.servers.gateway import gateway, rest_api
from tests.servers.http_backend import Answer, Received, http_backend


def by_header(asked: Received) -> Answer:
    """Sends requests where their header `x-to` says."""
    wanted = json.loads(asked.body)["requestHeaders"].get("x-to", "")
    return Answer(body=json.dumps({"dynamicEndpoint": {"endpointName": wanted}}).encode())


async def test_an_interceptor_service_chooses_among_the_upstreams_of_the_api() -> None:
    async with (
        http_backend() as first,
        http_backend() as second,
        http_backend(by_header) as service,
        gateway(tier="basic") as running,
        running.api() as api,
        httpx.AsyncClient(base_url=running.url, timeout=60) as client,
    ):
        document = rest_api(
            "shop",
            first.url,
            upstreamDefinitions=[
                {"name": "beta", "basePath": "/v2", "upstreams": [{"url": second.url}]}
            ],
            policies=[
                {
                    "name": "interceptor-service",
                    "params": {"endpoint": service.url, "request": {"passthroughOnError": True}},
                }
            ],
        )
        await create(api, document)
        await until(lambda: client.get("/shop/a"), lambda answer: answer.status_code == 200)
        assert first.last.path == "/a"
        assert not second.requests
        answer = await client.get("/shop/a?q=1", headers={"x-to": "beta"})
        assert answer.status_code == 200
        assert second.last.path == "/v2/a?q=1"
        seen = len(first.requests)
        refused = await client.get("/shop/a", headers={"x-to": "gone"})
        assert refused.status_code == 502
        assert "does not have" in refused.json()["message"]
        assert (len(first.requests), len(second.requests)) == (seen, 1)
        metrics = f"http://127.0.0.1:{running.port('engine_metrics')}/metrics"
        told = 'kind="unknown-upstream"'
        await until(lambda: client.get(metrics), lambda answer: told in answer.text)
