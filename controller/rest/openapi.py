"""The OpenAPI document: bodies are read by us, so their schemas are said here."""

from typing import Any, get_args

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from bus.resources.rest_api import RestApi
from bus.resources.subscription import SubscriptionStatus
from bus.resources.subscription_plan import PlanStatus, ThrottleUnit
from controller.applications import ApplicationRequest
from controller.keys import KeyExpiry, KeyRequest
from controller.subscription_plans import SubscriptionPlanRequest
from controller.subscriptions import SubscriptionCreateRequest, SubscriptionUpdateRequest

Json = dict[str, Any]

_MEANING = {
    400: "The request is not valid; `errors` says which fields and why",
    401: "Nobody known is asking",
    403: "The user may not do this",
    404: "There is no such thing",
    409: "Something that exists is in the way",
    412: "`If-Match` names a revision that is not the current one",
    413: "The body is too large",
    500: "A fault of ours",
    503: "The record cannot be read or written right now",
}
_ALWAYS = (401, 403, 500, 503)


def _ref(name: str) -> Json:
    return {"$ref": f"#/components/schemas/{name}"}


def _parameter(name: str, where: str, about: str, *, required: bool) -> Json:
    schema = {"type": "string"}
    return {
        "name": name,
        "in": where,
        "description": about,
        "required": required,
        "schema": schema,
    }


_ID = _parameter("id", "path", "The handle: metadata.name", required=True)
_KEY_NAME = _parameter("name", "path", "Name of the key", required=True)
_IF_MATCH = _parameter("If-Match", "header", "Only if this is the ETag now", required=False)


def errors(*statuses: int) -> dict[int | str, Json]:
    """Answers of an operation that are errors, beside those of every operation."""
    content = {"application/json": {"schema": _ref("ErrorResponse")}}
    return {
        status: {"description": _MEANING[status], "content": content}
        for status in sorted({*statuses, *_ALWAYS})
    }


def shown(schema: str, about: str, *, yaml: bool = False) -> Json:
    """An answer that holds `schema`."""
    media_types = ["application/json", *(["application/yaml"] if yaml else [])]
    content = {media_type: {"schema": _ref(schema)} for media_type in media_types}
    return {"description": about, "content": content}


def listing(plural: str, schema: str) -> Json:
    """An answer that holds a list of `schema` under the name `plural`."""
    properties = {
        "status": {"type": "string", "const": "success"},
        "count": {"type": "integer", "minimum": 0},
        plural: {"type": "array", "items": _ref(schema)},
    }
    content = {
        "application/json": {
            "schema": {"type": "object", "properties": properties, "required": list(properties)}
        }
    }
    return {"description": f"All {plural} that pass the filters", "content": content}


def deleted() -> Json:
    """An answer without content."""
    return {"description": "Deleted"}


def extra(
    *,
    named: bool = False,
    path: str = "",
    key: bool = False,
    precondition: bool = False,
    body: str = "",
    optional: bool = False,
) -> Json:
    """What FastAPI cannot see of an operation: its path, its precondition, its body."""
    parameters = [
        *([_ID] if named or key else []),
        *([_parameter(path, "path", "Given when it was created", required=True)] if path else []),
        *([_KEY_NAME] if key else []),
        *([_IF_MATCH] if precondition else []),
    ]
    found: Json = {"parameters": parameters} if parameters else {}
    if body:
        content = {
            media_type: {"schema": _ref(body)}
            for media_type in ("application/json", "application/yaml")
        }
        found["requestBody"] = {"required": not optional, "content": content}
    return found


def _text(**more: object) -> Json:
    return {"type": "string", **more}


def _object(required: list[str], **properties: Json) -> Json:
    return {"type": "object", "properties": properties, "required": required}


_TIME = _text(format="date-time")
_OPTIONAL_TIME = {"type": ["string", "null"], "format": "date-time"}
_COUNT: Json = {"type": "integer", "minimum": 0}
_SUCCESS = _text(const="success")
_NULLABLE = {"type": ["string", "null"]}
_WRITTEN: Json = {"createdAt": _TIME, "updatedAt": _TIME, "revision": _COUNT}

