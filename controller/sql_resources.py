"""Rows of plans, subscriptions and applications: statements, and what stands in the columns."""

import hashlib
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import Row, Select, bindparam, insert, select, update

from bus.resources.application import Application
from bus.resources.subscription import Subscription
from bus.resources.subscription_plan import SubscriptionPlan
from controller.resources import KINDS, AnyResource, R, ResourceFilter, StoredResource
from controller.schema import RESOURCES

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_COLUMNS = RESOURCES.c
_HERE = (_COLUMNS.kind == bindparam("this_kind"), _COLUMNS.id == bindparam("this_id"))

# Built once, as in `controller.sql`.
HOLD = update(RESOURCES).where(*_HERE).values(held=_COLUMNS.held + 1)
ONE = select(RESOURCES).where(*_HERE)
NAMED = select(_COLUMNS.id).where(_COLUMNS.unique_name == bindparam("wanted"))
CHANGE = update(RESOURCES).where(*_HERE)
ADD = insert(RESOURCES).inline()


def place(kind: str, name: str) -> dict[str, object]:
    """Parameters of HOLD, ONE and CHANGE."""
    return {"this_kind": kind, "this_id": name}


def digest(*parts: str) -> str:
    """Equal texts whatever the collation of the database."""
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()


def unique_name(kind: str, unique: tuple[str, ...]) -> str:
    """The parameter `wanted` of NAMED."""
    return digest("live", kind, *unique)


def listing(kind: str, wanted: ResourceFilter) -> Select[Any]:
    """Live rows of a kind that pass the filter, oldest first."""
    query = select(RESOURCES).where(_COLUMNS.kind == kind, _COLUMNS.retired.is_(False))
    for column, value in (
        (_COLUMNS.api_digest, wanted.api),
        (_COLUMNS.plan_digest, wanted.plan),
        (_COLUMNS.application_digest, wanted.application),
    ):
        if value is not None:
            query = query.where(column == digest(value))
    return query.order_by(_COLUMNS.created_at_us, _COLUMNS.id)


def values(row: AnyResource) -> dict[str, object]:
    """What is written, beside the place."""
    name = row.resource.id
    return {
        "revision": row.revision,
        "body": row.resource.model_dump_json(by_alias=True, exclude_none=True),
        "created_at_us": _us(row.created_at),
        "updated_at_us": _us(row.updated_at),
        "retired": row.retired,
        "unique_name": (
            digest("retired", row.kind, name) if row.retired else unique_name(row.kind, row.unique)
        ),
        "api_digest": _reference(row.api),
        "plan_digest": _reference(row.plan),
        "application_digest": _reference(row.application),
    }


def any_stored(row: Row[Any]) -> AnyResource:
    """What a row holds."""
    if row.kind == KINDS[SubscriptionPlan]:
        return stored(SubscriptionPlan, row)
    if row.kind == KINDS[Subscription]:
        return stored(Subscription, row)
    return stored(Application, row)


def stored(model: type[R], row: Row[Any]) -> StoredResource[R]:
    """What a row of that kind holds."""
    resource = model.model_validate_json(row.body, by_name=False)
    times = _moment(row.created_at_us), _moment(row.updated_at_us)
    return StoredResource(row.revision, resource, *times, row.retired)


def _reference(name: str | None) -> str | None:
    return None if name is None else digest(name)


def _us(moment: datetime) -> int:
    return (moment - _EPOCH) // timedelta(microseconds=1)


def _moment(us: int) -> datetime:
    return _EPOCH + timedelta(microseconds=us)
