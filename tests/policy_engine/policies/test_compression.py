import pytest

from tests.policy_engine.attached import policy
from tests.policy_engine.gateway import Api, gateway
from tests.servers.http_backend import Answer

JSON = (("content-type", "application/json; charset=utf-8"),)


async def encoding(api: Api, answer: Answer, accepts: str | None = "gzip") -> str | None:
    async with gateway(api) as running:
        running.backend.answer = lambda _: answer
        found = await running.client.get("/", headers={"accept-encoding": accepts or "identity"})
        if found.headers.get("content-encoding") == "gzip":
            assert found.content == answer.body  # httpx decompresses
        return found.headers.get("content-encoding")


@pytest.mark.parametrize(
    ("accepts", "expected"),
    [
        ("gzip", "gzip"),
        ("br", "br"),
        ("zstd", "zstd"),
        ("gzip, br, zstd", "zstd"),
        ("gzip;q=1, br;q=0.1", "gzip"),
        ("deflate", None),
        (None, None),
    ],
)
async def test_the_caller_gets_what_it_accepts(accepts: str | None, expected: str | None) -> None:
    every = policy("compression", algorithms=["zstd", "brotli", "gzip"])
    assert (
        await encoding(Api((every,)), Answer(headers=JSON, body=b"a" * 5000), accepts) == expected
    )


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (Answer(headers=JSON, body=b"a" * 1024), "gzip"),
        (Answer(headers=JSON, body=b"a" * 1023), None),
        (Answer(headers=(("content-type", "image/png"),), body=b"a" * 5000), None),
        (Answer(headers=(*JSON, ("cache-control", "no-transform")), body=b"a" * 5000), None),
        (Answer(headers=(*JSON, ("content-encoding", "x")), body=b"a" * 5000), "x"),
    ],
)
async def test_only_what_is_worth_it_is_compressed(answer: Answer, expected: str | None) -> None:
    assert await encoding(Api((policy("compression"),)), answer) == expected


async def test_an_operation_without_it_is_not_compressed() -> None:
    squeeze = policy("compression")
    async with gateway(Api((), {"/small": (squeeze,), "/": ()})) as running:
        running.backend.answer = lambda _: Answer(headers=JSON, body=b"a" * 5000)
        assert "content-encoding" in (await running.client.get("/small")).headers
        assert "content-encoding" not in (await running.client.get("/")).headers


async def test_what_a_policy_says_about_the_answer_is_heard_in_order() -> None:
    plain = {"headers": [{"name": "Content-Type", "value": "application/x-own"}]}
    renamed, squeeze = policy("set-headers", response=plain), policy("compression")
    answer = Answer(headers=JSON, body=b"a" * 5000)
    assert await encoding(Api((renamed, squeeze)), answer) == "gzip"  # responses run backwards
    assert await encoding(Api((squeeze, renamed)), answer) is None
