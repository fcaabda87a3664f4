"""One hop through a real Envoy: the engine in the process of the test."""

from typing import Any, ClassVar

from policy_engine.hooks import Answer, BodyVerdict, Exchange, PythonPolicy, Verdict
from policy_engine.policy import Document, Version
from tests.policy_engine.python_gateway import python_gateway, ref


class Stamp(PythonPolicy):
    """Puts a header on the request and on the answer."""

    name: ClassVar[str] = "stamp"
    version: ClassVar[Version] = Version(1, 0, 0)
    example: ClassVar[Document] = {"word": "a"}

    word: str

    def on_request_headers(self, exchange: Exchange) -> Verdict:
        exchange.request.headers.append("x-stamp", self.word)
        return None

    def on_response_headers(self, exchange: Exchange) -> Verdict:
        assert exchange.response is not None
        exchange.response.headers.append("x-stamped", self.word)
        return None


async def test_policies_run_in_order_towards_the_upstream_and_backwards_on_the_way_back() -> None:
    policies = [ref("stamp", word=word) for word in ("first", "second")]
    operations = {"GET /*": [ref("stamp", word="third")]}
    async with python_gateway(policies, operations, classes=[Stamp]) as gw:
        answer = await gw.client.get("/any")
        assert answer.status_code == 200
        assert gw.backend.last.all("x-stamp") == ["first", "second", "third"]
        assert answer.headers.get_list("x-stamped") == ["third", "second", "first"]
