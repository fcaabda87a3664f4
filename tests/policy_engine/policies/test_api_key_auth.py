import pytest

from policy_engine.parameters.headers import APPLICATION_HEADER
from tests.policy_engine.attached import UNAUTHORIZED, credential, key_policy
from tests.policy_engine.gateway import Api, Gateway, gateway

LONGEST = "x" * 4096


async def status(running: Gateway, *headers: tuple[str | bytes, str | bytes]) -> int:
    answer = await running.client.get("/", headers=list(headers))  # type: ignore[arg-type]
    if answer.status_code == 401:
        assert answer.json() == UNAUTHORIZED
        assert answer.headers["content-type"] == "application/json"
    return answer.status_code


async def test_only_live_keys_pass_and_say_whose_they_are() -> None:
    credentials = (
        credential("first", "Shop"),
        credential("second", "Shop"),
        credential(b"\xff\xfe\x80key", "Café 100%"),
        credential(LONGEST, "Long"),
        credential(LONGEST + "x", "Longer than any key"),
    )
    async with gateway(Api((key_policy(),), credentials=credentials)) as running:
        for key, application in (
            ("first", "Shop"),
            ("second", "Shop"),
            (b"\xff\xfe\x80key", "Caf%C3%A9 100%25"),
            (LONGEST, "Long"),
        ):
            assert await status(running, ("API-Key", key)) == 200
            assert running.backend.last.header(APPLICATION_HEADER) == application
        served = len(running.backend.requests)
        assert await status(running) == 401
        for key in ("", "nonsense", "First", "first x", LONGEST + "x"):
            assert await status(running, ("API-Key", key)) == 401
        assert len(running.backend.requests) == served


async def test_digests_are_right_at_every_block_boundary() -> None:
    lengths = (1, 54, 55, 56, 63, 64, 65, 69, 119, 120, 128, 1000)
    keys = [("apip_" + "0123456789abcdef" * 80)[:length] for length in lengths]
    credentials = tuple(credential(key) for key in keys)
    async with gateway(Api((key_policy(),), credentials=credentials)) as running:
        for key in keys:
            assert await status(running, ("API-Key", key)) == 200
            assert await status(running, ("API-Key", key + "-")) == 401


async def test_neither_key_nor_digest_reaches_the_upstream() -> None:
    known = credential("secret-key")
    async with gateway(Api((key_policy(),), credentials=(known,))) as running:
        assert await status(running, ("API-Key", "secret-key")) == 200
        told = repr(running.backend.last)
        assert "secret-key" not in told
        assert known.digest not in told


async def test_a_digest_cannot_be_presented_instead_of_its_key() -> None:
    known = credential("secret-key")
    async with gateway(Api((key_policy(),), credentials=(known,))) as running:
        assert await status(running, ("API-Key", known.digest)) == 401
        private = ("x-signalbox-api-key", known.digest)
        assert await status(running, private) == 401
    by_query = key_policy("key", "query")
    async with gateway(Api((by_query,), credentials=(known,))) as running:
        assert await status(running, ("x-signalbox-api-key", known.digest)) == 401
        assert (await running.client.get(f"/?key={known.digest}")).status_code == 401


async def test_who_calls_cannot_be_claimed() -> None:
    async with gateway(Api((key_policy(),), credentials=(credential("k", "Shop"),))) as running:
        assert await status(running, ("API-Key", "k"), (APPLICATION_HEADER, "Admin")) == 200
        assert running.backend.last.all(APPLICATION_HEADER) == ["Shop"]


async def test_a_key_that_is_presented_twice_is_refused() -> None:
    credentials = (credential("one"), credential("two"))
    async with gateway(Api((key_policy(),), credentials=credentials)) as running:
        assert await status(running, ("API-Key", "one"), ("API-Key", "two")) == 401
        assert await status(running, ("API-Key", "one"), ("api-key", "one")) == 401


async def test_without_live_keys_everybody_is_refused() -> None:
    async with gateway(Api((key_policy(),))) as running:
        assert await status(running) == 401
        assert await status(running, ("API-Key", "")) == 401
        assert await status(running, ("API-Key", "any")) == 401


