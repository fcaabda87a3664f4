import orjson
import pytest

from policy_engine.hooks import Answer, Exchange
from policy_engine.policies.openapi_validation import OpenapiValidation
from tests.policy_engine.attached import CATALOGUE
from tests.policy_engine.exchanges import answered, exchange
from tests.policy_engine.packed import PACK
from tests.policy_engine.pets import API, DOCUMENT, JSON, NAME, TRACE, faults, made
from tests.policy_engine.python_gateway import python_gateway, ref
from tests.servers.http_backend import Answer as Told

FORM = {"content-type": "application/x-www-form-urlencoded"}


@pytest.mark.parametrize(
    ("path", "headers", "expected"),
    [
        ("/pets?limit=10", TRACE, []),
        ("/pets/?limit=1&tags=1&tags=2&other=x", TRACE | {"cookie": "session=3"}, []),
        (
            "/pets",
            {},
            [("query", "limit", "is required"), ("header", "x-trace", "is required")],
        ),
        (
            "/pets?limit=11&tags=1&tags=x",
            {"x-trace": "1", "cookie": "session=a"},
            [
                ("query", "limit", "11 is greater than the maximum of 10"),
                ("query", "tags.1", '"x" is not of type "integer"'),
                ("header", "x-trace", '"1" is not a "uuid"'),
                ("cookie", "session", '"a" is not of type "integer"'),
            ],
        ),
        ("/pets?limit=1&limit=2", TRACE, [("query", "limit", "is given more than once")]),
        ("/pets/7", {}, []),
        ("/pets/0", {}, [("path", "id", "0 is less than the minimum of 1")]),
        ("/pets/x", {}, [("path", "id", '"x" is not of type "integer"')]),
    ],
)
async def test_parameters_are_as_described(
    path: str, headers: dict[str, str], expected: list[tuple[str, str, str]]
) -> None:
    assert await faults(made(), "GET", path, headers=headers) == expected


@pytest.mark.parametrize(
    ("body", "headers", "expected"),
    [
        (b'{"name": "Rex", "age": null, "more": 1}', JSON, []),
        (b"name=Rex&age=3&tags=1&tags=2", FORM, []),
        (b"anything", {"content-type": "text/plain"}, []),
        (PACK["gzip"](b'{"name": "Rex"}'), JSON | {"content-encoding": "gzip"}, []),
        (PACK["br"](b'{"name": "Rex"}'), JSON | {"content-encoding": "br"}, []),
        (
            PACK["zstd"](b'{"name": ""}'),
            JSON | {"content-encoding": "zstd"},
            [("body", "name", '"" is shorter than 1 character')],
        ),
        (b"", JSON, [("body", "", "is required")]),
        (
            b"{",
            JSON,
            [("body", "", "is not JSON: unexpected end of data: line 1 column 2 (char 1)")],
        ),
        (
            b'{"name": "", "name": "Rex"}',
            JSON,
            [("body", "", "is not JSON: member 'name' stands twice in one object")],
        ),
        (
            b'{"age": "3", "parent": {"name": ""}}',
            JSON,
            [
                ("body", "", '"name" is a required property'),
                ("body", "age", '"3" is not of types "null", "integer"'),
                ("body", "parent.name", '"" is shorter than 1 character'),
            ],
        ),
        (
            b"age=x&name=",
            FORM,
            [
                ("body", "name", '"" is shorter than 1 character'),
                ("body", "age", '"x" is not of types "null", "integer"'),
            ],
        ),
        (
            b"<x/>",
            {"content-type": "application/xml"},
            [
                (
                    "header",
                    "content-type",
                    "is 'application/xml'; the body may be application/json, "
                    "application/x-www-form-urlencoded, text/*",
                )
            ],
        ),
        (
            b"x",
            JSON | {"content-encoding": "lzma"},
            [
                (
                    "body",
                    "",
                    "content coding 'lzma' cannot be read, only gzip, deflate, br and zstd",
                )
            ],
        ),
    ],
)
async def test_bodies_are_as_described(
    body: bytes, headers: dict[str, str], expected: list[tuple[str, str, str]]
) -> None:
    assert sorted(await faults(made(), "POST", "/pets", body, headers)) == sorted(expected)


async def test_a_body_without_a_type_is_told() -> None:
    ((place, name, message),) = await faults(made(), "POST", "/pets", b"{}")
    assert (place, name) == ("header", "content-type")
    assert message.startswith("is missing; the body may be application/json")


async def test_no_more_than_twenty_faults_are_told() -> None:
    body = orjson.dumps({"name": "x", "tags": ["x"] * 100})
    assert len(await faults(made(), "POST", "/pets", body, JSON)) == 20


@pytest.mark.parametrize(("method", "path"), [("GET", "/nothing"), ("PUT", "/pets")])
def test_what_the_document_does_not_have_is_not_found(method: str, path: str) -> None:
    asked = exchange(method=method, path=f"/pets-api{path}?x=1", place=API)
    said = made().on_request_headers(asked)
    assert isinstance(said, Answer)
    assert said.status == 404
    assert orjson.loads(said.body) == {
        "error": "Not Found",
        "message": f"The API does not describe {method} {path}",
    }
    lenient = made(undescribed="pass", responses="enforce")
    assert lenient.on_request_headers(asked) is None
    assert lenient.on_request_body(asked, b"x") is None
    answered(asked, 500)
    assert lenient.on_response_headers(asked) is None
    assert lenient.on_response_body(asked, b"x") is None


