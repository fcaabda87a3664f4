"""Bodies in XML and of forms, by the policy openapi-validation."""

from typing import Any

import httpx
import orjson
import pytest

from policy_engine.hooks import Answer
from policy_engine.policies.openapi_validation import OpenapiValidation
from tests.policy_engine.attached import policy
from tests.policy_engine.exchanges import answered, exchange, result
from tests.policy_engine.packed import PACK
from tests.policy_engine.python_gateway import PythonGateway, python_gateway, ref
from tests.servers.http_backend import Answer as Told

NAME = "openapi-validation"
XML = {"content-type": "application/xml; charset=utf-8"}
FORM = {"content-type": "application/x-www-form-urlencoded"}

PET = """
      type: object
      required: [name]
      additionalProperties: false
      xml: {name: pet, namespace: "urn:example:pets"}
      properties:
        id: {type: integer, minimum: 1, xml: {attribute: true}}
        name: {type: string, minLength: 1}
        tags:
          type: array
          maxItems: 2
          xml: {wrapped: true}
          items: {type: string, xml: {name: tag}}
"""
DOCUMENT = f"""
openapi: 3.0.3
info: {{title: Pets, version: "1"}}
paths:
  /pets:
    post:
      requestBody:
        required: true
        content: {{application/xml: {{schema: {{$ref: "#/components/schemas/Pet"}}}}}}
      responses:
        "200":
          description: a pet
          content: {{application/xml: {{schema: {{$ref: "#/components/schemas/Pet"}}}}}}
  /photos:
    post:
      requestBody:
        content:
          multipart/form-data:
            schema: {{$ref: "#/components/schemas/Upload"}}
            encoding: {{photo: {{contentType: "image/png, image/jpeg"}}}}
          application/x-www-form-urlencoded:
            schema: {{$ref: "#/components/schemas/Fields"}}
            encoding: {{sizes: {{explode: false}}}}
      responses: {{default: {{description: done}}}}
components:
  schemas:
    Pet: {PET}
    Upload:
      type: object
      required: [title, photo]
      additionalProperties: false
      properties:
        title: {{type: string, maxLength: 5}}
        count: {{type: integer}}
        about: {{type: object, required: [by], properties: {{by: {{type: string}}}}}}
        notes: {{type: array, items: {{type: integer}}}}
        people: {{type: array, items: {{type: object, required: [name]}}}}
        photo: {{type: string, format: binary, minLength: 4, maxLength: 10}}
        more: {{type: array, maxItems: 2, items: {{type: string, format: binary, maxLength: 3}}}}
    Fields:
      type: object
      properties:
        sizes: {{type: array, items: {{type: integer}}}}
        marks: {{type: array, items: {{type: integer}}}}
        count: {{type: integer}}
        about: {{type: object, required: [by]}}
"""
PNG = b"\x89PNG\r\n\x1a\n"


def made(**params: Any) -> OpenapiValidation:
    one = policy(NAME, **{"document": DOCUMENT, **params})
    assert isinstance(one, OpenapiValidation)
    return one


async def faults(
    path: str, body: bytes, headers: dict[str, str], one: OpenapiValidation | None = None
) -> list[tuple[str, str]]:
    """Name and message of what is refused of a body."""
    one = one or made()
    asked = exchange(headers, method="POST", path=f"/orders{path}")
    said = await result(one.on_request_headers(asked)) or one.on_request_body(asked, body)
    if said is None:
        return []
    assert isinstance(said, Answer)
    assert said.status == 400
    told = orjson.loads(said.body)["faults"]
    assert {fault["in"] for fault in told} <= {"body"}
    return [(fault.get("name", ""), fault["message"]) for fault in told]


def pet(inside: str, attributes: str = "") -> bytes:
    return f'<pet xmlns="urn:example:pets"{attributes}>{inside}</pet>'.encode()


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (pet("<name>Rex</name><tags><tag>a</tag><tag>b</tag></tags>", ' id="1"'), []),
        (pet(""), [("", '"name" is a required property')]),
        (
            pet("<name/><tags><tag/><tag/><tag/></tags>", ' id="0"'),
            [
                ("id", "0 is less than the minimum of 1"),
                ("name", '"" is shorter than 1 character'),
                ("tags", '["","",""] has more than 2 items'),
            ],
        ),
        (pet("<name>Rex</name>", ' id="x"'), [("id", '"x" is not of type "integer"')]),
        (
            pet("<name>Rex</name><more/>"),
            [("", "Additional properties are not allowed ('more' was unexpected)")],
        ),
        (pet("<name>a</name><id>1</id>"), [("id", "must be an attribute")]),
        (
            b"<pet><name>Rex</name></pet>",
            [("", "is an element 'pet' outside the namespace 'urn:example:pets'")],
        ),
        (b"<!DOCTYPE pet><pet/>", [("", "has a document type, which is not allowed")]),
        (b"<pet", [("", "is not well-formed XML: unclosed token: line 1, column 0")]),
    ],
)
async def test_xml_is_as_described(body: bytes, expected: list[tuple[str, str]]) -> None:
    assert sorted(await faults("/pets", body, XML)) == expected


