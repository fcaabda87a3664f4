import asyncio
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from policy_engine.hooks import Answer, Exchange, Fetched, FetchFailed
from policy_engine.policies.url_guardrail import MOST_URLS, UrlGuardrail, urls
from policy_engine.system import SystemParameters
from tests.policy_engine.attached import CATALOGUE, policy
from tests.policy_engine.exchanges import answered, exchange, result
from tests.policy_engine.guardrails.by_hand import DONE, document, event, prompt
from tests.policy_engine.python_gateway import python_gateway, ref
from tests.servers.http_backend import Answer as Told
from tests.servers.http_backend import http_backend

NAME = "url-guardrail"


class Internet:
    """Knows hosts by their names, and remembers what it was asked."""

    def __init__(self, status: int = 200, patience_s: float = 0.0) -> None:
        self.asked: list[tuple[str, str, bool]] = []
        self.busy = self.busiest = 0
        self._status = status
        self._patience_s = patience_s

    async def fetch(self, method: str, url: str, **options: Any) -> Fetched:
        self.asked.append((method, url, options["public_only"]))
        self.busy += 1
        self.busiest = max(self.busiest, self.busy)
        try:
            await asyncio.sleep(self._patience_s)
        finally:
            self.busy -= 1
        if "gone" in url:
            raise FetchFailed("nobody there")
        return Fetched(404 if "missing" in url else self._status, {}, b"")

    async def resolves(self, host: str, timeout_s: float) -> bool:
        self.asked.append(("DNS", host, True))
        await asyncio.sleep(min(self._patience_s, timeout_s))
        return "gone" not in host


def made(**params: Any) -> UrlGuardrail:
    one = policy(NAME, **params)
    assert isinstance(one, UrlGuardrail)
    return one


async def verdict(one: UrlGuardrail, text: str, asked: Exchange) -> Answer | None:
    said = await result(one.on_request_body(asked, prompt(text)))
    assert said is None or isinstance(said, Answer)
    return said


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("nothing, not even ftp://x.example or http//", []),
        (
            "See https://a.example/x. And (http://b.example/y)!",
            ["https://a.example/x", "http://b.example/y"],
        ),
        (
            "https://en.example/wiki/Envoy_(software), HTTP://B.example:8080/?q=1&r=[2]#f",
            ["https://en.example/wiki/Envoy_(software)", "HTTP://B.example:8080/?q=1&r=[2]#f"],
        ),
        ('<https://a.example> "https://a.example" `https://a.example`', ["https://a.example"]),
        ("[text](https://a.example/b)", ["https://a.example/b"]),
        (
            "„https://a.example“ 看https://b.example/路径\uff0c谢谢。",
            ["https://a.example", "https://b.example/路径"],
        ),
        (
            f"https://a.example/{'(' * 200_000}{')' * 400_000}",
            [f"https://a.example/{'(' * 200_000}{')' * 200_000}"],
        ),
    ],
)
def test_urls_are_found_without_the_punctuation_behind_them(text: str, found: list[str]) -> None:
    assert urls(text) == found


async def test_escapes_hide_no_url_in_a_whole_body() -> None:
    one = made(request={"jsonPath": ""})
    said = await result(one.on_request_body(exchange(), rb'{"p": "https:\/\/127.0.0.1\/x"}'))
    assert isinstance(said, Answer)


async def test_every_url_must_be_reached() -> None:
    one = made(request={"showAssessment": True})
    internet = Internet()
    text = "https://a.example/x https://missing.example/ http://gone.example https://a.example/x"
    said = document(await verdict(one, text, exchange(outside=internet)))
    assert said["type"] == "URL_GUARDRAIL"
    assert said["message"]["actionReason"] == "Violation of url validity detected."
    assert said["message"]["assessments"] == {
        "invalidUrls": ["https://missing.example/", "http://gone.example"],
        "message": "One or more URLs in the payload failed validation.",
    }
    assert sorted(internet.asked) == [
        ("HEAD", "http://gone.example", True),
        ("HEAD", "https://a.example/x", True),
        ("HEAD", "https://missing.example/", True),
    ]
    assert await verdict(one, "https://a.example/", exchange(outside=internet)) is None
    assert await verdict(one, "no URL", exchange(outside=internet)) is None


@pytest.mark.parametrize(
    ("status", "fine"), [(204, True), (302, True), (403, False), (405, True), (500, False)]
)
async def test_a_status_says_whether_a_url_is_valid(status: int, fine: bool) -> None:
    said = await verdict(made(request={}), "https://a.example", exchange(outside=Internet(status)))
    assert (said is None) is fine


async def test_dns_is_enough_where_it_is_said_to_be() -> None:
    one = made(request={"onlyDNS": True})
    internet = Internet()
    assert await verdict(one, "https://a.example/missing", exchange(outside=internet)) is None
    assert await verdict(one, "https://gone.example/", exchange(outside=internet)) is not None
    assert [method for method, *_ in internet.asked] == ["DNS", "DNS"]


