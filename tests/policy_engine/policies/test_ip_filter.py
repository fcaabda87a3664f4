import httpx

from policy_engine.policy import Policy
from tests.policy_engine.attached import credential, key_policy, limit, policy
from tests.policy_engine.gateway import Api, Gateway, gateway

REFUSED = {"error": "Forbidden", "message": "Requests from this address are not allowed"}


def addresses(**params: list[str]) -> Policy:
    return policy("ip-filter", **params)


async def status(running: Gateway, address: str, path: str = "/") -> int:
    """Asked from `address`: one of the loopback, or as a trusted proxy says."""
    if address.startswith("127."):
        transport = httpx.AsyncHTTPTransport(local_address=address)
        async with httpx.AsyncClient(transport=transport, timeout=30) as client:
            answer = await client.get(f"http://127.0.0.1:{running.port}{path}")
    else:
        answer = await running.client.get(path, headers={"X-Forwarded-For": address})
    if answer.status_code == 403:
        assert answer.json() == REFUSED
        assert answer.headers["content-type"] == "application/json"
    return answer.status_code


async def test_only_allowed_addresses_pass() -> None:
    allowed = addresses(allow=["127.0.0.2", "10.0.0.0/8", "2001:db8::/32"])
    async with gateway(Api((allowed,))) as running:
        for address in ("127.0.0.2", "10.255.0.1", "2001:db8:ffff::1"):
            assert await status(running, address) == 200, address
        for address in ("127.0.0.1", "127.0.0.3", "11.0.0.1", "2001:db9::1", "::1"):
            assert await status(running, address) == 403, address
        assert len(running.backend.requests) == 3


async def test_all_but_denied_addresses_pass_when_none_are_named() -> None:
    async with gateway(Api((addresses(deny=["127.0.0.2", "2001:db8::/32"]),))) as running:
        assert await status(running, "127.0.0.1") == 200
        assert await status(running, "2001:db9::1") == 200
        assert await status(running, "127.0.0.2") == 403
        assert await status(running, "2001:db8::7") == 403


async def test_denied_wins_over_allowed() -> None:
    both = addresses(allow=["127.0.0.0/8"], deny=["127.0.0.2/31"])
    async with gateway(Api((both,))) as running:
        assert await status(running, "127.0.0.1") == 200
        assert await status(running, "127.0.0.2") == 403
        assert await status(running, "127.0.0.3") == 403


async def test_both_levels_must_agree() -> None:
    api = Api((addresses(deny=["127.0.0.2"]),), {"/": (), "/in": (addresses(deny=["127.0.0.3"]),)})
    async with gateway(api) as running:
        for address, outside, inside in (
            ("127.0.0.1", 200, 200),
            ("127.0.0.2", 403, 403),
            ("127.0.0.3", 200, 403),
        ):
            assert await status(running, address) == outside
            assert await status(running, address, "/in") == inside


async def test_order_decides_who_is_counted_and_who_is_asked_for_a_key() -> None:
    local = addresses(allow=["127.0.0.1"])
    async with gateway(Api((local, limit(1)))) as running:
        assert [await status(running, f"127.0.0.{n}") for n in (2, 2, 1, 1)] == [403, 403, 200, 429]
    async with gateway(Api((key_policy(), local), credentials=(credential("k"),))) as running:
        assert await status(running, "127.0.0.2") == 401
