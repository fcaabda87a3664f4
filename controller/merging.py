"""Requests that change a part of a resource: what they name changes, null clears, the rest stays.

What the gateway itself writes into answers (`id`, times ...) may come back and is not looked at.
"""

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel

from bus.resources.faults import FieldFault, InvalidResource, Model, parse
from controller.errors import Invalid

_WRITTEN_BY_US = frozenset({"id", "gatewayId", "createdAt", "updatedAt", "revision"})


def without_nulls(document: Mapping[str, Any]) -> dict[str, Any]:
    """What is said of a new resource."""
    return {
        name: value
        for name, value in document.items()
        if value is not None and name not in _WRITTEN_BY_US
    }


def merged(before: BaseModel, document: Mapping[str, Any], failed: str) -> dict[str, Any]:
    """`before` in the words of a request, with what `document` names in its place.

    Raises Invalid with the message `failed` when it names another id.
    """
    known = before.model_dump(mode="json", by_alias=True, exclude_none=True)
    if document.get("id", known["id"]) != known["id"]:
        raise Invalid(failed, [FieldFault("id", "cannot be changed")])
    return without_nulls({**known, **document})


def read(model: type[Model], document: Mapping[str, Any], failed: str) -> Model:
    """`document` as a `model`. Raises Invalid with the message `failed` and all faults found."""
    try:
        return parse(model, document)
    except InvalidResource as error:
        raise Invalid(failed, error.faults) from error