@pytest.mark.parametrize("kind", ["text/xml", "application/vnd.pets+xml"])
async def test_every_kind_of_xml_is_read(kind: str) -> None:
    one = made(document=DOCUMENT.replace("application/xml", kind))
    assert await faults("/pets", pet("<name>Rex</name>"), {"content-type": kind}, one) == []
    assert await faults("/pets", pet(""), {"content-type": kind}, one)


def upload(
    title: str = "t",
    photo: tuple[str, bytes, str] = ("p.png", PNG, "image/png"),
    title_is: str | None = None,
    **more: Any,
) -> tuple[bytes, dict[str, str]]:
    """Of httpx: another writer of such bodies."""
    said = (None, title) if title_is is None else (None, title, title_is)
    files: list[Any] = [("title", said), ("photo", photo)]
    for name, values in more.items():
        files += [(name, value) for value in (values if isinstance(values, list) else [values])]
    request = httpx.Request("POST", "http://a.example", files=files)
    return request.read(), {"content-type": request.headers["content-type"]}


JSON = "application/json"


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, []),
        (
            {
                "count": (None, "3"),
                "about": (None, '{"by": "me"}', JSON),
                "notes": [(None, "1"), (None, "2")],
                "people": [(None, '{"name": "a"}'), (None, '{"name": "b"}', JSON)],
                "more": [("a", b"\xff\x00"), ("b", b"")],
            },
            [],
        ),
        ({"people": (None, '[{"name": "a"}, {"name": "b"}]', JSON)}, []),
        ({"title": "too long"}, [("title", '"too long" is longer than 5 characters')]),
        (
            {"title": '"four"', "title_is": JSON},
            [("title", '"\\"four\\"" is longer than 5 characters')],
        ),
        ({"count": (None, "x")}, [("count", '"x" is not of type "integer"')]),
        ({"count": [(None, "1"), (None, "2")]}, [("count", "is given more than once")]),
        ({"about": (None, "{}")}, [("about", '"by" is a required property')]),
        (
            {"about": (None, "{")},
            [("about", "is not JSON: unexpected end of data: line 1 column 2 (char 1)")],
        ),
        ({"people": [(None, "{}")]}, [("people.0", '"name" is a required property')]),
        ({"notes": (None, "x")}, [("notes.0", '"x" is not of type "integer"')]),
        (
            {"photo": ("p.gif", PNG, "image/gif")},
            [("photo", "its Content-Type is 'image/gif'; it may be image/png, image/jpeg")],
        ),
        (
            {"photo": ("p.png", b"x" * 11, "image/png")},
            [("photo", "is 11 bytes long, at most 10 are allowed")],
        ),
        (
            {"photo": ("p.png", b"x", "image/png")},
            [("photo", "is 1 bytes long, at least 4 are needed")],
        ),
        ({"more": ("a", b"xxxx")}, [("more", "is 4 bytes long, at most 3 are allowed")]),
        ({"more": [("a", b"x")] * 3}, [("more", "is not as described")]),
        (
            {"unknown": (None, "x")},
            [("", "Additional properties are not allowed ('unknown' was unexpected)")],
        ),
        ({"unknown": ("u", b"\xff")}, [("", "Additional properties are not allowed")]),
        ({"count": (None, b"\xff")}, [("count", "is not text in UTF-8")]),
        (
            {"count": (None, "1", "text/plain; charset=utf-16")},
            [("count", "is text in 'utf-16', not UTF-8")],
        ),
    ],
)
async def test_parts_are_as_described(
    fields: dict[str, Any], expected: list[tuple[str, str]]
) -> None:
    found = await faults("/photos", *upload(**fields))
    assert len(found) == len(expected)
    for (name, message), (wanted, begins) in zip(found, expected, strict=True):
        assert name == wanted
        assert message.startswith(begins)


async def test_a_name_that_is_no_text_is_refused() -> None:
    body, headers = upload(odd=(None, "x"))
    ((_, message),) = await faults("/photos", body.replace(b'"odd"', b'"\xff"'), headers)
    assert message == "part 3 has headers that are not UTF-8"


async def test_a_part_that_must_be_there_is_missed() -> None:
    request = httpx.Request("POST", "http://a.example", files={"title": (None, "t")})
    headers = {"content-type": request.headers["content-type"]}
    assert await faults("/photos", request.read(), headers) == [
        ("", '"photo" is a required property')
    ]
    headers = {"content-type": "multipart/form-data"}
    ((name, message),) = await faults("/photos", request.read(), headers)
    assert (name, message[:15]) == ("", "has no boundary")
    headers = {"content-type": "multipart/form-data; boundary=a; boundary=b"}
    assert await faults("/photos", request.read(), headers) == [
        ("", "its Content-Type has the parameter 'boundary' twice")
    ]