_ANSWERS: Json = {
    "FieldError": _object(["field", "message"], field=_text(), message=_text()),
    "ErrorResponse": _object(
        ["status", "message"],
        status=_text(const="error"),
        message=_text(),
        errors={"type": "array", "items": _ref("FieldError")},
    ),
    "Done": _object(["status", "message"], status=_SUCCESS, message=_text()),
    "Deleted": _object(
        ["status", "message", "id", "revision"],
        status=_SUCCESS,
        message=_text(),
        id=_text(),
        revision=_COUNT,
    ),
    "ResourceStatus": _object(
        ["id", "state", "createdAt", "updatedAt", "revision", "routers"],
        id=_text(),
        state=_text(enum=["deployed", "undeployed"]),
        createdAt=_TIME,
        updatedAt=_TIME,
        deployedAt=_OPTIONAL_TIME,
        revision=_COUNT,
        routers=_object(["live", "total"], live=_COUNT, total=_COUNT),
        reason=_text(description="Why the revision is refused, in Envoy's words"),
        fault=_text(description="What is wrong with the files of its policies, with tracebacks"),
    ),
    "Liveness": _object(
        ["id", "revision", "state", "outcome", "live", "total"],
        id=_text(),
        revision=_COUNT,
        state=_text(enum=["deployed", "undeployed", "deleted"]),
        outcome=_text(enum=["live", "rejected", "pending"]),
        live=_COUNT,
        total=_COUNT,
        reason={"type": ["string", "null"]},
        elapsedMs={
            "type": ["number", "null"],
            "description": "From commit to the last router; null when that is not known",
        },
        waitedMs=_COUNT,
        updatedAt=_TIME,
    ),
    "Router": _object(
        ["node", "version", "connected", "revisions"],
        node=_text(),
        version=_text(),
        connected={"type": "boolean"},
        revisions={"type": "object", "additionalProperties": _COUNT},
    ),
    "APIKey": _object(
        ["name", "displayName", "apiKey", "apiId", "status", "createdAt", "source"],
        name=_text(),
        displayName=_text(),
        apiKey=_text(description="In full once, when it is made up here; else masked"),
        apiId=_text(),
        status=_text(enum=["active", "revoked", "expired"]),
        createdAt=_OPTIONAL_TIME,
        createdBy={"type": ["string", "null"]},
        updatedAt=_TIME,
        expiresAt=_OPTIONAL_TIME,
        source=_text(enum=["local", "external"]),
        externalRefId=_text(),
        issuer=_text(),
    ),
    "APIKeyCreationResponse": _object(
        ["status", "message", "remainingApiKeyQuota", "apiKey"],
        status=_SUCCESS,
        message=_text(),
        remainingApiKeyQuota=_COUNT,
        apiKey=_ref("APIKey"),
    ),
    "SubscriptionPlan": _object(
        ["id", "planName", "stopOnQuotaReach", "status", "gatewayId", *_WRITTEN],
        id=_text(),
        planName=_text(),
        billingPlan=_text(),
        stopOnQuotaReach={"type": "boolean"},
        throttleLimitCount=_COUNT,
        throttleLimitUnit=_text(enum=list(get_args(ThrottleUnit))),
        timeZone=_text(),
        expiryTime=_TIME,
        status=_text(enum=list(get_args(PlanStatus))),
        gatewayId=_text(),
        **_WRITTEN,
    ),
    "Subscription": _object(
        ["id", "apiId", "status", "gatewayId", *_WRITTEN],
        id=_text(),
        apiId=_text(),
        applicationId=_text(),
        subscriptionPlanId=_text(),
        billingCustomerId=_text(),
        billingSubscriptionId=_text(),
        status=_text(enum=list(get_args(SubscriptionStatus))),
        gatewayId=_text(),
        **_WRITTEN,
    ),
    "SubscriptionUsage": _object(
        ["status", "subscriptionId", "apiId", "from", "used", "refused", "limit", "resetsAt"],
        status=_SUCCESS,
        subscriptionId=_text(),
        apiId=_text(),
        subscriptionPlanId=_NULLABLE,
        planName=_NULLABLE,
        **{"from": _TIME},
        used=_COUNT,
        refused=_COUNT,
        limit={"type": ["integer", "null"], "description": "Null: unlimited"},
        unit=_NULLABLE,
        timeZone=_text(),
        remaining={"type": ["integer", "null"]},
        resetsAt=_TIME,
        stopOnQuotaReach={"type": ["boolean", "null"]},
    ),
    "Application": _object(
        ["id", "name", "attributes", *_WRITTEN],
        id=_text(),
        name=_text(),
        owner=_text(),
        description=_text(),
        attributes={"type": "object", "additionalProperties": _text()},
        **_WRITTEN,
    ),
    "APIKeyListResponse": _object(
        ["status", "totalCount", "apiKeys"],
        status=_SUCCESS,
        totalCount=_COUNT,
        apiKeys={"type": "array", "items": _ref("APIKey")},
    ),
}