async def test_only_keys_of_the_gateways_issuer_pass() -> None:
    credentials = (
        credential("portal's", issuer="portal"),
        credential("another's", issuer="other"),
        credential("nobody's"),
    )
    api = Api((key_policy(),), credentials=credentials, key_issuer="portal")
    async with gateway(api) as running:
        assert await status(running, ("API-Key", "portal's")) == 200
        assert await status(running, ("API-Key", "another's")) == 401
        assert await status(running, ("API-Key", "nobody's")) == 401


async def test_a_prefix_stands_before_the_key_in_any_case() -> None:
    bearer = key_policy("Authorization", valuePrefix="Bearer")
    async with gateway(Api((bearer,), credentials=(credential("k1"),))) as running:
        for value in ("Bearer k1", "bearer k1", "BEARER   k1"):
            assert await status(running, ("Authorization", value)) == 200
            assert running.backend.last.header("authorization") is None
        for value in ("k1", "Bearer", "Basic k1", "Bearer k2", "Bear k1"):
            assert await status(running, ("Authorization", value)) == 401


async def test_a_key_in_the_query_is_decoded_and_taken_off_the_path() -> None:
    api = Api((key_policy("api key", "query"),), credentials=(credential("a+b c"),))
    async with gateway(api) as running:
        for path, forwarded in (
            ("/?api%20key=a%2Bb%20c", "/"),
            ("/?x=1&api+key=a%2bb+c&y=%20", "/?x=1&y=%20"),
            ("/sub?api+key=a%2Bb%20c&x", "/sub?x"),
        ):
            assert (await running.client.get(path)).status_code == 200
            assert running.backend.last.path == forwarded
            assert running.backend.last.header("x-signalbox-api-key") is None
        served = len(running.backend.requests)
        for path in (
            "/",
            "/?",
            "/?api+key",
            "/?api+key=",
            "/?api+key=a%2Bb%20c&api+key=a%2Bb%20c",
            "/?api+key=other",
            "/?API+KEY=a%2Bb%20c",
            "/?apikey=a%2Bb%20c",
            "/?x=api+key=a%2Bb%20c",
        ):
            assert (await running.client.get(path)).status_code == 401
        assert len(running.backend.requests) == served


@pytest.mark.parametrize("where", ["header", "query"])
async def test_asked_at_both_levels_the_same_key_opens_both(where: str) -> None:
    ask = key_policy("key", where)
    api = Api((ask,), {"/": (), "/both": (ask,)}, (credential("k"),))
    presented = {"headers": {"key": "k"}} if where == "header" else {"params": {"key": "k"}}
    async with gateway(api) as running:
        for path in ("/", "/both"):
            answer = await running.client.get(path, **presented)  # type: ignore[arg-type]
            assert answer.status_code == 200
            assert "key" not in running.backend.last.path
            assert running.backend.last.header("key") is None
            assert (await running.client.get(path)).status_code == 401


async def test_an_operation_may_ask_for_a_second_key_elsewhere() -> None:
    api = Api((key_policy("One"),), {"/": (key_policy("Two"),)}, (credential("k"),))
    async with gateway(api) as running:
        assert await status(running, ("One", "k"), ("Two", "k")) == 200
        assert await status(running, ("One", "k")) == 401
        assert await status(running, ("Two", "k")) == 401


async def test_a_key_in_the_query_does_not_stand_for_a_header_of_the_same_name() -> None:
    api = Api((key_policy("key", "query"),), {"/": (key_policy("key"),)}, (credential("k"),))
    async with gateway(api) as running:
        assert (await running.client.get("/?key=k")).status_code == 401
        assert (await running.client.get("/?key=k", headers={"key": "k"})).status_code == 200


async def test_many_keys_open_one_api() -> None:
    credentials = tuple(credential(f"key-{number}", f"app-{number}") for number in range(1000))
    async with gateway(Api((key_policy(),), credentials=credentials)) as running:
        for number in (0, 500, 999):
            assert await status(running, ("API-Key", f"key-{number}")) == 200
            assert running.backend.last.header(APPLICATION_HEADER) == f"app-{number}"
        assert await status(running, ("API-Key", "key-1000")) == 401
