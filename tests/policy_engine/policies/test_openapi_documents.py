"""Which OpenAPI documents `openapi-validation` takes, and what they compile to."""

from pathlib import Path
from typing import Any

import pytest

from policy_engine.errors import Fault, InvalidParameters
from policy_engine.hooks import Answer
from tests.policy_engine.attached import policy
from tests.policy_engine.exchanges import exchange
from tests.policy_engine.pets import API, JSON, NAME, made

FIXTURES = Path(__file__).parents[2] / "fixtures"


def test_policies_with_the_same_document_share_what_it_compiles_to() -> None:
    one, other = made(), made()
    assert one._compiled is other._compiled
    assert made(responses="report")._compiled is not one._compiled


def test_a_document_whose_schemas_all_refer_to_each_other_is_compiled_once() -> None:
    schemas = {
        f"S{number}": {
            "type": "object",
            "properties": {
                f"p{other}": {"$ref": f"#/components/schemas/S{(number * 7 + other) % 100}"}
                for other in range(10)
            },
        }
        for number in range(100)
    }
    content = {"application/json": {"schema": {"$ref": "#/components/schemas/S1"}}}
    paths = {f"/{number}": {"post": {"requestBody": {"content": content}}} for number in range(200)}
    document = {"openapi": "3.1.0", "components": {"schemas": schemas}, "paths": paths}
    one = made(document=document)
    asked = exchange(JSON, method="POST", path="/pets-api/7", place=API)
    assert one.on_request_headers(asked) is None
    assert one.on_request_body(asked, b'{"p0": {"p1": {}}}') is None
    assert isinstance(one.on_request_body(asked, b'{"p0": {"p1": 1}}'), Answer)


@pytest.mark.parametrize("file", ["petstore.yaml", "uspto.yaml"])
def test_documents_of_others_can_be_used(file: str) -> None:
    assert made(document=(FIXTURES / file).read_text()).phases()


@pytest.mark.parametrize(
    ("document", "problem"),
    [
        ("{", "is not JSON"),
        ({"openapi": "3.1.0", "paths": {"x": {}}}, "does not start with '/'"),
        (
            {"openapi": "3.1.0", "paths": {"/": {"get": {"parameters": [{"name": "a"}]}}}},
            "GET /: a parameter lacks its name",
        ),
        (
            {
                "openapi": "3.1.0",
                "paths": {"/": {"get": {"parameters": [{"name": "a", "in": "path"}]}}},
            },
            "GET /: the path has no parameter 'a'",
        ),
        (
            {
                "openapi": "3.1.0",
                "paths": {
                    "/": {
                        "get": {
                            "parameters": [{"name": "a", "in": "query", "style": "matrix"}],
                        }
                    }
                },
            },
            "style 'matrix' does not exist in query",
        ),
        (
            {
                "openapi": "3.1.0",
                "paths": {
                    "/": {
                        "get": {
                            "parameters": [
                                {"name": "a", "in": "query", "schema": {"pattern": "(?!x)"}}
                            ],
                        }
                    }
                },
            },
            "patterns may not look around",
        ),
        (
            {
                "openapi": "3.1.0",
                "paths": {
                    "/": {
                        "post": {
                            "requestBody": {
                                "content": {
                                    "application/json": {
                                        "schema": {"$ref": "https://x.example/s.json"}
                                    }
                                }
                            }
                        }
                    }
                },
            },
            "https://x.example/s.json",
        ),
    ],
)
def test_a_document_that_cannot_be_used_is_refused_when_it_is_written(
    document: Any, problem: str
) -> None:
    with pytest.raises(InvalidParameters) as caught:
        policy(NAME, document=document)
    (fault,) = caught.value.faults
    assert fault.path == "document"
    assert problem in fault.message


def test_a_document_is_required() -> None:
    with pytest.raises(InvalidParameters) as caught:
        policy(NAME)
    assert caught.value.faults == (Fault("document", "document is required"),)
