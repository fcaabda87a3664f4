from typing import Any

import pytest

from policy_engine.errors import InvalidParameters
from policy_engine.policies.json_xml_mediator import JsonXmlMediator
from tests.policy_engine.attached import policy
from tests.policy_engine.packed import PACK
from tests.policy_engine.python_gateway import PythonGateway, python_gateway, ref
from tests.servers.http_backend import Answer

HEAD = '<?xml version="1.0" encoding="UTF-8"?>\n'
TO_XML = ref("json-xml-mediator", **JsonXmlMediator.example)
TO_JSON = ref("json-xml-mediator", downstreamPayloadFormat="xml", upstreamPayloadFormat="json")
XML = (("content-type", "application/xml; charset=utf-8"),)
JSON = (("content-type", "application/json"),)


def refused(answer: Any, status: int) -> str:
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/json"
    body = answer.json()
    assert body["error"] == {400: "Bad Request", 500: "Internal Server Error"}[status]
    return str(body["message"])


async def send(running: PythonGateway, body: str | bytes, kind: str | None) -> Any:
    headers = {} if kind is None else {"Content-Type": kind}
    return await running.client.post("/orders", content=body, headers=headers)


async def test_a_json_caller_speaks_with_an_xml_upstream() -> None:
    said = Answer(201, XML, b'<order id="7"><line><q>1</q></line><line><q>2</q></line></order>')
    async with python_gateway([TO_XML], upstream=lambda _: said) as running:
        answer = await running.client.post(
            "/orders",
            json={"orderId": "12345", "items": [{"name": "Widget"}, {"name": "Gadget"}]},
            headers={"Accept": "application/json", "Accept-Encoding": "gzip"},
        )
        got = running.backend.last
        assert got.body.decode() == (
            f"{HEAD}<root><orderId>12345</orderId><items><item><name>Widget</name></item>"
            "<item><name>Gadget</name></item></items></root>"
        )
        assert got.header("content-type") == "application/xml"
        assert got.header("content-length") == str(len(got.body))
        assert got.header("accept") == "application/xml"
        assert got.header("accept-encoding") is None
        assert answer.status_code == 201
        assert answer.headers["content-type"] == "application/json"
        assert answer.json() == {"order": {"@id": "7", "line": [{"q": "1"}, {"q": "2"}]}}


async def test_an_xml_caller_speaks_with_a_json_upstream() -> None:
    said = Answer(200, JSON, b'{"status":"created"}')
    async with python_gateway([TO_JSON], upstream=lambda _: said) as running:
        answer = await send(running, "<user><name>Jane</name></user>", "text/xml")
        assert running.backend.last.body == b'{"user":{"name":"Jane"}}'
        assert running.backend.last.header("content-type") == "application/json"
        assert answer.headers["content-type"] == "application/xml"
        assert answer.text == f"{HEAD}<root><status>created</status></root>"


async def test_types_are_detected_where_it_is_asked_for() -> None:
    params = {"downstreamPayloadFormat": "xml", "upstreamPayloadFormat": "json"}
    async with python_gateway(
        [ref("json-xml-mediator", **params, detectTypes=True)],
        upstream=lambda _: Answer(200, ()),
    ) as running:
        await send(running, "<p><age>30</age></p>", "application/xml")
        assert running.backend.last.body == b'{"p":{"age":30}}'


async def test_empty_bodies_stay() -> None:
    async with python_gateway([TO_XML], upstream=lambda _: Answer(204, ())) as running:
        for method in ("GET", "POST", "HEAD"):
            answer = await running.client.request(method, "/orders")
            assert (answer.status_code, answer.content) == (204, b"")
            assert running.backend.last.body == b""


@pytest.mark.parametrize(
    ("body", "kind", "reason"),
    [
        ("{", "application/json", "cannot be converted: not valid JSON"),
        ('{"a":"\\u0001"}', None, "control characters"),
        ("<a/>", "application/xml", "must be JSON (application/json)"),
        ("a=b", "application/x-www-form-urlencoded", "must be JSON"),
        ("{}", "application/json; charset=utf-16", "JSON is UTF-8, not utf-16"),
    ],
)
async def test_a_request_that_is_not_json_is_refused(
    body: str, kind: str | None, reason: str
) -> None:
    async with python_gateway([TO_XML]) as running:
        assert reason in refused(await send(running, body, kind), 400)
        assert not running.backend.requests