async def test_the_other_way_round_some_url_must_be_invalid() -> None:
    one = made(request={"invert": True})
    for text, passes in (
        ("https://a.example", False),
        ("https://gone.example", True),
        ("https://a.example https://gone.example", True),
        ("no URL", True),
    ):
        assert (await verdict(one, text, exchange(outside=Internet())) is None) is passes


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1:9901/quitquitquit",
        "http://[::1]/",
        "http://169.254.169.254/latest/meta-data",
        "http://10.0.0.1",
        "http://[::ffff:127.0.0.1]/",
        "https://user:password@a.example/",
        "http://a.example:99999/",
        "http://[bad/",
        f"http://a.example/{'x' * 3000}",
    ],
)
async def test_servers_of_ones_own_and_broken_urls_are_never_contacted(url: str) -> None:
    for only_dns in (False, True):
        internet = Internet()
        one = made(request={"onlyDNS": only_dns})
        assert await verdict(one, url, exchange(outside=internet)) is not None
        assert internet.asked == []


async def test_whoever_runs_the_gateway_may_allow_servers_of_its_own() -> None:
    system = SystemParameters(url_guardrail_private_addresses=True)
    async with http_backend() as backend:
        internet = Internet()
        asked = exchange(outside=internet, system=system)
        assert await verdict(made(request={}), backend.url, asked) is None
        assert internet.asked == [("HEAD", backend.url, False)]


async def test_checking_takes_no_longer_than_it_may_and_asks_ten_at_a_time() -> None:
    one = made(request={"timeout": 200, "showAssessment": True})
    slow = Internet(patience_s=60)
    said = document(await verdict(one, "https://a.example", exchange(outside=slow)))
    assert said["message"]["assessments"]["invalidUrls"] == ["https://a.example"]
    assert slow.busy == 0
    assert one.patience_s(SystemParameters()) == 1.2
    many = " ".join(f"https://{number}.example" for number in range(MOST_URLS))
    internet = Internet(patience_s=0.001)
    assert await verdict(made(request={}), many, exchange(outside=internet)) is None
    assert (len(internet.asked), internet.busiest) == (MOST_URLS, 10)


async def test_nobody_is_made_to_ask_many_servers() -> None:
    many = " ".join(f"https://{number}.example" for number in range(MOST_URLS + 1))
    internet = Internet()
    assert await verdict(made(request={}), many, exchange(outside=internet)) is not None
    assert internet.asked == []


async def streamed(one: UrlGuardrail, parts: list[bytes]) -> tuple[list[bytes], bytes | None]:
    asked = answered(exchange(outside=Internet()), content_type="text/event-stream")
    one.on_response_headers(asked)
    got: list[bytes] = []
    for position, part in enumerate(parts):
        said = await result(one.on_response_chunk(asked, part, last=position == len(parts) - 1))
        if isinstance(said, Answer):
            return got, said.body
        assert isinstance(said, bytes)
        got.append(said)
    return got, None


async def test_a_stream_is_held_while_a_url_in_it_may_go_on() -> None:
    one = made(response={"enabled": True})
    parts = [event("See ht"), event("tps://a.exa"), event("mple/x"), event(" and so on"), DONE]
    got, intervention = await streamed(one, parts)
    assert (got, intervention) == ([b"", b"", b"", b"".join(parts[:4]), DONE], None)
    parts = [event("Fine. "), event("See https://go"), event("ne.example"), event(" now"), DONE]
    got, intervention = await streamed(one, parts)
    assert got == [parts[0], b"", b""]
    assert intervention is not None
    assert intervention.startswith(b'data: {"type":"URL_GUARDRAIL"')
    got, intervention = await streamed(one, [event("https://gone.example"), DONE])
    assert (got, bool(intervention)) == ([b""], True)


@given(
    st.lists(
        st.sampled_from(["https://a.example", "http", "s://", " ", "gone.", "x", "://b.example/"]),
        max_size=8,
    )
)
async def test_a_stream_is_judged_as_its_whole_text(pieces: list[str]) -> None:
    one = made(response={"enabled": True})
    _, intervention = await streamed(one, [*map(event, pieces), DONE])
    text = "".join(pieces)
    body = orjson.dumps({"choices": [{"message": {"content": text}}]})
    whole = await result(one.on_response_body(answered(exchange(outside=Internet())), body))
    assert (intervention is None) is (whole is None)


async def test_the_example_and_a_server_that_is_there_and_one_that_is_not() -> None:
    system = SystemParameters(url_guardrail_private_addresses=True)
    example = CATALOGUE.resolve(NAME).example
    operations = {
        "POST /example": [ref(NAME, **example)],
        "POST /asked": [ref(NAME, request={"showAssessment": True})],
    }
    async with (
        http_backend(lambda one: Told(404 if one.path == "/missing" else 200)) as server,
        python_gateway(operations=operations, system=system) as running,
    ):
        post = running.client.post
        assert (await post("/example", content=prompt("http://localhost/"))).status_code == 200
        refused = await post("/example", content=prompt("http://nobody.invalid/"))
        assert refused.status_code == 422
        invalid = refused.json()["message"]["assessments"]["invalidUrls"]
        assert invalid == ["http://nobody.invalid/"]
        assert (await post("/asked", content=prompt(f"{server.url}/there"))).status_code == 200
        assert (server.last.method, server.last.path) == ("HEAD", "/there")
        assert (await post("/asked", content=prompt(f"{server.url}/missing"))).status_code == 422
        assert len(running.backend.requests) == 2


async def test_without_leave_no_server_of_ones_own_is_contacted_by_any_name() -> None:
    async with (
        http_backend() as server,
        python_gateway([ref(NAME, request={})]) as running,
    ):
        for host in ("127.0.0.1", "localhost", "127.1", "2130706433", "[::ffff:127.0.0.1]"):
            text = f"http://{host}:{server.port}/"
            answer = await running.client.post("/", content=prompt(text))
            assert answer.status_code == 422
        assert not server.requests