def described(one: OpenapiValidation, method: str = "GET", query: str = "limit=1") -> Exchange:
    asked = exchange(TRACE, method=method, path=f"/pets-api/pets?{query}", place=API)
    assert one.on_request_headers(asked) is None
    return asked


GOOD = b'[{"id": 1, "name": "Rex"}]'


@pytest.mark.parametrize(
    ("status", "headers", "body", "fault"),
    [
        (200, JSON | {"x-total": "1"}, GOOD, None),
        (200, JSON, GOOD, {"in": "header", "name": "x-total", "message": "is required"}),
        (
            200,
            JSON | {"x-total": "some"},
            GOOD,
            {"in": "header", "name": "x-total", "message": "does not keep to 'type' of its schema"},
        ),
        (
            200,
            JSON | {"x-total": "1"},
            b'[{"name": "a secret"}]',
            {"in": "body", "name": "0", "message": "does not keep to 'required' of its schema"},
        ),
        (
            200,
            {"content-type": "text/html", "x-total": "1"},
            b"<html>",
            {"in": "header", "name": "content-type", "message": "is not described"},
        ),
        (204, {}, b"", {"in": "status", "message": "204 is not described"}),
        (404, JSON, b'{"error": "none"}', None),
        (
            404,
            JSON,
            b"{}",
            {"in": "body", "message": "does not keep to 'required' of its schema"},
        ),
        (500, {}, b"oh", None),
    ],
)
def test_answers_are_as_described(
    status: int, headers: dict[str, str], body: bytes, fault: dict[str, str] | None
) -> None:
    for responses in ("enforce", "report"):
        one = made(responses=responses)
        asked = described(one)
        told = answered(asked, status, **{name.replace("-", "_"): v for name, v in headers.items()})
        said = one.on_response_headers(told) or one.on_response_body(told, body)
        if responses == "report":
            assert said is None
            noted = asked.published.get(NAME)
            assert noted == (
                fault
                or ({"in": "status", "message": "500 is not described"} if status == 500 else None)
            )
        elif fault is None:
            assert said is None
        else:
            assert isinstance(said, Answer)
            assert said.status == 502
            assert orjson.loads(said.body)["faults"] == [fault]
            assert b"secret" not in said.body


def test_streams_pass_and_what_is_too_long_to_be_held_does_not() -> None:
    one = made(responses="enforce")
    stream = answered(described(one), 200, content_type="text/event-stream")
    assert one.on_response_chunk(stream, b"data: x\n\n", last=False) is None
    long = answered(described(one), 200, content_type="application/json")
    said = one.on_response_chunk(long, b"[", last=False)
    assert isinstance(said, Answer)
    assert orjson.loads(said.body)["faults"] == [
        {"in": "body", "message": "is too long to be checked"}
    ]


def test_only_what_the_document_needs_costs_anything() -> None:
    assert made().phases() == {"request_headers", "request_body"}
    bare = {"openapi": "3.1.0", "paths": {"/": {"get": {}}}}
    assert made(document=bare).phases() == {"request_headers"}
    assert made(responses="report").phases() == {
        "request_headers",
        "request_body",
        "response_headers",
        "response_body",
        "response_chunk",
    }


async def test_the_example_lets_pass_and_refuses() -> None:
    async with python_gateway([ref(NAME, **CATALOGUE.resolve(NAME).example)]) as running:
        assert (await running.client.get("/?limit=1")).status_code == 200
        refused = await running.client.get("/?limit=some")
        assert refused.status_code == 400
        assert refused.json()["faults"] == [
            {"in": "query", "name": "limit", "message": '"some" is not of type "integer"'}
        ]
        assert (await running.client.get("/nothing")).status_code == 404
        assert len(running.backend.requests) == 1


async def test_requests_and_answers_are_checked_on_their_way() -> None:
    wanted = ref(NAME, document=DOCUMENT, responses="enforce")
    reported = ref(NAME, document=DOCUMENT, responses="report")
    operations = {"POST /pets": [wanted], "GET /pets": [wanted], "GET /pets/{id}": [reported]}
    async with python_gateway(operations=operations) as running:
        post, get = running.client.post, running.client.get
        running.backend.answer = lambda _: Told(201, (), b"")
        assert (await post("/pets", json={"name": "Rex"})).status_code == 201
        refused = await post("/pets", json={"name": ""})
        assert refused.status_code == 400
        assert refused.json()["faults"][0]["name"] == "name"
        assert (await post("/pets")).status_code == 400
        assert len(running.backend.requests) == 1
        good = (("content-type", "application/json"), ("x-total", "1"))
        for body, status in ((GOOD, 200), (b'[{"id": "1"}]', 502)):
            running.backend.answer = lambda _, body=body: Told(200, good, body)
            answer = await get("/pets?limit=1", headers=TRACE)
            assert answer.status_code == status
        running.backend.answer = lambda _: Told(body=b"{}")
        assert (await get("/pets/1")).status_code == 200
