from typing import Any

import pytest

from policy_engine.openapi.document import LONGEST_BYTES, for_direction, read, resolved
from tests.bus.resources.bombs import merge_bomb

LAUGHS = "a: &a [x,x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"{name}: &{name} [{', '.join([f'*{before}'] * 10)}]\n"
    for before, name in zip("abcdef", "bcdefg", strict=True)
)


def test_yaml_is_read_as_json_would_be() -> None:
    text = "openapi: 3.1.0\npaths: {}\nx: {200: 1, yes: no, on: 2020-01-01, true: null}\n"
    assert read(text)["x"] == {"200": 1, "yes": "no", "on": "2020-01-01", "true": None}
    assert read('{"openapi": "3.0.3"}') == {"openapi": "3.0.3"}


@pytest.mark.parametrize(
    ("document", "problem"),
    [
        ("[]", "it is not an object"),
        ("{", "is not JSON"),
        ("a: [", "is not YAML"),
        ("a: !!python/object/apply:os.getcwd []", "is not YAML"),
        ({"swagger": "2.0"}, "must be OpenAPI 3.0 or 3.1, it says '2.0'"),
        ({"openapi": "3.2.0"}, "must be OpenAPI 3.0 or 3.1"),
        ({"openapi": 3.1}, "must be OpenAPI 3.0 or 3.1"),
        ({"openapi": "3.1.0", "jsonSchemaDialect": "https://x.example"}, "is not known"),
        ("openapi: 3.1.0\n" + LAUGHS, "has more than 100000 values"),
        ("openapi: 3.1.0\nx: " + "[" * 150 + "]" * 150, "deeper than 100"),
        ("openapi: 3.1.0\nx: " + "[" * 100_000, "deeper than 100"),
        ("openapi: 3.1.0\n" + merge_bomb(), "has more than 100000 values"),
        ("openapi: 3.1.0\nx: 123456789012345678901234567890", "a value that JSON cannot"),
        ("x" * (LONGEST_BYTES + 1), "bytes long"),
        ({"openapi": "3.1.0", "x": "x" * LONGEST_BYTES}, "bytes long"),
        ("openapi: 3.1.0\nnull: b\n", "key that is no text"),
        ("openapi: 3.1.0\nx: !!set {a}\n", "a value that JSON cannot"),
    ],
)
def test_what_is_no_document_is_refused(document: Any, problem: str) -> None:
    with pytest.raises(ValueError, match=problem.replace("[", r"\[")):
        read(document)


def test_references_are_followed_inside_the_document_only() -> None:
    root = {"a": {"$ref": "#/b/c~1d/0"}, "b": {"c/d": [{"x": 1}]}, "e": {"$ref": "#/e"}}
    assert resolved(root, root["a"], "here") == {"x": 1}
    for reference, problem in (
        ({"$ref": "#/e"}, "refers to itself"),
        ({"$ref": "#/nowhere"}, "does not exist"),
        ({"$ref": "other.yaml#/x"}, "stands in another document"),
        ({"$ref": "#/b/c~1d"}, "is not an object"),
    ):
        with pytest.raises(ValueError, match=f"here.*{problem}"):
            resolved(root, reference, "here")


def test_the_words_of_openapi_3_0_become_those_of_json_schema() -> None:
    schema = {
        "type": "object",
        "required": ["id", "name", "secret"],
        "properties": {
            "id": {"type": "integer", "readOnly": True},
            "secret": {"$ref": "#/components/schemas/Secret"},
            "name": {"type": "string", "nullable": True, "example": {"nullable": True}},
            "age": {"type": "integer", "minimum": 0, "exclusiveMinimum": True},
            "size": {"maximum": 1, "exclusiveMaximum": False},
            "nullable": {"type": "boolean"},
            "other": {"$ref": "#/x", "description": "does not count"},
        },
    }
    root = {"components": {"schemas": {"A": schema, "Secret": {"writeOnly": True}}}}
    asked = for_direction(root, answers=False, old=True)["components"]["schemas"]["A"]
    assert asked["required"] == ["name", "secret"]
    assert asked["properties"]["name"]["type"] == ["string", "null"]
    assert asked["properties"]["name"]["example"] == {"nullable": True}
    assert asked["properties"]["age"] == {"type": "integer", "exclusiveMinimum": 0}
    assert asked["properties"]["size"] == {"maximum": 1}
    assert asked["properties"]["nullable"] == {"type": "boolean"}
    assert asked["properties"]["other"] == {"$ref": "#/x"}
    told = for_direction(root, answers=True, old=False)["components"]["schemas"]["A"]
    assert told["required"] == ["id", "name"]
    assert told["properties"]["name"] == schema["properties"]["name"]  # type: ignore[index]