async def test_dangerous_xml_is_refused() -> None:
    laughs = '<!DOCTYPE l [<!ENTITY a "lol"><!ENTITY b "&a;&a;">]><l>&b;</l>'
    async with python_gateway([TO_JSON]) as running:
        for body, reason in ((laughs, "document types"), ("<a>" * 200, "more than 100 levels")):
            assert reason in refused(await send(running, body, "application/xml"), 400)
        assert not running.backend.requests


@pytest.mark.parametrize("coding", ["gzip", "br", "zstd"])
async def test_compressed_bodies_are_converted(coding: str) -> None:
    said = Answer(200, (*XML, ("content-encoding", coding)), PACK[coding](b"<ok>1</ok>"))
    async with python_gateway([TO_XML], upstream=lambda _: said) as running:
        headers = {"Content-Type": "application/json", "Content-Encoding": coding}
        body = PACK[coding](b'{"a":"b"}')
        answer = await running.client.post("/orders", content=body, headers=headers)
        got = running.backend.last
        assert got.body.decode() == f"{HEAD}<root><a>b</a></root>"
        assert got.header("content-encoding") is None
        assert got.header("content-length") == str(len(got.body))
        assert answer.json() == {"ok": "1"}
        assert "content-encoding" not in answer.headers


@pytest.mark.parametrize(
    ("coding", "body", "reason"),
    [
        ("compress", b"x", "content coding 'compress' cannot be read"),
        ("gzip", b"\x1f\x8b", "ends too early"),
        ("br", b"no", "not br"),
        ("zstd", PACK["zstd"](bytes(17 << 20)), "longer than 16777216 bytes"),
    ],
)
async def test_a_body_that_cannot_be_decompressed_goes_nowhere(
    coding: str, body: bytes, reason: str
) -> None:
    async with python_gateway(
        [TO_XML], upstream=lambda _: Answer(200, (*XML, ("content-encoding", coding)), body)
    ) as running:
        headers = {"Content-Type": "application/json", "Content-Encoding": coding}
        answer = await running.client.post("/orders", content=body, headers=headers)
        assert reason in refused(answer, 400)
        assert not running.backend.requests
        assert reason in refused(await send(running, "{}", "application/json"), 500)


@pytest.mark.parametrize(
    ("headers", "body"),
    [
        ((("content-type", "text/html"),), b"<h1>Bad gateway</h1>"),
        (JSON, b'{"already":true}'),
        ((("content-type", "image/png"),), b"\x89PNG"),
    ],
)
async def test_an_answer_of_neither_form_or_already_right_stays(
    headers: tuple[tuple[str, str], ...], body: bytes
) -> None:
    async with python_gateway([TO_XML], upstream=lambda _: Answer(502, headers, body)) as running:
        answer = await send(running, "{}", "application/json")
        assert (answer.status_code, answer.content) == (502, body)
        assert answer.headers["content-type"] == headers[0][1]


async def test_an_answer_that_cannot_be_converted_is_not_given() -> None:
    async with python_gateway([TO_XML], upstream=lambda _: Answer(200, XML, b"<a>")) as running:
        answer = await send(running, "{}", "application/json")
        assert "The upstream's answer cannot be converted" in refused(answer, 500)


@pytest.mark.parametrize(
    ("params", "reason"),
    [
        ({}, "upstreamPayloadFormat"),
        ({"upstreamPayloadFormat": "xml"}, "downstreamPayloadFormat is required"),
        ({"upstreamPayloadFormat": "yaml", "downstreamPayloadFormat": "xml"}, "upstream"),
        ({"upstreamPayloadFormat": "xml", "downstreamPayloadFormat": "xml"}, "must differ"),
        ({"upstreamPayloadFormat": "xml", "downsteamPayloadFormat": "xml"}, "must differ"),
        (
            {
                "upstreamPayloadFormat": "xml",
                "downstreamPayloadFormat": "json",
                "downsteamPayloadFormat": "xml",
            },
            "differ",
        ),
    ],
)
def test_wrong_parameters_are_told(params: dict[str, Any], reason: str) -> None:
    with pytest.raises(InvalidParameters, match=reason):
        policy("json-xml-mediator", **params)


def test_the_misspelt_parameter_is_understood() -> None:
    policy("json-xml-mediator", upstreamPayloadFormat="xml", downsteamPayloadFormat="json")