def _schemas() -> Json:
    bodies: dict[str, type[BaseModel]] = {
        "RestAPIRequest": RestApi,
        "APIKeyCreationRequest": KeyRequest,
        "APIKeyUpdateRequest": KeyRequest,
        "APIKeyRegenerationRequest": KeyExpiry,
        "SubscriptionPlanRequest": SubscriptionPlanRequest,
        "SubscriptionCreateRequest": SubscriptionCreateRequest,
        "SubscriptionUpdateRequest": SubscriptionUpdateRequest,
        "ApplicationRequest": ApplicationRequest,
    }
    models, definitions = models_json_schema(
        [(model, "validation") for model in dict.fromkeys(bodies.values())],
        ref_template="#/components/schemas/{model}",
    )
    schemas: Json = dict(definitions.get("$defs", {}))
    for name, model in bodies.items():
        reference: str = models[model, "validation"]["$ref"]
        schemas[name] = schemas[reference.rpartition("/")[2]]
    for model in dict.fromkeys(bodies.values()):
        own = models[model, "validation"]["$ref"].rpartition("/")[2]
        if own not in bodies:
            schemas.pop(own, None)
    schemas["SubscriptionPlanUpdateRequest"] = _partial(schemas["SubscriptionPlanRequest"])
    schemas["SubscriptionUpdateRequest"] = _partial(schemas["SubscriptionUpdateRequest"])
    schemas["ApplicationRequest"]["required"] = ["name"]
    schemas["SubscriptionCreateRequest"]["required"].remove("id")
    schemas["ApplicationUpdateRequest"] = _partial(schemas["ApplicationRequest"])
    request = schemas["RestAPIRequest"]
    # GET answers can be sent back: the status is not looked at
    with_status = {**request["properties"], "status": _ref("ResourceStatus")}
    schemas["RestAPIRequest"] = {**request, "properties": with_status}
    schemas["RestAPI"] = {
        **schemas["RestAPIRequest"],
        "required": [*request.get("required", []), "status"],
    }
    return schemas | _ANSWERS


def _partial(schema: Json) -> Json:
    """A request that changes only what it names."""
    return {key: value for key, value in schema.items() if key != "required"}


def document(app: FastAPI) -> Json:
    """The OpenAPI document of `app`, made once."""
    if app.openapi_schema is None:
        found = get_openapi(
            title=app.title,
            version=app.version,
            description=app.description,
            routes=app.routes,
        )
        components = found.setdefault("components", {})
        components.setdefault("schemas", {}).update(_schemas())
        components["securitySchemes"] = {"basic": {"type": "http", "scheme": "basic"}}
        found["security"] = [{"basic": []}]
        for operations in found["paths"].values():
            for operation in operations.values():
                operation["responses"].pop("422", None)  # ours are 400
        app.openapi_schema = found
    return app.openapi_schema
