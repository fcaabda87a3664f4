import pytest

from policy_engine.engine import outside
from policy_engine.engine.outside import opened
from policy_engine.hooks import FetchFailed
from tests.servers.http_backend import Answer, http_backend


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "127.1"])
async def test_a_server_of_ones_own_is_not_asked_when_only_public_ones_may(host: str) -> None:
    async with http_backend() as server, opened() as internet:
        url = f"http://{host}:{server.port}/x"
        with pytest.raises(FetchFailed, match="not a public address"):
            await internet.fetch("GET", url, public_only=True)
        assert not server.requests
        assert (await internet.fetch("GET", url)).status == 200


async def test_the_address_that_was_looked_at_is_asked_by_the_name_that_was_given(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    looked_at: list[str] = []

    def allowed(address: str) -> bool:
        looked_at.append(address)
        return True

    monkeypatch.setattr(outside, "is_public", allowed)
    async with http_backend() as server, opened() as internet:
        url = f"http://localhost:{server.port}/x?y=1"
        answer = await internet.fetch("HEAD", url, headers={"x-a": "b"}, public_only=True)
        assert answer.status == 200
        assert looked_at
        assert server.last.path == "/x?y=1"
        assert server.last.header("host") == f"localhost:{server.port}"
        assert server.last.header("x-a") == "b"


async def test_cookies_of_servers_are_forgotten() -> None:
    async with http_backend() as server, opened() as internet:
        server.answer = lambda _: Answer(headers=(("set-cookie", "sid=1; Path=/"),))
        for _ in range(2):
            await internet.fetch("GET", f"http://127.0.0.1:{server.port}/")
        assert server.last.header("cookie") is None
