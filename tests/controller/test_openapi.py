"""The OpenAPI document, and whether the API does what it says."""

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from controller.apis import Apis
from controller.auth import Users
from controller.keys import Keys
from controller.memory import MemoryRecord
from controller.metrics import ControllerMetrics
from controller.rest.app import BASE, create_app
from controller.settings import ControllerSettings
from controller.status import Deployments
from policy_engine import catalogue

SETTINGS = ControllerSettings.model_validate(
    {"admin_password": "admin", "api_keys_per_user_per_api": 1000}
)
RECORD = MemoryRecord()
APP = create_app(
    settings=SETTINGS,
    apis=Apis(RECORD, catalogue.load(), Deployments()),
    keys=Keys(RECORD, 1000, None),
    users=Users.configured(SETTINGS),
    metrics=ControllerMetrics(),
)
SCHEMA = schemathesis.openapi.from_asgi(f"{BASE}/openapi.json", APP).exclude(
    path_regex=r"/status$"  # it may wait as long as it is told to
)


@pytest.mark.slow
@SCHEMA.parametrize()
@settings(
    max_examples=10,
    deadline=None,
    derandomize=True,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)
def test_every_operation_answers_as_documented(case: schemathesis.Case) -> None:
    case.call_and_validate(
        auth=("admin", "admin"),
        checks=[
            not_a_server_error,
            status_code_conformance,
            content_type_conformance,
            response_schema_conformance,
        ],
    )


@pytest.fixture
async def document(client: httpx.AsyncClient) -> dict:
    client.auth = None  # the document is for everybody
    answer = await client.get("/openapi.json")
    assert answer.status_code == 200
    return answer.json()


def test_every_operation_of_the_contract_is_documented(document: dict) -> None:
    found = {
        (method.upper(), path.removeprefix(BASE))
        for path, methods in document["paths"].items()
        for method in methods
    }
    key = "/rest-apis/{id}/api-keys/{name}"
    assert found == {
        ("POST", "/rest-apis"),
        ("GET", "/rest-apis"),
        ("GET", "/rest-apis/{id}"),
        ("PUT", "/rest-apis/{id}"),
        ("DELETE", "/rest-apis/{id}"),
        ("GET", "/rest-apis/{id}/status"),
        ("POST", "/rest-apis/{id}/api-keys"),
        ("GET", "/rest-apis/{id}/api-keys"),
        ("PUT", key),
        ("DELETE", key),
        ("POST", f"{key}/regenerate"),
        ("GET", "/routers"),
        ("POST", "/subscription-plans"),
        ("GET", "/subscription-plans"),
        ("GET", "/subscription-plans/{planId}"),
        ("PUT", "/subscription-plans/{planId}"),
        ("DELETE", "/subscription-plans/{planId}"),
        ("POST", "/subscriptions"),
        ("GET", "/subscriptions"),
        ("GET", "/subscriptions/{id}"),
        ("PUT", "/subscriptions/{id}"),
        ("DELETE", "/subscriptions/{id}"),
        ("GET", "/subscriptions/{id}/usage"),
        ("POST", "/applications"),
        ("GET", "/applications"),
        ("GET", "/applications/{id}"),
        ("PUT", "/applications/{id}"),
        ("DELETE", "/applications/{id}"),
        ("GET", "/applications/{id}/api-keys"),
    }


def test_every_operation_says_what_it_takes_and_gives(document: dict) -> None:
    for path, methods in document["paths"].items():
        for method, said in methods.items():
            named = {one["name"] for one in said.get("parameters", []) if one["in"] == "path"}
            assert named == {part[1:-1] for part in path.split("/") if part.startswith("{")}
            assert said["summary"], (method, path)
            assert {"401", "403", "500", "503"} <= said["responses"].keys()
            assert any(status.startswith("2") for status in said["responses"])


def test_every_reference_leads_somewhere(document: dict) -> None:
    def references(value: object) -> list[str]:
        if isinstance(value, dict):
            own = [value["$ref"]] if isinstance(value.get("$ref"), str) else []
            return own + [one for below in value.values() for one in references(below)]
        if isinstance(value, list):
            return [one for below in value for one in references(below)]
        return []

    schemas = document["components"]["schemas"]
    for reference in references(document):
        assert reference.removeprefix("#/components/schemas/") in schemas
