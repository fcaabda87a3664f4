"""What answers look like: resources with their status, errors, JSON or YAML."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import orjson
from starlette.requests import Request
from starlette.responses import Response

from controller.documents import to_yaml
from controller.model import StoredApi, StoredKey
from controller.resources import AnyResource
from controller.status import Deployments

Json = dict[str, Any]

_JSON = "application/json"
_YAML = "application/yaml"


def answer(payload: Json, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """`payload` as JSON."""
    return Response(orjson.dumps(payload), status, headers, media_type=_JSON)


def refusal(message: str, faults: list[Json] | None = None) -> Json:
    """The body of every error answer."""
    body: Json = {"status": "error", "message": message}
    if faults:
        body["errors"] = faults
    return body


def offered(request: Request, payload: Json, headers: Mapping[str, str]) -> Response:
    """`payload` as JSON, or as YAML when the caller accepts only that or likes it better."""
    if _quality(request, _YAML) > _quality(request, _JSON):
        return Response(to_yaml(payload), 200, headers, media_type=_YAML)
    return answer(payload, 200, headers)


def _quality(request: Request, media_type: str) -> float:
    """RFC 9110, 12.5.1: the most specific range that matches counts."""
    header = request.headers.get("accept") or "*/*"
    kind = media_type.partition("/")[0]
    wanted = {media_type: 3, f"{kind}/*": 2, "*/*": 1}
    if media_type == _YAML:
        wanted |= {"application/x-yaml": 3, "text/yaml": 3}
    best, quality = 0, 0.0
    for part in header.split(","):
        media_range, *parameters = (piece.strip().lower() for piece in part.split(";"))
        rank = wanted.get(media_range, 0)
        if rank > best:
            best, quality = rank, 1.0
            for parameter in parameters:
                if parameter.startswith("q="):
                    quality = _number(parameter[2:])
    return quality


def _number(text: str) -> float:
    try:
        return min(max(float(text), 0.0), 1.0)
    except ValueError:
        return 0.0


def moment(at: datetime | None) -> str | None:
    """RFC 3339 in UTC, milliseconds."""
    if at is None:
        return None
    utc = at.astimezone(UTC)
    return f"{utc:%Y-%m-%dT%H:%M:%S}.{utc.microsecond // 1000:03d}Z"


def resource(api: StoredApi, deployments: Deployments) -> Json:
    """The API as written, `$version` resolved, with its status."""
    document = api.document()
    document["spec"]["context"] = api.context
    standing = deployments.fleet.standing(api.handle, api.revision)
    status: Json = {
        "id": api.handle,
        "state": api.state,
        "createdAt": moment(api.created_at),
        "updatedAt": moment(api.updated_at),
        "deployedAt": moment(api.deployed_at),
        "revision": api.revision,
        "routers": {"live": standing.live, "total": standing.total},
    }
    if standing.reason is not None:
        status["reason"] = standing.reason
    if standing.fault is not None:
        status["fault"] = standing.fault
    document["status"] = status
    return document


def tag(api: StoredApi) -> dict[str, str]:
    """The entity tag of an API: its revision."""
    return {"ETag": f'"{api.revision}"'}


def key_view(row: StoredKey, now: datetime, plain: str | None = None) -> Json:
    """A key; `plain` shows it in full, else masked."""
    key = row.key
    view: Json = {
        "name": key.name,
        "displayName": key.application,
        "apiKey": plain or key.masked,
        "apiId": key.api_id,
        "status": "revoked" if row.revoked else "expired" if key.expired(now) else "active",
        "createdAt": moment(key.created_at),
        "createdBy": key.created_by,
        "updatedAt": moment(row.updated_at),
        "expiresAt": moment(key.expires_at),
        "source": key.source,
    }
    optional = {"externalRefId": key.external_ref_id, "issuer": key.issuer}
    return view | {name: value for name, value in optional.items() if value is not None}


def resource_view(row: AnyResource, gateway_id: str = "") -> Json:
    """A plan, a subscription or an application; of a token nothing, not even its digest.

    `gateway_id`: the gateway it is of, for kinds whose contract shows it.
    """
    view = row.resource.model_dump(
        mode="json", by_alias=True, exclude_none=True, exclude={"digest", "created_at"}
    )
    if gateway_id:
        view["gatewayId"] = gateway_id
    times = {"createdAt": moment(row.created_at), "updatedAt": moment(row.updated_at)}
    return view | times | {"revision": row.revision}
