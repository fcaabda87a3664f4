"""An API of pets, described in OpenAPI, and requests that openapi-validation judges by it."""

from typing import Any

import orjson

from policy_engine.hooks import Answer, Place
from policy_engine.policies.openapi_validation import OpenapiValidation
from tests.policy_engine.attached import policy
from tests.policy_engine.exchanges import exchange, result

NAME = "openapi-validation"
API = Place("api", "pets", "Pets", "v1", "/pets-api")
JSON = {"content-type": "application/json; charset=utf-8"}

DOCUMENT = """
openapi: 3.0.3
info: {title: Pets, version: "1"}
paths:
  /pets:
    parameters:
      - {$ref: "#/components/parameters/Limit"}
    get:
      parameters:
        - {name: tags, in: query, schema: {type: array, items: {type: integer}}}
        - {name: x-trace, in: header, required: true, schema: {type: string, format: uuid}}
        - {name: session, in: cookie, schema: {type: integer}}
        - {name: Accept, in: header, schema: {enum: [nothing]}}
      responses:
        "200":
          description: pets
          headers: {x-total: {required: true, schema: {type: integer}}}
          content:
            application/json:
              schema: {type: array, items: {$ref: "#/components/schemas/Pet"}}
        4XX: {description: wrong, content: {application/json: {schema: {required: [error]}}}}
    post:
      parameters:
        - {name: limit, in: query, schema: {type: integer}}
      requestBody: {$ref: "#/components/requestBodies/Pet"}
      responses: {"201": {description: made}}
  /pets/{id}:
    get:
      parameters:
        - {name: id, in: path, required: true, schema: {type: integer, minimum: 1}}
      responses: {default: {description: a pet}}
components:
  parameters:
    Limit: {name: limit, in: query, required: true, schema: {type: integer, maximum: 10}}
  requestBodies:
    Pet:
      required: true
      content:
        application/json: {schema: {$ref: "#/components/schemas/Pet"}}
        application/x-www-form-urlencoded: {schema: {$ref: "#/components/schemas/Pet"}}
        text/*: {}
  schemas:
    Pet:
      type: object
      required: [id, name]
      properties:
        id: {type: integer, readOnly: true}
        name: {type: string, minLength: 1}
        age: {type: integer, nullable: true}
        tags: {type: array, items: {type: integer}}
        parent: {$ref: "#/components/schemas/Pet"}
"""


TRACE = {"x-trace": "6f1d1c0e-8f0c-4c61-9d0f-0d6a6f1f7f00"}


def made(**params: Any) -> OpenapiValidation:
    one = policy(NAME, **{"document": DOCUMENT, **params})
    assert isinstance(one, OpenapiValidation)
    return one


async def faults(
    one: OpenapiValidation,
    method: str,
    path: str,
    body: bytes = b"",
    headers: dict[str, str] | None = None,
) -> list[tuple[str, str, str]]:
    """In, name and message of what is refused with 400."""
    asked = exchange(headers, method=method, path=f"/pets-api{path}", place=API)
    said = await result(one.on_request_headers(asked)) or one.on_request_body(asked, body)
    if said is None:
        return []
    assert isinstance(said, Answer)
    assert said.status == 400
    document = orjson.loads(said.body)
    assert document["error"] == "Bad Request"
    return [(one["in"], one.get("name", ""), one["message"]) for one in document["faults"]]
