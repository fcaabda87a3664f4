from typing import Any

import orjson
import pytest

from policy_engine.errors import InvalidParameters
from tests.policy_engine.attached import CATALOGUE, policy
from tests.policy_engine.guardrails.by_hand import (
    DONE,
    asked,
    completion,
    document,
    event,
    guardrail,
    prompt,
    streamed,
    told,
)
from tests.policy_engine.python_gateway import python_gateway, ref

NAME = "json-schema-guardrail"
ORDER = orjson.dumps(
    {
        "type": "object",
        "properties": {"id": {"type": "integer"}, "mail": {"type": "string", "format": "email"}},
        "required": ["id"],
    }
).decode()
TEXT = '{"type": "string", "minLength": 3}'


def whole(**params: Any) -> dict[str, Any]:
    return {"jsonPath": "", "schema": ORDER, **params}


def test_a_body_fits_or_does_not_and_the_other_way_round() -> None:
    plain = guardrail(NAME, request=whole())
    other = guardrail(NAME, request=whole(invert=True))
    for body, fits in (
        (b'{"id": 1, "mail": "a@b.example"}', True),
        (b'{"id": "1"}', False),
        (b'{"id": 1, "mail": "nobody"}', False),
        (b"[]", False),
    ):
        assert (asked(plain, body) is None) is fits
        assert (asked(other, body) is None) is not fits


def test_a_text_may_hold_the_json_that_is_meant() -> None:
    json = guardrail(NAME, request={"schema": ORDER})
    assert asked(json, prompt('{"id": 1}')) is None
    assert document(asked(json, prompt('{"id": "x"}')))
    assert document(asked(json, prompt("no JSON")))
    text = guardrail(NAME, request={"schema": TEXT})
    assert asked(text, prompt("long enough")) is None
    assert document(asked(text, prompt("no")))


def test_everything_that_the_path_leads_to_must_fit() -> None:
    made = guardrail(NAME, request={"schema": TEXT, "jsonPath": "$.messages[*].content"})
    assert asked(made, prompt("long", "enough")) is None
    assert document(asked(made, prompt("long", "x")))


def test_details_say_where_and_what() -> None:
    made = guardrail(NAME, request=whole(showAssessment=True))
    said = document(asked(made, orjson.dumps({"mail": "x" * 1000})))
    assert said["type"] == "JSON_SCHEMA_GUARDRAIL"
    assert said["message"]["actionReason"] == "Violation of JSON schema detected."
    wrong = {one["field"]: one for one in said["message"]["assessments"]}
    assert wrong["(root)"]["description"] == '"id" is a required property'
    assert wrong["mail"]["value"] == "x" * 200 + "..."
    many = orjson.dumps({"id": 1, "mail": 1})
    assert document(asked(made, many))["message"]["assessments"] == [
        {"description": '1 is not of type "string"', "field": "mail", "value": 1}
    ]


def test_no_more_than_twenty_things_are_told() -> None:
    schema = '{"type": "array", "items": {"type": "string"}}'
    made = guardrail(NAME, request=whole(schema=schema, showAssessment=True))
    said = document(asked(made, orjson.dumps([1] * 100)))
    assert len(said["message"]["assessments"]) == 20


def test_answers_are_looked_at_whole_also_streamed_ones() -> None:
    made = guardrail(NAME, response={"enabled": True, "schema": ORDER})
    assert told(made, completion('{"id": 1}')) is None
    assert document(told(made, completion('{"id": "1"}')))
    parts = [event('{"id'), event('": 1}'), DONE]
    assert streamed(made, parts) == ([b"", b"", b"".join(parts)], None)
    got, intervention = streamed(made, [event('{"id'), event('": "1"}'), DONE])
    assert (got, bool(intervention)) == ([b"", b""], True)


@pytest.mark.parametrize(
    ("schema", "problem"),
    [
        ("{", "is not JSON"),
        ("3", "an object is expected"),
        ('{"type": "strin"}', "at ['type']"),
        ('{"$ref": "https://example.com/schema"}', "https://example.com/schema"),
        ('{"$ref": "file:///etc/passwd"}', "file:///etc/passwd"),
        ('{"$ref": "#/nowhere"}', "'/nowhere' does not exist"),
        ('{"pattern": "^(?=x)"}', "patterns may not look around"),
    ],
)
def test_a_schema_that_cannot_be_used_is_refused_when_it_is_written(
    schema: str, problem: str
) -> None:
    with pytest.raises(InvalidParameters) as caught:
        policy(NAME, request={"schema": schema})
    (fault,) = caught.value.faults
    assert fault.path == "request.schema"
    assert problem in fault.message


def test_a_pattern_that_is_slow_elsewhere_is_not() -> None:
    made = guardrail(NAME, request={"schema": '{"type": "string", "pattern": "^(a+)+$"}'})
    assert document(asked(made, prompt("a" * 100_000 + "!")))


async def test_the_example_lets_pass_and_refuses() -> None:
    async with python_gateway([ref(NAME, **CATALOGUE.resolve(NAME).example)]) as running:
        good = orjson.dumps({"model": "m", "messages": []})
        assert (await running.client.post("/chat", content=good)).status_code == 200
        refused = await running.client.post("/chat", content=b'{"model": "m"}')
        assert refused.status_code == 422
        assert refused.json()["message"]["assessments"] == [
            {
                "description": '"messages" is a required property',
                "field": "(root)",
                "value": {"model": "m"},
            }
        ]
        assert len(running.backend.requests) == 1