@pytest.mark.parametrize(
    ("schema", "is_bytes"),
    [
        ({"type": "string", "format": "binary"}, True),
        ({"type": "string", "contentMediaType": "image/png"}, True),
        ({"contentMediaType": "application/octet-stream"}, True),
        ({"type": "string", "contentMediaType": "image/png", "contentEncoding": "base64"}, False),
        ({"type": "string", "contentMediaType": "text/html"}, False),
        ({"type": "string"}, False),
    ],
)
async def test_lengths_of_what_is_binary_are_of_bytes(
    schema: dict[str, Any], is_bytes: bool
) -> None:
    media = {"schema": {"type": "object", "properties": {"a": {"maxLength": 2} | schema}}}
    body = {"content": {"multipart/form-data": media}}
    document = {"openapi": "3.1.0", "paths": {"/": {"post": {"requestBody": body}}}}
    content = "€€".encode()  # two characters, six bytes
    request = httpx.Request("POST", "http://a.example", files={"a": ("f", content, "text/plain")})
    headers = {"content-type": request.headers["content-type"]}
    found = await faults("/", request.read(), headers, made(document=document))
    wanted = [("a", "is 6 bytes long, at most 2 are allowed")] if is_bytes else []
    assert found == wanted


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b"sizes=1,2&marks=1&marks=2&about=%7B%22by%22%3A1%7D", []),
        (b"sizes=1,x", [("sizes.1", '"x" is not of type "integer"')]),
        (b"marks=1,2", [("marks.0", '"1,2" is not of type "integer"')]),
        (b"about=%7B%7D", [("about", '"by" is a required property')]),
        (b"about=x", [("about", "is not JSON")]),
        (b"about=%7B%7D&about=%7B%7D", [("about", "is given more than once")]),
        (b"count=x&count=1", [("count", "is given more than once")]),
        (b"more=1&more=2", [("more", "is given more than once")]),
    ],
)
async def test_fields_of_forms_travel_as_their_encoding_says(
    body: bytes, expected: list[tuple[str, str]]
) -> None:
    found = await faults("/photos", body, FORM)
    assert [name for name, _ in found] == [name for name, _ in expected]
    for (_, message), (_, begins) in zip(found, expected, strict=True):
        assert message.startswith(begins)


def test_answers_in_xml_are_checked_and_their_values_not_told() -> None:
    one = made(responses="enforce")
    for body, expected in (
        (pet("<name>Rex</name>"), None),
        (pet("<name>a</name><tags><tag>secret</tag></tags>", ' id="0"'), ("id", "'minimum'")),
        (b"<pet>", ("", "is not well-formed XML")),
    ):
        asked = exchange(XML, method="POST", path="/orders/pets")
        one.on_request_headers(asked)
        told = answered(asked, 200, content_type="application/xml")
        said = one.on_response_headers(told) or one.on_response_body(told, body)
        if expected is None:
            assert said is None
            continue
        assert isinstance(said, Answer)
        (fault,) = orjson.loads(said.body)["faults"]
        assert fault.get("name", "") == expected[0]
        assert expected[1] in fault["message"]
        assert b"secret" not in said.body


async def send(running: PythonGateway, path: str, body: bytes, headers: dict[str, str]) -> Any:
    return await running.client.post(path, content=body, headers=headers)


async def test_bodies_are_checked_on_their_way() -> None:
    wanted = ref(NAME, document=DOCUMENT, responses="enforce")
    async with python_gateway(operations={"POST /pets": [wanted], "POST /photos": [wanted]}) as gw:
        good = pet("<name>Rex</name>", ' id="1"')
        gw.backend.answer = lambda _: Told(200, tuple(XML.items()), good)
        packed = {"content-encoding": "zstd"}
        for body, headers in ((good, XML), (PACK["zstd"](good), XML | packed)):
            answer = await send(gw, "/pets", body, headers)
            assert (answer.status_code, answer.content) == (200, good)
            assert gw.backend.last.body == body
        refused = await send(gw, "/pets", pet("<name/>"), XML)
        assert refused.status_code == 400
        assert refused.json()["faults"] == [
            {"in": "body", "name": "name", "message": '"" is shorter than 1 character'}
        ]
        gw.backend.answer = lambda _: Told(200, tuple(XML.items()), pet(""))
        assert (await send(gw, "/pets", good, XML)).status_code == 502
        gw.backend.answer = lambda _: Told()
        assert (await send(gw, "/photos", *upload(count=(None, "1")))).status_code == 200
        assert PNG in gw.backend.last.body
        seen = len(gw.backend.requests)
        refused = await send(gw, "/photos", *upload(photo=("p.png", bytes(11), "image/png")))
        assert refused.status_code == 400
        assert refused.json()["faults"] == [
            {"in": "body", "name": "photo", "message": "is 11 bytes long, at most 10 are allowed"}
        ]
        assert len(gw.backend.requests) == seen
